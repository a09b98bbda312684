"""Real reverse proxies under the recipes of docs/proxies.md, at ports and certificates of the test's own."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "proxies.md"
NAME = "ears.example.org"
SUB_PATH = "/ears/"
PROXIES = ("nginx", "caddy", "haproxy")


def recipes(language: str) -> list[str]:
    """The page's code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def _nginx(folder: Path, path: str, tls: bool) -> tuple[str, list[str]]:
    (server,) = recipes("nginx")
    server = server.replace("location / {", f"location {path} {{")
    server = server.replace("listen 443 ssl", "listen 127.0.0.1:PUBLIC" + (" ssl" if tls else ""))
    if not tls:
        server = re.sub(r" +ssl_certificate.*\n", "", server)
    places = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = f"daemon off;\nmaster_process off;\npid {folder}/pid;\nevents {{}}\nhttp {{\n    access_log off;\n{places}"
    return text + server + "}\n", ["nginx", "-p", f"{folder}", "-e", f"{folder}/error.log", "-c"]


def _caddy(folder: Path, path: str, tls: bool) -> tuple[str, list[str]]:
    site = recipes("caddyfile")[path != "/"]
    own = "    bind 127.0.0.1\n" + ("    tls /etc/ssl/ears.pem /etc/ssl/ears.key\n" if tls else "")
    site = site.replace(f"{NAME} {{\n", f"http{'s' if tls else ''}://{NAME}:PUBLIC {{\n{own}", 1)
    options = f"{{\n    admin off\n    auto_https off\n    storage file_system {folder}\n}}\n"
    return options + site, ["caddy", "run", "--adapter", "caddyfile", "--config"]


def _haproxy(folder: Path, path: str, tls: bool) -> tuple[str, list[str]]:
    (text,) = recipes("haproxy")
    if path != "/":
        text = text.replace("    server kws", f"{recipes('haproxy-path')[0]}    server kws")
    bind = "bind 127.0.0.1:PUBLIC" + (" ssl crt /etc/ssl/ears-with-key.pem" if tls else "")
    text = text.replace("bind :443 ssl crt /etc/ssl/ears-with-key.pem", bind)
    return text, ["haproxy", "-db", "-f"]


_MADE = {"nginx": _nginx, "caddy": _caddy, "haproxy": _haproxy}


@contextlib.contextmanager
def reverse_proxy(
    kind: str, folder: Path, port: int, to_port: int, path: str, tls: tuple[Path, Path] | None
) -> Iterator[None]:
    """A proxy of this kind on 127.0.0.1:`port` before 127.0.0.1:`to_port`, up. Skips where it is not installed."""
    if shutil.which(kind, path="/usr/sbin:/usr/bin:/usr/local/bin") is None:
        pytest.skip(f"needs {kind}: apt-get install {'nginx-light' if kind == 'nginx' else kind}")
    text, command = _MADE[kind](folder, path, tls is not None)
    text = text.replace("PUBLIC", f"{port}").replace("127.0.0.1:8000", f"127.0.0.1:{to_port}")
    if tls is not None:
        both = folder / "both.pem"
        both.write_text(tls[0].read_text() + tls[1].read_text())
        for name, file in (("ears.pem", tls[0]), ("ears.key", tls[1]), ("ears-with-key.pem", both)):
            text = text.replace(f"/etc/ssl/{name}", f"{file}")
    config = folder / "config"
    config.write_text(text)
    command[0] = shutil.which(kind, path="/usr/sbin:/usr/bin:/usr/local/bin") or kind
    said = folder / "said"
    with said.open("wb") as out:
        process = subprocess.Popen([*command, f"{config}"], stdout=out, stderr=out)
    try:
        deadline_s = time.monotonic() + 20
        while True:
            assert process.poll() is None and time.monotonic() < deadline_s, said.read_text()[-2000:]
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.02)  # it has no common way to say that it listens
        yield
    finally:
        process.terminate()
        process.wait(10)
