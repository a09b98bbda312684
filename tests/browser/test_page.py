"""The page in real Chromium, a wav as its microphone, against the real server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from websockets.sync.client import connect

from kws_serve.demo.make_demo import RATE_HZ as DEMO_RATE_HZ
from kws_serve.manifest.folder import shipped_models_dir
from kws_serve.manifest.package_data import demo_audio
from tests.support.live_server import live_server
from tests.support.tiny_model import write_level_model

pytestmark = pytest.mark.browser
HOSTILE = [
    "<img src=x onerror=console.error(1)>", "<script>console.error(1)</script>", "\"><svg onload=console.error(1)>",
    "javascript:console.error(1)", "{{7*7}}", "${alert(1)}", "</li><h1>x", "&lt;b&gt;", "' onclick='console.error(1)",
    "<iframe srcdoc=x>", "<style>*{display:none}</style>", "<a href=//evil.example>x</a>", "%3Cscript%3E",
    "<math><a xlink:href=javascript:1>",
    "<base href=//evil.example>", "<form action=//evil.example>", "<!--",
    "<details open ontoggle=console.error(1)>", "\u202egnp.exe", "<template>",
]  # fmt: skip


@pytest.fixture(scope="module")
def level_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_level_model(tmp_path_factory.mktemp("models"))


def test_a_sound_in_the_microphone_becomes_a_card_here_and_a_message_there(pages, beeps, level_model):
    with live_server([level_model]) as server, connect(f"{server.ws}/v1/detections") as other:
        json.loads(other.recv())
        page = pages.open(server.http, microphone=beeps(3))
        page.click("#listen")
        page.wait_for_selector("#detections li:nth-child(2)", timeout=20000)
        assert "loud" in page.inner_text("#detections li:first-child")
        assert "Listening" in page.inner_text("#microphone-state")
        heard = json.loads(other.recv(10))
        assert heard["stream"].startswith("browser-")
        assert heard["label"] == "loud"
        assert heard["latency_ms"] >= 0
        page.click("#listen")
        page.wait_for_function("() => !document.querySelector('#microphone-state').innerText.includes('Listening')")
        page.wait_for_function("() => fetch('/v1/streams').then(r => r.json()).then(s => s.items.length === 0)")
        assert "Not a safety" in page.inner_text("body")
    assert pages.faults == []


def test_a_spoken_word_becomes_its_card(pages):
    """The demo's synthetic voices through the shipped model."""
    import soundfile
    import soxr

    audio, rate = soundfile.read(demo_audio())
    assert rate == DEMO_RATE_HZ
    with live_server([shipped_models_dir() / "dscnn-s"]) as server:
        page = pages.open(server.http, microphone=soxr.resample(audio[: 8 * rate], rate, 44100))
        page.click("#listen")
        page.wait_for_function(
            "() => ['yes', 'no', 'on'].every(w => [...document.querySelectorAll('#detections strong')]"
            ".some(e => e.innerText === w))",
            timeout=20000,
        )
    assert pages.faults == []


def test_after_a_restart_the_page_goes_on_and_shows_each_detection_once(pages, level_model, free_port):
    from kws_serve.messages import Detection

    def found(i: int) -> Detection:
        return Detection("s", f"e{i}", "m", "1", "onnx", f"word-{i}", 0.9, "once", i, 0.0, 0.0, 0.0, 1.0)

    with live_server([level_model], port=free_port) as one:
        page = pages.open(one.http)
        page.wait_for_function("() => document.querySelector('#connection').innerText === 'Connected'")
        one.log.publish([found(0), found(1)])
        page.wait_for_selector("#detections li:nth-child(2)")
    page.wait_for_function("() => document.querySelector('#connection').innerText.includes('lost')")
    with live_server([level_model], port=free_port) as two:
        two.log.publish([found(1), found(2)])
        page.wait_for_function("() => document.querySelector('#connection').innerText === 'Connected'", timeout=30000)
        page.wait_for_selector("#detections li:nth-child(3)")
        two.log.publish([found(3)])
        page.wait_for_selector("#detections li:nth-child(4)")
        words = page.eval_on_selector_all("#detections strong", "all => all.map(e => e.innerText)")
    assert sorted(words) == [f"word-{i}" for i in range(4)]


def test_hostile_labels_stay_text(pages, level_model):
    from kws_serve.messages import Detection

    with live_server([level_model]) as server:
        page = pages.open(server.http)
        page.wait_for_function("() => document.querySelector('#connection').innerText === 'Connected'")
        before = page.evaluate("document.querySelectorAll('img, script, iframe, style, form, base, svg, h1').length")
        server.log.publish(
            [Detection(x, "e", x, x, x, x, 0.9, "once", i, 0.0, 0.0, 0.0, 1.0) for i, x in enumerate(HOSTILE)]
        )
        page.wait_for_selector(f"#detections li:nth-child({len(HOSTILE)})")
        shown = page.eval_on_selector_all("#detections strong", "all => all.map(e => e.textContent)")
        assert sorted(shown) == sorted(HOSTILE)
        assert (
            page.evaluate("document.querySelectorAll('img, script, iframe, style, form, base, svg, h1').length")
            == before
        )
    assert pages.faults == []


def test_a_denied_microphone_is_told_in_plain_words(pages, level_model):
    with live_server([level_model]) as server:
        denied = (
            "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', 'NotAllowedError'));"
        )
        page = pages.open(server.http, init=denied)
        page.click("#listen")
        page.wait_for_function("() => document.querySelector('#microphone-state').innerText.includes('Allow it')")
        assert not server.engine.streams


def test_a_token_is_asked_for_and_opens(pages, level_model):
    with live_server([level_model], token="right") as server:
        page = pages.open(server.http)
        page.wait_for_selector("#token", state="visible")
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#token", state="visible")
        page.fill("#token", "right")
        page.keyboard.press("Enter")
        page.wait_for_function("() => document.querySelector('#connection').innerText === 'Connected'")
        assert "right" not in page.url


def test_experimental_sounds_are_marked(pages):
    with live_server([shipped_models_dir() / "resnetse"]) as server:
        page = pages.open(server.http)
        page.wait_for_selector("text=glassbreak")
        marked = "all => all.map(e => e.parentElement.querySelector('.label').lastChild.textContent)"
        assert page.eval_on_selector_all("#scores em", marked) == ["glassbreak"]
