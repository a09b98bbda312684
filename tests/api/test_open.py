"""FIELD 6, S3: a service that wants tokens wants them for as long as it runs, whatever becomes of its token file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import websockets

from kws_serve.api.hosts import Hosts
from kws_serve.api.security import Access, clean_token
from kws_serve.api.tokens import TokenFile
from kws_serve.messages import KwsError
from tests.api.conftest import TOKEN
from tests.api.test_security import closed_with
from tests.support.live_server import LiveServer, live_server


def revoke(path: Path) -> None:
    TokenFile(path).revoke("phone")


def empty(path: Path) -> None:
    path.write_text('{"tokens": []}')


def move(path: Path) -> None:
    path.rename(path.with_name("elsewhere.json"))


def damage(path: Path) -> None:
    path.write_text("{")


def take_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def make_unreadable(path: Path) -> None:
    path.unlink()
    path.mkdir()  # reading it fails, whoever runs this test


LOSSES = [revoke, Path.unlink, move, empty, damage, take_folder, make_unreadable]


def status(server: LiveServer, token: str | None = None, path: str = "/v1/streams") -> int:
    headers = {} if token is None else {"Authorization": f"Bearer {token}".strip()}
    return httpx.get(f"{server.http}{path}", headers=headers).status_code


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "state" / "tokens.json")


@pytest.mark.parametrize(
    "lose, host",
    [*((lose, "0.0.0.0") for lose in LOSSES), (revoke, "127.0.0.1")],
    ids=lambda given: given if isinstance(given, str) else given.__name__,
)
async def test_s3_a_service_whose_tokens_are_gone_admits_nobody(level_model, file, lose, host):
    token = file.new("phone", ["listen"])
    with live_server([level_model], tokens=file, host=host) as server:
        assert status(server, token) == 200
        async with websockets.connect(
            f"{server.ws}/v1/detections", additional_headers={"Authorization": f"Bearer {token}"}
        ) as early:
            await early.recv()
            lose(file.path)
            assert (await closed_with(early))[0] == 4401
        for presented in (None, "", token, "x"):
            assert status(server, presented) == 401
            async with websockets.connect(f"{server.ws}/v1/audio?stream=a") as ws:
                await ws.send(json.dumps({"type": "auth", "token": presented}))
                assert (await closed_with(ws))[0] == 4401
        assert not server.engine.streams


async def test_s3_a_new_token_opens_the_door_again_to_its_bearer_only(level_model, file):
    file.new("phone", ["listen"])
    with live_server([level_model], tokens=file, host="0.0.0.0") as server:
        file.revoke("phone")
        assert status(server) == 401
        token = TokenFile(file.path).new("phone", ["listen"])
        assert (status(server), status(server, token)) == (401, 200)


@pytest.mark.parametrize(
    "lose, host, insecure",
    [*((lose, "127.0.0.1", False) for lose in LOSSES), (revoke, "0.0.0.0", True)],
    ids=lambda given: getattr(given, "__name__", f"{given}"),
)
def test_s3_an_open_service_never_opens_again(level_model, file, lose, host, insecure):
    """It is open while nobody has made a token; from the first one on it asks for one, also once that is gone."""
    with live_server([level_model], tokens=file, host=host, insecure=insecure) as server:
        assert status(server) == 200
        token = TokenFile(file.path).new("phone", ["listen"])
        assert (status(server), status(server, token)) == (401, 200)
        lose(file.path)
        assert (status(server), status(server, token)) == (401, 401)


def test_s3_a_token_made_and_revoked_between_two_requests_closes_an_open_service(level_model, file):
    with live_server([level_model], tokens=file) as server:
        file.new("phone", ["listen"])
        file.revoke("phone")
        assert status(server) == 401


@pytest.mark.parametrize("before", [None, '{"tokens": []}'])
def test_s3_open_is_decided_at_the_start(level_model, file, before):
    if before is not None:
        file.path.parent.mkdir()
        file.path.write_text(before)
    with live_server([level_model], tokens=file) as server:
        assert status(server) == 200
    with live_server([level_model], tokens=file, host="0.0.0.0", insecure=True) as server:
        assert status(server) == 200
    with pytest.raises(KwsError, match="wanted KWS_TOKEN"), live_server([level_model], tokens=file, host="0.0.0.0"):
        pass


@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: lose.__name__)
def test_s3_the_services_own_token_does_not_depend_on_the_file(level_model, file, lose):
    token = file.new("phone", ["listen"])
    with live_server([level_model], tokens=file, host="0.0.0.0", token=TOKEN) as server:
        assert (status(server, token), status(server, TOKEN)) == (200, 200)
        lose(file.path)
        assert (status(server), status(server, token), status(server, TOKEN)) == (401, 401, 200)


def test_s3_a_list_that_is_lost_between_the_check_and_the_start_opens_nothing(file):
    assert not Access(Hosts("0.0.0.0"), tokens=file).open
    assert Access(Hosts("0.0.0.0"), tokens=file).grant("x") is None
    assert not Access(Hosts("0.0.0.0")).open


@pytest.mark.parametrize("text", ["", " ", "\r\n", "\t"])
def test_s3_a_blank_token_is_none(level_model, file, text):
    """Not one that everybody has: `Authorization: Bearer` without anything is no key."""
    with live_server([level_model], tokens=file, token=text) as server:
        assert status(server) == 200  # as without: open, on this machine only
        file.new("phone", ["listen"])
        assert status(server, "") == 401
    with pytest.raises(KwsError, match="wanted KWS_TOKEN"), live_server([level_model], token=text, host="0.0.0.0"):
        pass


@pytest.mark.parametrize("text", ["s3cret\r", "s3cret\n", " s3cret ", "s3cret"])
def test_s3_blanks_around_the_services_token_do_not_count(level_model, text):
    """A file's last newline, or a carriage return of Windows, cannot be sent in a header."""
    with live_server([level_model], token=text) as server:
        assert (status(server, "s3cret"), status(server, "s3cre"), status(server)) == (200, 401, 401)


