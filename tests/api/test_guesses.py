"""FIELD 6, S3: tokens cannot be guessed, and what is wrong with their file is said with the remedy. S5 and S13."""

from __future__ import annotations

import json
import logging

import httpx
import pytest
import websockets

from kws_serve.api.hosts import Hosts
from kws_serve.api.security import GUESSES, MIN_TOKEN_CHARS, Access, TooManyGuesses, check_exposure
from kws_serve.api.tokens import TokenFile
from kws_serve.messages import KwsError
from tests.api.conftest import TOKEN
from tests.api.test_security import closed_with
from tests.support.live_server import live_server

MOST = int(GUESSES.burst)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
@pytest.mark.parametrize("insecure", [False, True])
def test_s3_a_token_that_can_be_guessed_is_refused_beyond_this_machine(host, insecure):
    for short in ("a", "secret", "x" * (MIN_TOKEN_CHARS - 1)):
        with pytest.raises(KwsError, match=f"wanted at least {MIN_TOKEN_CHARS}"):
            check_exposure(host, short, insecure)
        check_exposure("127.0.0.1", short, insecure)
    check_exposure(host, "x" * MIN_TOKEN_CHARS, insecure)


def test_s3_guesses_are_bounded_and_those_who_were_right_go_on(level_model):
    """2,000 wrong ones: the right one among them is not told from them, but for who had it before, or elsewhere."""
    access = Access(Hosts("0.0.0.0"), TOKEN)
    assert access.admit(TOKEN, "10.0.0.1") is not None
    looked_at = 0
    for i in range(2000):
        try:
            assert access.admit(f"wrong-{i}", "10.0.0.1") is None
            looked_at += 1
        except TooManyGuesses:
            pass
    assert MOST <= looked_at <= 2 * MOST
    assert access.admit(TOKEN, "10.0.0.1") is not None
    assert access.admit(TOKEN, "10.0.0.2") is not None
    with pytest.raises(TooManyGuesses):
        for i in range(2000):
            access.admit(f"wrong-{i}", "10.0.0.3")
    with pytest.raises(TooManyGuesses):
        access.admit(TOKEN, "10.0.0.3")
    assert access.admit(None, "10.0.0.3") is None  # no token is no guess


async def test_s3_every_door_counts_guesses(level_model):
    """By header over HTTP, by header and by message over a WebSocket; pages and health go on."""
    with live_server([level_model], token=TOKEN) as server:
        async with httpx.AsyncClient() as http:
            for i in range(MOST // 2):
                headers = {"Authorization": f"Bearer wrong-{i}"}
                assert (await http.get(f"{server.http}/v1/streams", headers=headers)).status_code == 401
            found = set()
            for i in range(MOST):
                async with websockets.connect(f"{server.ws}/v1/detections") as ws:
                    await ws.send(json.dumps({"type": "auth", "token": f"wrong-{i}"}))
                    found.add((await closed_with(ws))[0])
            assert found == {4401, 4429}
            right = {"Authorization": f"Bearer {TOKEN}"}
            answer = await http.get(f"{server.http}/v1/streams", headers=right)
            assert answer.status_code == 429
            assert "retry-after" in answer.headers
            for path in ("/healthz", "/"):
                assert (await http.get(f"{server.http}{path}", headers=headers)).status_code == 200
        async with websockets.connect(f"{server.ws}/v1/detections", additional_headers=right) as ws:
            assert (await closed_with(ws))[0] == 4429


@pytest.mark.parametrize(
    "text",
    ['{"loud": {"\\ud800": 1}}', '{"yes": {"threshold": "\\ud800"}}', '{"\\ud800": {}}', '["\\udfff"]', '"\\ud800"'],
)
def test_s5_half_a_character_is_a_clear_error(server, text):
    answer = httpx.patch(f"{server.http}/v1/models/level/detection", content=text)
    assert answer.status_code == 422
    assert "half of a character" in answer.json()["message"]
    mark = httpx.put(f"{server.http}/v1/detections/1/review", content=text)
    assert mark.status_code == 422


async def test_s5_half_a_character_closes_4400(server):
    for path in ("/v1/detections", "/v1/audio?stream=half", "/v1/live?stream=half"):
        async with websockets.connect(f"{server.ws}{path}") as ws:
            await ws.send('{"type":"\\ud800"}')
            code, error = await closed_with(ws)
        assert code == 4400, path
        assert "half of a character" in error["message"]


def test_s13_answers_of_the_api_are_not_kept(server, locked):
    for path in ("/v1/streams", "/v1/detections.csv", "/v1/unknown", "/healthz", "/metrics", "/openapi.json"):
        assert httpx.get(f"{server.http}{path}").headers["cache-control"] == "no-store", path
        assert httpx.get(f"{locked.http}{path}").headers["cache-control"] == "no-store", path
    assert "no-store" not in httpx.get(f"{server.http}/main.js").headers.get("cache-control", "")


@pytest.mark.parametrize("text", ["", "\0" * 300, "\n"])
@pytest.mark.parametrize("token", [None, TOKEN])
def test_s3_an_empty_token_file_is_told_at_start_with_the_remedy(tmp_path, caplog, text, token):
    file = TokenFile(tmp_path / "tokens.json")
    file.new("phone", ["listen"])
    file.path.write_text(text)
    access = Access(token=token, tokens=file)
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(said) == 1
    for part in (f"{file.path} empty, as a power loss can leave it", "kws-serve token new", f"rm {file.path}"):
        assert part in said[0]
    assert access.grant("x") is None
    file.path.unlink()  # the remedy
    new = TokenFile(file.path).new("phone", ["listen"])
    assert access.grant(new) is not None


def test_s3_a_token_file_that_empties_later_is_told_once(tmp_path, caplog):
    file = TokenFile(tmp_path / "tokens.json")
    token = file.new("phone", ["listen"])
    access = Access(tokens=file)
    assert access.grant(token) is not None
    file.path.write_text("")
    for _ in range(3):
        assert access.grant(token) is None
    assert [r.getMessage() for r in caplog.records].count(caplog.records[0].getMessage()) == 1
    assert "remedy" in caplog.records[0].getMessage()


@pytest.mark.parametrize("mode", [0o666, 0o640, 0o604, 0o620])
def test_s3_a_token_file_that_others_can_open_is_remarked(tmp_path, caplog, mode):
    file = TokenFile(tmp_path / "tokens.json")
    file.new("phone", ["listen"])
    file.path.chmod(mode)
    Access(tokens=file)
    assert [f"mode {mode:04o}" in r.getMessage() and "chmod 600" in r.getMessage() for r in caplog.records] == [True]
    file.path.chmod(0o600)
    caplog.clear()
    Access(tokens=file)
    assert not caplog.records
