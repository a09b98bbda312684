"""FIELD 6, S4: what was for `listen` and is not any more: the live view, why something fired, metrics."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import websockets

from kws_serve.api.security import Access
from kws_serve.api.tokens import TokenFile
from kws_serve.messages import KwsError
from tests.api.test_security import closed_with
from tests.support.live_server import live_server

OF_BEFORE = {"sha256": "0" * 64, "streams": None, "created": "2026-11-20T09:00:00Z"}


def of_before(path: Path) -> TokenFile:
    """A file as the version before wrote it: two tokens that listen, one of them to a stream, and two others."""
    rows = [
        OF_BEFORE | {"name": "phone", "scopes": ["listen"]},
        OF_BEFORE | {"name": "hall", "scopes": ["listen", "ingest"], "streams": ["hall"]},
        OF_BEFORE | {"name": "door", "scopes": ["ingest"]},
        OF_BEFORE | {"name": "me", "scopes": ["admin"]},
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"tokens": rows}))
    path.chmod(0o600)
    return TokenFile(path)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kws_serve", *words], capture_output=True, text=True)


def test_s4_start_and_list_name_the_tokens_that_lost_something_and_the_remedy(tmp_path, caplog):
    file = of_before(tmp_path / "tokens.json")
    Access(tokens=file)
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    listed = run("token", "list", "--data-dir", str(tmp_path)).stderr.splitlines()
    for lines in (said, listed):
        assert len(lines) == 2
        assert "token phone:" in lines[0]
        assert "`kws-serve token grant phone --scope view`" in lines[0]
        assert "`kws-serve token grant phone --scope metrics`" in lines[0]
        assert "`kws-serve token grant hall --scope view`" in lines[1]
        assert "metrics`" not in lines[1]  # they are of all streams


def test_s4_the_remedy_gives_it_back_and_choosing_again_ends_the_remark(tmp_path):
    file, folder = of_before(tmp_path / "tokens.json"), ["--data-dir", str(tmp_path)]
    assert run("token", "grant", "phone", "--scope", "view", *folder).returncode == 0
    assert run("token", "grant", "hall", "--scope", "listen", *folder).returncode == 0
    listed = run("token", "list", *folder)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert [row.scopes for row in file.rows()] == [("listen", "view"), ("listen", "ingest"), ("ingest",), ("admin",)]
    assert run("token", "grant", "nobody", "--scope", "view", *folder).returncode == 2


def test_s4_metrics_and_admin_are_of_all_streams_and_clips_are_to_come(tmp_path):
    file = TokenFile(tmp_path / "tokens.json")
    file.new("hall", ["listen"], ["hall"])
    for scope in ("metrics", "admin"):
        with pytest.raises(KwsError, match=f"found {scope} for some streams only"):
            file.new("other", [scope], ["hall"])
        with pytest.raises(KwsError, match=f"found {scope} for some streams only"):
            file.grant("hall", [scope])
    with pytest.raises(KwsError, match="kept for a later version"):
        file.new("other", ["clips"])
    rows = json.loads(file.path.read_text())
    rows["tokens"][0]["scopes"] = ["listen", "clips"]  # by a later version
    file.path.write_text(json.dumps(rows))
    assert file.rows()[0].grant.may("listen")
    rows["tokens"][0]["scopes"] = ["metrics"]
    file.path.write_text(json.dumps(rows))
    with pytest.raises(KwsError, match="damaged"):
        file.rows()


@pytest.mark.parametrize("path", ["/metrics", "/metrics%0A", "/v1/detections/1/why", "/v1/detections/1/why%0A",
                                  "/v1/detections/%31/why", "/v1/detections//why", "/metrics/"])  # fmt: skip
def test_s4_no_spelling_of_a_path_needs_less(level_model, tmp_path, path):
    file = TokenFile(tmp_path / "tokens.json")
    token = file.new("phone", ["listen"])
    with live_server([level_model], tokens=file) as server:
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{server.http}{path}", headers=headers).status_code in (403, 404)
        assert httpx.head(f"{server.http}{path}", headers=headers).status_code in (403, 404, 405)


async def test_s4_scopes_are_not_part_of_each_other(level_model, tmp_path):
    file = TokenFile(tmp_path / "tokens.json")
    with live_server([level_model], tokens=file) as server:
        for scope in ("listen", "view", "metrics"):
            headers = {"Authorization": f"Bearer {file.new(scope, [scope])}"}
            found = [
                httpx.get(f"{server.http}{path}", headers=headers).status_code
                for path in ("/v1/streams", "/v1/detections/1/why", "/metrics")
            ]
            assert found == {"listen": [200, 403, 403], "view": [403, 404, 403], "metrics": [403, 403, 200]}[scope]
            async with websockets.connect(f"{server.ws}/v1/live?stream=a", additional_headers=headers) as ws:
                if scope == "view":
                    assert json.loads(await ws.recv())["type"] == "waiting"
                else:
                    code, error = await closed_with(ws)
                    assert (code, "wanted view" in error["message"]) == (4403, True)