async def test_s3_a_token_that_is_not_ascii_works_in_header_and_message(level_model):
    with live_server([level_model], token="schlüssel") as server:
        for raw in ("schlüssel".encode(), "schlüssel".encode("latin-1")):
            headers = {b"Authorization": b"Bearer " + raw}
            assert httpx.get(f"{server.http}/v1/streams", headers=headers).status_code == 200
        async with websockets.connect(f"{server.ws}/v1/detections") as ws:
            await ws.send('{"type":"auth","token":"schlüssel"}')
            assert json.loads(await ws.recv())["type"] == "hello"


def test_s3_a_token_that_no_header_can_carry_is_refused_at_the_start():
    assert clean_token(None) is None
    with pytest.raises(KwsError, match="token: found a control character"):
        clean_token("a\nb")


@pytest.mark.parametrize("sha256", ["ä" * 64, "", "0" * 63, "G" * 64])
def test_s3_a_row_without_a_hash_is_damage(file, sha256):
    file.new("phone", ["listen"])
    rows = json.loads(file.path.read_text())
    rows["tokens"][0]["sha256"] = sha256
    file.path.write_text(json.dumps(rows))
    assert Access(Hosts("127.0.0.1"), tokens=file).grant("x") is None


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kws_serve", *words], capture_output=True, text=True)


def test_revoking_the_last_token_says_so(tmp_path: Path):
    folder = ["--data-dir", str(tmp_path / "state")]
    for name in ("phone", "front-door"):
        assert run("token", "new", name, *folder).returncode == 0
    assert run("token", "revoke", "phone", *folder).stdout == ""
    last = run("token", "revoke", "front-door", *folder)
    assert last.returncode == 0
    assert "the last token" in last.stdout
    assert "nobody" in last.stdout
