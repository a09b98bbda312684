"""What stays out of a core dump: there is none, and of the service's own token only the hash is in memory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from kws_serve.api.security import own_token
from kws_serve.commands.own_token import read_own_token
from kws_serve.config import load_settings
from kws_serve.host.log_format import masked
from kws_serve.messages import KwsError
from tests.campaigns.proof import record
from tests.support.service import Service

TOKEN = "not-a-word-7f3e9a1c"
FLAGS = {
    "variable": ((), {"KWS_TOKEN": TOKEN}),
    "file": (("--token-file", "{folder}/kws_token"), {}),
    "credential": ((), {"CREDENTIALS_DIRECTORY": "{folder}"}),
}


def found_in_memory(pid: int, wanted: bytes) -> int:
    """How often `wanted` is in the memory of a process. Raises PermissionError where that cannot be read."""
    found = 0
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if not re.match(r"\S+ rw", line) or "[vvar" in line:
                continue
            first, last = (int(x, 16) for x in line.split()[0].split("-"))
            memory.seek(first)
            while first < last:
                try:
                    part = memory.read(min(1 << 24, last - first))
                except OSError:
                    break
                found += part.count(wanted)
                first += len(part)
    return found


@pytest.mark.parametrize("how", FLAGS)
def test_s6_the_services_own_token_is_kept_as_a_hash_only(level_model, free_port, tmp_path, monkeypatch, how):
    monkeypatch.delenv("KWS_TOKEN", raising=False)
    folder = tmp_path / "secret"
    folder.mkdir()
    (folder / "kws_token").write_bytes(b"\xef\xbb\xbf" + TOKEN.encode() + b"\r\n")
    flags, environ = FLAGS[how]
    service = Service(
        level_model.parent, free_port, tmp_path / "state",
        *(flag.format(folder=folder) for flag in flags),
        **{name: value.format(folder=folder) for name, value in environ.items()},
    )  # fmt: skip
    service.start()
    try:
        assert httpx.get(f"{service.http}/v1/status").status_code == 401
        headers = {"Authorization": f"Bearer {TOKEN}"}
        limits = Path(f"/proc/{service.process.pid}/limits").read_text()
        assert re.search(r"Max core file size +0 +0 ", limits)
        try:
            found = found_in_memory(service.process.pid, TOKEN.encode())
            found += Path(f"/proc/{service.process.pid}/environ").read_bytes().count(TOKEN.encode())
        except PermissionError:  # to others than root that is what PR_SET_DUMPABLE does
            found = 0
        assert httpx.get(f"{service.http}/v1/status", headers=headers).status_code == 200
    finally:
        service.terminate()
    assert found <= (2 if how == "variable" else 0), "a variable passes through memory that is freed, not wiped"
    record("secrecy", "3 ways to give the token", "0 times in memory (2 freed copies of a variable), no core dump")


def test_s6_nobody_but_root_reads_the_memory():
    code = (
        "import ctypes, resource; from kws_serve.host.secrecy import forbid_dumps; forbid_dumps(); "
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == ["0"] * 3


def test_a_token_is_masked_by_its_hash():
    own = own_token(TOKEN)
    assert own is not None and TOKEN not in repr(own)
    line = f"x{TOKEN}y and {TOKEN}, not {TOKEN[:-1]}"
    assert masked(line, (own.hidden_in,)) == f"x***y and ***, not {TOKEN[:-1]}"


def test_a_token_comes_from_one_place(tmp_path, monkeypatch):
    monkeypatch.delenv("KWS_TOKEN", raising=False)
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    settings, _ = load_settings({"token": TOKEN, "token_file": str(file)})
    with pytest.raises(KwsError, match="token-file: found --token or KWS_TOKEN too, wanted one of them"):
        read_own_token(settings)


@pytest.mark.parametrize("content", [None, b"", b" \r\n", b"\xff\xfe", b"two\nlines\n"])
def test_a_token_file_that_has_none_is_named(tmp_path, content):
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    settings, _ = load_settings({"token_file": str(file)})
    with pytest.raises(KwsError, match=re.escape(str(file))):
        read_own_token(settings)
