"""kws-client.js, the twin of the Python client, in a real browser against the real server."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from kws_serve.messages import Detection
from tests.support.certificate import self_signed, spki_sha256
from tests.support.live_server import live_server
from tests.support.sending_away import sent_away
from tests.support.streams import expected, words
from tests.support.tiny_model import write_level_model

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]

COLLECT = """async ([url, n]) => {
  const { KwsClient } = await import('/kws-client.js');
  const client = new KwsClient(url, TOKEN);
  const found = [];
  for await (const d of client.detections({ after: 0 })) {
    found.push([d.type, d.id ?? d.to, d.label ?? '']);
    if (found.length === n) return found;
  }
}"""
SEND = """async ([url, pcm, chunk, wait_ms]) => {
  const { KwsClient } = await import('/kws-client.js');
  const samples = new Int16Array(Uint8Array.from(atob(pcm), c => c.charCodeAt(0)).buffer);
  const sender = await new KwsClient(url).audio('page', { rate: 16000 });
  const found = [];
  const reading = (async () => { for await (const m of sender) found.push(m); })();
  for (let at = 0; at < samples.length; at += chunk) {
    await sender.send(samples.subarray(at, at + chunk));
    if (wait_ms) await new Promise(r => setTimeout(r, wait_ms));
  }
  sender.end();
  await reading;
  return found;
}"""


@pytest.fixture(scope="module")
def level_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_level_model(tmp_path_factory.mktemp("models"))


def found(i: int) -> Detection:
    return Detection("s", "e", "m", "1", "onnx", f"w{i}", 0.9, "once", i, 0.0, 0.0, 1.0)


def base64_of(audio: np.ndarray) -> str:
    import base64

    return base64.b64encode(audio.astype("<i2").tobytes()).decode()


def test_detections_through_a_restart_each_once(pages, level_model, free_port, tmp_path):
    with live_server([level_model], port=free_port, data=tmp_path) as one:
        one.log.publish([found(0), found(1)])
        assert one.log.flush(5)
        page = pages.open(one.http)
        page.evaluate(f"window.collecting = ({COLLECT.replace('TOKEN', 'null')})(['{one.http}', 4]); 0")
        page.wait_for_timeout(500)
    with live_server([level_model], port=free_port, data=tmp_path) as two:
        two.log.publish([found(1), found(2)])
        time.sleep(1)
        two.log.publish([found(3)])
        assert page.evaluate("window.collecting") == [["detection", i + 1, f"w{i}"] for i in range(4)]


def test_a_wrong_token_is_final_and_a_right_one_opens(pages, level_model):
    with live_server([level_model], token="right") as server:
        server.log.publish([found(0)])
        assert server.log.flush(5)
        page = pages.open(server.http)
        refused = "(async (a) => { try { await RUN(a); } catch (e) { return [e.constructor.name, e.code]; } })"
        run = refused.replace("RUN", f"({COLLECT.replace('TOKEN', chr(34) + 'wrong' + chr(34))})")
        assert page.evaluate(run, [server.http, 1]) == ["ServiceError", 4401]
        right = COLLECT.replace("TOKEN", "'right'")
        assert page.evaluate(right, [server.http, 1]) == [["detection", 1, "w0"]]


@pytest.mark.parametrize("chunk", [160, 1111, 16000])
def test_audio_is_heard_to_the_sample(pages, level_model, chunk):
    audio = words(3.0)
    with live_server([level_model]) as server:
        page = pages.open(server.http)
        messages = page.evaluate(SEND, [server.http, base64_of(audio), chunk, 0])
    assert messages[-1] == {"type": "done", "samples": len(audio)}
    heard = [(m["label"], m["start_sample"]) for m in messages if m["type"] == "detection"]
    assert heard == expected(level_model, audio)


def test_audio_goes_on_after_a_restart_to_the_sample(pages, level_model, free_port, tmp_path):
    audio = words(8.0)
    with live_server([level_model], port=free_port, data=tmp_path) as one:
        page = pages.open(one.http)
        page.evaluate(f"window.sending = ({SEND})(['{one.http}', '{base64_of(audio)}', 1600, 90]); 0")
        for _ in range(200):
            if len(httpx.get(f"{one.http}/v1/detections").json()["items"]) >= 4:
                break
            time.sleep(0.05)
    time.sleep(0.5)
    with live_server([level_model], port=free_port, data=tmp_path) as two:
        messages = page.evaluate("window.sending")
        items = httpx.get(f"{two.http}/v1/detections").json()["items"]
    assert messages[-1]["type"] == "done"
    assert [(d["label"], d["start_sample"]) for d in items] == expected(level_model, audio)
    assert len({d["epoch"] for d in items}) == 1


def test_the_pauses_grow_while_it_is_refused(pages, level_model):
    """0.25 s doubling makes at most 6 tries in 4 s, however the jitter falls."""
    with live_server([level_model]) as server:
        places = server.app.state.service.subscribers
        most, places.most = places.most, 0
        page = pages.open(f"{server.http}/healthz")
        tries: list[str] = []
        page.on("websocket", lambda ws: tries.append(ws.url))
        page.evaluate(f"window.collecting = ({COLLECT.replace('TOKEN', 'null')})(['{server.http}', 1]); 0")
        page.wait_for_timeout(4000)
        assert 1 <= len(tries) <= 6
        server.log.publish([found(0)])
        places.most = most
        assert page.evaluate("window.collecting") == [["detection", 1, "w0"]]


@pytest.mark.parametrize("code", [4408, 4429])
def test_a_stream_that_is_sent_away_goes_on_and_nothing_is_told_twice(pages, level_model, code):
    """As where the service sheds load."""
    audio = words(6.0)
    with live_server([level_model]) as server:
        page = pages.open(f"{server.http}/healthz")
        page.evaluate(f"window.sending = ({SEND})(['{server.http}', '{base64_of(audio)}', 1600, 20]); 0")
        sending_away = threading.Thread(target=lambda: asyncio.run(sent_away(server, "page", code, 3)))
        sending_away.start()
        sending_away.join()
        messages = page.evaluate("window.sending")
        items = httpx.get(f"{server.http}/v1/detections").json()["items"]
    assert messages[-1] == {"type": "done", "samples": len(audio)}
    assert [(d["label"], d["start_sample"]) for d in items] == expected(level_model, audio)
    assert len({d["epoch"] for d in items}) == 1


def test_a_recording_at_its_own_pace(pages, level_model):
    audio = np.tile(words(4.0), 30)  # two minutes
    with live_server([level_model]) as server:
        page = pages.open(f"{server.http}/healthz")
        free = SEND.replace("rate: 16000 }", "rate: 16000, pace: 'free' }")
        messages = page.evaluate(free, [server.http, base64_of(audio), 16000, 0])
        assert server.engine.totals_s() == (120.0, 120.0, 0.0)
    assert messages[-1] == {"type": "done", "samples": len(audio)}
    told = [m for m in messages if m["type"] == "detection"]
    assert [(m["label"], m["start_sample"]) for m in told] == expected(level_model, audio)
    assert {m["latency_ms"] for m in told} == {None}


def test_what_is_wrong_is_said(pages, level_model):
    with live_server([level_model]) as server:
        page = pages.open(server.http)
        told = page.evaluate(
            """async (url) => {
              const { KwsClient } = await import('/kws-client.js');
              const client = new KwsClient(url);
              const told = [];
              const tell = (e) => told.push(`${e.constructor.name} ${e.code ?? ''} ${e.message}`);
              await client.audio('NOT A NAME').catch(tell);
              await client.audio('a', { rate: 1 }).catch(tell);
              await client.json('/v1/none').catch(tell);
              const sender = await client.audio('a');
              await sender.send(new Float32Array(3)).catch(tell);
              await sender.send(new ArrayBuffer(3)).catch(tell);
              await client.audio('a').catch(tell);
              sender.close();
              await sender.send(new Int16Array(3)).catch(tell);
              return told;
            }""",
            server.http,
        )
    starts = ["ServiceError 4400 stream", "ServiceError 4400 rate", "ServiceError 404",
              "TypeError  samples: found Float32Array", "TypeError  samples: found 3 bytes", "ServiceError 4409",
              "ServiceError 1000"]  # fmt: skip
    assert len(told) == len(starts)
    for text, start in zip(told, starts, strict=True):
        assert text.startswith(start), told


def test_both_ways_through_tls(pages, level_model, tmp_path):
    """The browser trusts this certificate and no other, as if it were installed."""
    cert, key = self_signed(tmp_path)
    audio = words(2.0)
    with live_server([level_model], tls=(cert, key)) as server:
        page = pages.open(server.http, flags=[f"--ignore-certificate-errors-spki-list={spki_sha256(key)}"])
        messages = page.evaluate(SEND, [server.http, base64_of(audio), 1600, 0])
        wanted = expected(level_model, audio)
        told = page.evaluate(COLLECT.replace("TOKEN", "null"), [server.http, len(wanted)])
    assert messages[-1] == {"type": "done", "samples": len(audio)}
    assert [label for _, _, label in told] == [label for label, _ in wanted]


def test_the_readmes_five_lines(pages, level_model):
    (code,) = re.findall(r"```js\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    with live_server([level_model]) as server:
        page = pages.open(server.http)
        lines: list[str] = []
        page.on("console", lambda m: lines.append(m.text))
        page.route("**/five-lines.js", lambda route: route.fulfill(body=code, content_type="text/javascript"))
        threading.Timer(1.0, lambda: server.log.publish([found(0)])).start()
        page.evaluate("() => { import('/five-lines.js'); }")
        for _ in range(100):
            if any("w0" in line for line in lines):
                break
            page.wait_for_timeout(100)
        assert any(line.startswith("s w0 0.9") for line in lines)
