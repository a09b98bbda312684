"""`GET /v1/demo`: what is really said, to whoever may hear the stream that plays it."""

from __future__ import annotations

import httpx

from kws_serve.api.schemas.state import Demo
from kws_serve.api.tokens import TokenFile
from tests.support.live_server import live_server


def test_it_is_told_while_a_stream_plays_it_and_to_those_who_hear_it(level_model, tmp_path):
    tokens = TokenFile(tmp_path / "tokens.json")
    mine, other = (
        {"Authorization": f"Bearer {tokens.new(name, ['listen'], [name])}"} for name in ("demo", "elsewhere")
    )
    with live_server([level_model], tokens=tokens, data=tmp_path) as server:
        path = f"{server.http}/v1/demo"
        assert httpx.get(path, headers=mine).status_code == 404
        server.engine.open_stream("demo", 16000, kind="demo")
        told = Demo.model_validate(httpx.get(path, headers=mine).json())
        assert {"yes", "gunshot"} <= {x.label for x in told.items}
        assert max(x.end_s for x in told.items) < told.seconds
        assert httpx.get(path, headers=other).status_code == 404
        assert httpx.get(path).status_code == 401
