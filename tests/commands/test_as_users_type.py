"""What users type and write, taken as they mean it or told in one line: ports, homes, byte order marks, commands."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kws_serve.cli import serve
from kws_serve.commands.certificate import check_certificate
from kws_serve.config import load_settings
from kws_serve.manifest.folder import load_model
from kws_serve.messages import KwsError
from kws_serve.sources.spec import parse_source
from tests.support.certificate import self_signed
from tests.support.service import Service, running
from tests.support.tiny_model import write_level_model

TOKEN = "a-token-of-sixteen-1"


@pytest.fixture
def level_model(tmp_path: Path) -> Path:
    return write_level_model(tmp_path / "models")


def begun(service: Service) -> str:
    """Start it, and read its banner."""
    service.start(wait=False, stdout=subprocess.PIPE)
    text = ""
    for line in service.process.stdout:
        text += line.decode()
        if "Ctrl-C" in text:
            return text
    raise AssertionError(service.stderr.read_text())


def test_two_services_on_any_free_port_have_a_log_each(level_model, tmp_path):
    services = [Service(level_model.parent, 0, tmp_path / "log") for _ in range(3)]
    for i, service in enumerate(services):
        service.stderr = tmp_path / f"stderr-{i}"
    try:
        logs = [re.search(r"log +(\S+)", begun(service))[1] for service in services]
        assert [Path(log).name for log in logs] == ["events-0.db", "events-0-2.db", "events-0-3.db"]
    finally:
        for service in services:
            if service.process is not None:
                service.kill()


def test_on_a_port_of_its_own_a_log_in_use_is_still_refused(level_model, tmp_path, free_port):
    with running(Service(level_model.parent, free_port, tmp_path / "log")):
        second = Service(level_model.parent, free_port, tmp_path / "log", "--host", "127.0.0.2")
        second.start(wait=False)
        assert second.process.wait(30) == 2
        assert "in use by another kws-serve" in second.stderr.read_text()


def status(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kws_serve", "status", *words],
        capture_output=True, text=True, timeout=60, env={**os.environ, **environ},
    )  # fmt: skip


@pytest.mark.parametrize("host", ["127.0.0.2", "0.0.0.0", "::1", "[::1]"])
def test_status_asks_where_the_service_listens(level_model, tmp_path, free_port, host):
    service = Service(level_model.parent, free_port, tmp_path / "log", "--host", host, "--token", TOKEN)
    begun(service)
    try:
        for words, environ in (
            (["--host", host, "--port", f"{free_port}"], {}),
            ([], {"KWS_HOST": host, "KWS_PORT": f"{free_port}"}),
        ):
            run = status(*words, KWS_TOKEN=TOKEN, **environ)
            assert run.returncode == 0, run.stderr
            assert f":{free_port}" in run.stdout
    finally:
        service.kill()


def test_status_knows_the_services_own_certificate_and_no_other(level_model, tmp_path, free_port):
    cert, key = self_signed(tmp_path, "DNS:ears.example.org")
    (tmp_path / "other").mkdir()
    other, other_key = self_signed(tmp_path / "other", "DNS:ears.example.org")
    own = {"KWS_TLS_CERT": f"{cert}", "KWS_TLS_KEY": f"{key}"}
    service = Service(level_model.parent, free_port, tmp_path / "log", **own)
    begun(service)
    try:
        run = status("--port", f"{free_port}", **own)
        assert run.returncode == 0, run.stderr
        run = status("--port", f"{free_port}", KWS_TLS_CERT=f"{other}", KWS_TLS_KEY=f"{other_key}", KWS_TOKEN=TOKEN)
        assert run.returncode == 2
        assert "certificate" in run.stderr.lower()
    finally:
        service.kill()


def test_an_encrypted_key_is_refused_and_nobody_is_asked(tmp_path):
    cert, key = self_signed(tmp_path)
    locked = tmp_path / "locked.pem"
    encrypt = ["openssl", "pkey", "-in", key, "-out", locked, "-aes256", "-passout", "pass:secret"]
    subprocess.run(encrypt, check=True)
    with pytest.raises(KwsError, match=f"--tls-key: found {locked} encrypted, wanted one without a passphrase"):
        check_certificate(cert, locked)
    ours, theirs = pty.openpty()
    run = subprocess.run(
        [sys.executable, "-m", "kws_serve", "--source", "none", "--tls-cert", cert, "--tls-key", locked],
        stdin=theirs, capture_output=True, text=True, timeout=60, start_new_session=True,
    )  # fmt: skip
    os.close(ours)
    os.close(theirs)
    assert (run.returncode, "encrypted" in run.stderr, "pass phrase" in run.stderr) == (2, True, False)


def test_a_tilde_is_the_home_folder_wherever_a_path_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", f"{tmp_path}")
    monkeypatch.delenv("KWS_DATA_DIR")
    (tmp_path / "kws.toml").write_text(
        'model_dir = "~/models"\ntls_cert = "~/cert.pem"\ntls_key = "~/key.pem"\n'
        'html = "~/out.html"\ndata_dir = "~/d"\n'
    )
    settings, _ = load_settings({"config": "~/kws.toml"})
    found = (settings.model_dir, settings.tls_cert, settings.tls_key, settings.html, settings.data_folder)
    assert found == tuple(tmp_path / name for name in ("models", "cert.pem", "key.pem", "out.html", "d"))
    for text in ("~/a b.wav", "tape=~/a b.wav"):
        assert parse_source(text).target == f"{tmp_path / 'a b.wav'}"
    assert parse_source("./~/a.wav").target == "./~/a.wav"


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path, level_model):
    config = tmp_path / "kws.toml"
    config.write_text("port = 8123\n", encoding="utf-8-sig")
    assert load_settings({"config": f"{config}"})[0].port == 8123
    manifest = level_model / "model.json"
    manifest.write_text(manifest.read_text(), encoding="utf-8-sig")
    assert load_model(level_model).name == "level"


@pytest.mark.parametrize("words, meant", [
    (["detect"], "kws-detect"), (["detect", "a.wav"], "kws-detect"), (["models"], "kws-models"),
    (["models", "list"], "kws-models"), (["board"], "kws-board"), (["tokens"], "kws-serve token"),
    (["staus"], "kws-serve status"), (["serve"], "kws-serve"), (["kws-detect"], "kws-detect"),
    (["recording.flac"], "kws-serve --source recording.flac"),
])  # fmt: skip
def test_an_unknown_command_is_told_with_what_is_meant(words, meant, capsys):
    with pytest.raises(SystemExit) as e:
        serve(words)
    said = capsys.readouterr().err
    assert e.value.code == 2
    assert said == f"kws-serve: found {words[0]!r}, wanted token, status or flags; did you mean {meant}?\n"


def test_an_unknown_command_like_nothing_is_told_without_a_guess(capsys):
    with pytest.raises(SystemExit):
        serve(["xyzzy"])
    assert capsys.readouterr().err == "kws-serve: found 'xyzzy', wanted token, status or flags (see kws-serve --help)\n"
