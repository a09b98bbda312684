"""What the container's entry point and health check do, run as they are, without a container."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kws_serve.commands.health import flags_of, health
from kws_serve.config import load_settings
from kws_serve.messages import KwsError
from tests.support.certificate import self_signed
from tests.support.service import Service, running
from tests.support.tiny_model import write_level_model

DOCKER = Path(__file__).resolve().parents[2] / "docker"
TOKEN = "a-token-of-sixteen-1"


@pytest.fixture
def level_model(tmp_path: Path) -> Path:
    return write_level_model(tmp_path / "models")


def entered(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """The entry point with a kws-serve that only shows its token and flags."""
    (folder / "bin").mkdir(exist_ok=True)
    shows = folder / "bin" / "kws-serve"
    shows.write_text('#!/bin/sh\nprintf "<%s> %s" "$KWS_TOKEN" "$*" >"$SEEN"\n')
    shows.chmod(0o755)
    python = folder / "bin" / "python3"
    if not python.exists():
        python.symlink_to(sys.executable)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("KWS_")}
    return subprocess.run(
        ["sh", DOCKER / "entrypoint.sh", "--source", "none"], capture_output=True, text=True,
        env={**kept, "PATH": f"{folder / 'bin'}:/usr/bin:/bin", "SEEN": f"{folder / 'seen'}",
             "KWS_DATA_DIR": f"{folder}", **environ},
    )  # fmt: skip


@pytest.mark.parametrize("text", [b"%s", b"%s\n", b"%s\r\n", b"\xef\xbb\xbf%s\r\n", b"%s\r"])
def test_a_secret_of_any_system_is_the_token(tmp_path, text):
    (tmp_path / "secret").write_bytes(text % TOKEN.encode())
    run = entered(tmp_path, KWS_TOKEN_FILE=f"{tmp_path / 'secret'}")
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "seen").read_bytes() == f"<{TOKEN}> --source none".encode()
    assert TOKEN not in run.stdout + run.stderr


@pytest.mark.parametrize("content", [None, b"", b"\r\n"])
def test_a_secret_that_is_not_there_is_told(tmp_path, content):
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    run = entered(tmp_path, KWS_TOKEN_FILE=f"{tmp_path / 'secret'}")
    assert run.returncode == 2
    assert run.stderr.startswith("error: KWS_TOKEN_FILE: ") and "wanted a file with the token" in run.stderr


def test_a_token_that_is_made_is_kept_and_never_printed(tmp_path):
    seen = []
    for _ in range(2):
        run = entered(tmp_path)
        assert run.returncode == 0, run.stderr
        seen.append((tmp_path / "seen").read_text())
        kept = tmp_path / "container-token"
        assert kept.read_text().strip() in seen[-1]
        assert len(kept.read_text().strip()) == 32
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert kept.read_text().strip() not in run.stdout + run.stderr
        assert f"cat {kept}" in run.stdout
    assert seen[0] == seen[1]
    assert entered(tmp_path, KWS_TOKEN=TOKEN).stdout == ""


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("by", ["flags", "variables"])
def test_the_health_check_finds_port_and_tls(level_model, tmp_path, free_port, tls, by, monkeypatch):
    monkeypatch.setenv("KWS_PORT", "1")  # as the image has another
    cert, key = self_signed(tmp_path, "DNS:ears.example.org")
    flags = ["--token", TOKEN, *(["--tls-cert", f"{cert}", "--tls-key", f"{key}"] if tls else [])]
    environ = {}
    if by == "variables":
        environ = {"KWS_TOKEN": TOKEN, **({"KWS_TLS_CERT": f"{cert}", "KWS_TLS_KEY": f"{key}"} if tls else {})}
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        flags = []
    with running(Service(level_model.parent, free_port, tmp_path / "log", *flags, **environ)) as service:
        assert health(f"{service.process.pid}") == 0
        assert flags_of(f"{service.process.pid}")[:2] == ["--port", f"{free_port}"]
        pid = service.process.pid
        service.process.send_signal(19)  # SIGSTOP: its flags are there, but it does not answer
        assert health(f"{pid}") == 1
    with pytest.raises(KwsError, match="found no kws-serve"):
        flags_of(f"{pid}")


@pytest.mark.parametrize("service", ["KWS", "KWS_SERVE"])
def test_what_kubernetes_says_of_its_neighbours_is_no_setting(service, monkeypatch):
    """Variables of a service called kws or kws-serve, as its documentation lists them."""
    address = "tcp://10.0.0.11:8000"
    for name, value in {
        "SERVICE_HOST": "10.0.0.11", "SERVICE_PORT": "8000", "PORT": address, "PORT_8000_TCP": address,
        "PORT_8000_TCP_PROTO": "tcp", "PORT_8000_TCP_PORT": "8000", "PORT_8000_TCP_ADDR": "10.0.0.11",
        "SERVICE_PORT_HTTP": "8000",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"{service}_{name}", value)
    settings, warnings = load_settings({})
    assert settings.port == 8000
    told = [w for w in warnings if w.startswith("KWS_PORT: found 'tcp://10.0.0.11:8000', the address of a neighbour")]
    assert len(told) == (service == "KWS")
    monkeypatch.setenv("KWS_PORT", "8123")
    assert load_settings({})[0].port == 8123


def test_the_compose_file_needs_nothing_that_is_not_there():
    lines = [line for line in (DOCKER / "compose.yaml").read_text().splitlines() if not line.lstrip().startswith("#")]
    assert not any("secret" in line for line in lines)


def test_the_image_gets_every_file_that_it_copies():
    """What .dockerignore does not let in cannot be copied, and the image is not built."""
    let_in = {line[1:] for line in (DOCKER.parent / ".dockerignore").read_text().split() if line.startswith("!")}
    copies = [line.split()[1:-1] for line in (DOCKER / "Dockerfile").read_text().splitlines() if line[:5] == "COPY "]
    wanted = {word for words in copies if "--from=build" not in words for word in words if not word.startswith("--")}
    assert {"requirements.lock", "service"} <= wanted
    assert wanted <= let_in
