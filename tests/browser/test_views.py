"""Every view of the page at work: live pictures, why, history, settings in two tabs, servers, faults told in words."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from kws_serve.api import slices
from kws_serve.api.tokens import TokenFile
from kws_serve.manifest.folder import shipped_models_dir
from kws_serve.messages import Detection
from tests.browser.test_page import HOSTILE
from tests.sinks.test_event_log import detection
from tests.support.live_server import LiveServer, live_server
from tests.support.tiny_model import FBANK_16K, write_level_model

pytestmark = pytest.mark.browser
CONNECTED = "() => document.querySelector('#connection').innerText === 'Connected'"


@pytest.fixture(scope="module")
def level_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_level_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_level_model(
        tmp_path_factory.mktemp("m"), name="bank", front_end=FBANK_16K, n_frames=24, patch_hop_ms=60, gain=0.1, bias=1.0
    )


LAB = {
    "name": "lab-2", "address": "lab-2:8000", "device": "Pi", "user": "eve", "note": "", "load": 0.1, "streams": 2,
    "state": "ON", "last_seen": "2026-11-20T09:00:00.000Z", "url": "http://lab-2:8000/", "detail": "",
}  # fmt: skip


class Speaker:
    """A stream in real time: a loud fifth of each second, for as long as it is wanted."""

    def __init__(self, server: LiveServer, name: str = "hall") -> None:
        self.loud = 1.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(f"{server.ws}/v1/audio?stream={name}",))
        self._thread.start()

    def _run(self, url: str) -> None:
        rng = np.random.default_rng(0)
        with connect(url) as ws:
            began, n = time.monotonic(), 0
            while not self._stopping.wait(max(0.0, began + n / 10 - time.monotonic())):
                level = 20000 * self.loud if n % 10 in (4, 5) else 30
                ws.send((rng.uniform(-1, 1, 1600) * level).astype("<i2").tobytes())
                n += 1
            ws.send('{"type":"end"}')

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(10)


@pytest.fixture
def hall(bank: Path, level_model: Path) -> Iterator[LiveServer]:
    """A server with two models and a stream that speaks."""
    with live_server([level_model, bank]) as server:
        speaker = Speaker(server)
        yield server
        speaker.stop()


def coloured(page, canvas: str) -> int:
    """Different colours in a canvas."""
    return page.evaluate(
        """id => { const c = document.querySelector(id);
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        return new Set(new Uint32Array(d.buffer)).size; }""",
        canvas,
    )


def test_the_live_view_draws_features_scores_thresholds_and_marks(pages, hall):
    page = pages.open(hall.http)
    page.wait_for_selector("#stream option[value=hall]", state="attached")
    page.select_option("#model", "bank")
    page.wait_for_function("() => document.querySelector('#level-text').innerText.includes('dB')")
    page.wait_for_function("() => [...document.querySelectorAll('#scores .value')].some(e => e.innerText > '0.5')")
    page.wait_for_selector("#detections li")
    time.sleep(1)
    assert coloured(page, "#features") > 20
    assert coloured(page, "#score-chart canvas") > 4
    assert "log mel energies as bank hears them" in page.inner_text("#features-title")
    assert page.inner_text("#scores li.label-1 .label, #scores li[title] .label").endswith("loud")
    assert "fires where" in page.get_attribute("#scores li[title]", "title")
    page.select_option("#model", "level")  # a raw model: its envelope
    page.wait_for_function("() => document.querySelector('#features-title').innerText.includes('waveform')")
    page.wait_for_timeout(800)
    assert coloured(page, "#features") > 2
    assert pages.faults == []


def test_what_the_demo_audio_really_says_stands_under_the_chart(pages, level_model):
    with live_server([level_model]) as server:
        stream = server.engine.open_stream("demo", 16000, kind="demo")
        page = pages.open(server.http)
        page.wait_for_function("() => document.querySelector('#stream').value === 'demo'")
        for _ in range(50):  # 5 s, in which two words are
            stream.push(np.full(1600, 100, np.int16), time.monotonic())
            page.wait_for_timeout(100)
        page.wait_for_function(
            "() => [...document.querySelectorAll('#said-words span')].map(e => e.innerText).join() === 'yes,no'"
        )
        left = page.eval_on_selector_all("#said-words span", "all => all.map(e => parseFloat(e.style.left))")
        assert 0 < left[0] < left[1] < 100
    assert pages.faults == []


def test_clipping_is_said(pages, level_model):
    with live_server([level_model]) as server:
        page = pages.open(server.http)
        seen = threading.Event()

        def send() -> None:
            with connect(f"{server.ws}/v1/audio?stream=clipped") as ws:
                while not seen.is_set():  # the page asks for the streams every two seconds
                    ws.send(np.full(1600, 32767, "<i2").tobytes())
                    time.sleep(0.1)

        sending = threading.Thread(target=send)
        sending.start()
        try:
            page.wait_for_selector("#clipping", state="visible", timeout=15000)
        finally:
            seen.set()
            sending.join()
        assert pages.faults == []


def test_why_shows_the_patch_and_marks_are_kept_and_exported(pages, hall):
    page = pages.open(hall.http)
    page.click("#detections li:first-child strong", timeout=15000)  # anywhere on the card
    page.wait_for_selector("#why-evidence", state="visible")
    assert coloured(page, "#why-patch") > 2
    assert coloured(page, "#why-chart canvas") > 3
    assert "threshold of 0.50 in at least 1 of the last 1 patches" in page.inner_text("#why-words")
    facts = page.inner_text("#why-facts")
    for text in ("hall", "onnx", "1.0.0"):
        assert text in facts
    page.click("#mark-wrong")
    page.wait_for_function("() => document.querySelector('#mark-state').innerText.includes('Marked wrong')")
    page.keyboard.press("Escape")
    page.wait_for_selector("#why", state="hidden")
    marked = [d for d in httpx.get(f"{hall.http}/v1/detections").json()["items"] if d.get("review")]
    assert [d["review"] for d in marked] == ["wrong"]
    page.click("nav a[href='#history']")
    page.wait_for_function("() => document.querySelector('#history-rows').innerText.includes('wrong')")
    with page.expect_download() as download:
        page.click("#as-csv")
    assert ",wrong," in Path(download.value.path()).read_text()
    page.click(f"#history-rows [data-id='{marked[0]['id']}'] button")
    page.wait_for_selector("#mark-wrong[aria-pressed=true]")
    page.click("#mark-wrong")  # taken back
    page.wait_for_function("() => document.querySelector('#mark-state').innerText.includes('Not marked')")
    page.click("#why-close")
    hall.engine.evidence._found.clear()  # as after a restart
    page.click("#history-rows tr:last-child button")
    page.wait_for_function("() => document.querySelector('#why-state').innerText.includes('in memory only')")
    assert page.is_hidden("#why-evidence")
    assert pages.faults == []


def test_history_filters_and_pages(pages, level_model):
    found = [
        Detection(f"s{i % 2}", "e", "m", "1", "onnx", f"w{i % 3}", i / 120, "once", i, 0.0, 0.0, 1.7e9 + 60 * i)
        for i in range(120)
    ]
    with live_server([level_model]) as server:
        server.log.publish(found)
        page = pages.open(f"{server.http}/#history", timezone_id="UTC")

        def shown(n: int) -> None:
            page.wait_for_function(f"() => document.querySelectorAll('#history-rows tr').length === {n}")

        shown(50)
        assert page.inner_text("#history-rows tr:first-child th").endswith("w2")
        page.click("#older")
        shown(100)
        page.click("#older")
        shown(120)
        assert page.is_hidden("#older")
        page.fill("[name=stream]", "s1")
        page.fill("[name=label]", "w1")
        shown(20)
        page.fill("[name=score]", "0.5")
        shown(10)
        page.click("button[type=reset]")
        shown(50)
        page.fill("[name=since]", "2023-11-14T23:00")  # the 47th minute
        page.fill("[name=until]", "2023-11-14T23:10")
        shown(10)
        page.fill("[name=label]", "none of these")
        page.wait_for_function("() => document.querySelector('#history-state').innerText.includes('Nothing')")
        assert page.is_hidden("#history-table")
    assert pages.faults == []


def test_a_threshold_moved_in_one_tab_acts_and_shows_in_another(pages, level_model):
    with live_server([level_model]) as server:
        speaker = Speaker(server)
        speaker.loud = 0.4  # scores 0.49: below the threshold of 0.5
        one = pages.open(f"{server.http}/#settings")
        two = one.context.new_page()
        two.goto(f"{server.http}/#settings")
        slider = "#settings-models [data-setting=threshold]"
        for page in (one, two):
            page.wait_for_selector(slider)
        time.sleep(2)
        assert server.log.last_id == 0
        one.fill(slider, "0.3")
        two.wait_for_function(f"() => document.querySelector('{slider}').value === '0.3'")
        assert two.inner_text("#settings-models output:first-of-type") == "0.3"
        two.goto(f"{server.http}/#live")
        two.wait_for_selector("#detections li", timeout=10000)  # it acts
        assert two.evaluate("document.querySelector('#scores .mark').style.left") == "30%"
        one.click(".setting summary")
        for key, value in (("k", "2"), ("n", "3"), ("smoothing_ms", "100"), ("refractory_s", "1.5")):  # k takes n along
            one.fill(f"#settings-models [data-setting={key}]", value)
        one.wait_for_function("() => document.querySelector('#settings-state').innerText.includes('in force')")
        wanted = {"k": 2, "n": 3, "smoothing_ms": 100, "refractory_s": 1.5, "threshold": 0.3}
        for _ in range(100):
            now = httpx.get(f"{server.http}/v1/models").json()["items"][0]["detection"]["loud"]
            if all(now[key] == value for key, value in wanted.items()):
                break
            time.sleep(0.05)
        assert all(now[key] == value for key, value in wanted.items())
        one.click(".setting .reset")
        one.wait_for_function(f"() => document.querySelector('{slider}').value === '0.5'")
        (stream,) = server.engine.streams
        path = f"{server.http}/v1/streams/{stream}/models/level/detection"
        httpx.patch(path, json={"loud": {"threshold": 0.25}}).raise_for_status()  # of this stream only
        two.wait_for_function("() => document.querySelector('#scores .mark').style.left === '25%'")
        one.wait_for_function(f"() => document.querySelector('.settings-own').innerText.includes('{stream} (loud)')")
        assert one.input_value(slider) == "0.5"
        speaker.stop()
    assert pages.faults == []


def test_beneath_a_threshold_stands_what_was_measured_at_it(pages, tmp_path):
    rows = [(0.3, 0.9, 14.0), (0.5, 0.8, 4.0), (0.9, 0.6, 0.0)]
    named = ("threshold", "found_share", "real_per_hour")
    curve = {"stream": {"trade_off": [dict(zip(named, row, strict=True)) for row in rows]}}
    measured, not_measured = (write_level_model(tmp_path, name=name) for name in ("measured", "plain"))
    manifest = json.loads((measured / "model.json").read_text())
    (measured / "model.json").write_text(json.dumps(manifest | {"accuracy": curve}))
    with live_server([measured, not_measured]) as server:
        items = {item["name"]: item for item in httpx.get(f"{server.http}/v1/models").json()["items"]}
        assert items["plain"]["curve"] == [] and items["measured"]["curve"][1] == {
            "threshold": 0.5, "found_share": 0.8, "per_hour": 4.0
        }  # fmt: skip
        page = pages.open(f"{server.http}/#settings")
        said = "#settings-models > :nth-child({}) .measured"
        slider = "#settings-models > :nth-child(1) [data-setting=threshold]"
        page.wait_for_selector(said.format(1))
        assert page.inner_text(said.format(1)) == "At this threshold: 4.0 an hour of talk, 80 % found"
        assert page.is_hidden(said.format(2))
        for threshold, text in (("0.7", "2.0 an hour of talk, 70 % found"), ("0.3", "14 an hour of talk, 90 % found")):
            page.fill(slider, threshold)
            assert page.inner_text(said.format(1)) == f"At this threshold: {text}"  # at once, and after the answer
            page.wait_for_function("() => document.querySelector('#settings-state').innerText.includes('in force')")
            assert page.inner_text(said.format(1)) == f"At this threshold: {text}"
        page.fill(slider, "0.95")  # beyond what was measured
        assert page.is_hidden(said.format(1))
    assert pages.faults == []


def test_a_token_that_may_look_cannot_move_anything(pages, level_model, tmp_path):
    file = TokenFile(tmp_path / "tokens.json")
    token = file.new("phone", ["listen"])
    with live_server([level_model], tokens=file) as server:
        page = pages.open(f"{server.http}/#settings", init=f"sessionStorage.setItem('token', '{token}');")
        page.wait_for_selector("#settings-models input[disabled]", state="attached")
        assert page.is_visible("#read-only")
        assert token not in page.content()


def test_a_token_without_view_or_of_some_streams_is_explained(pages, level_model, tmp_path):
    file = TokenFile(tmp_path / "tokens.json")
    token = file.new("phone", ["listen"], ["a"])
    with live_server([level_model], tokens=file) as server:
        server.engine.open_stream("a", 16000)
        page = pages.open(server.http, init=f"sessionStorage.setItem('token', '{token}');")
        page.wait_for_function("() => document.querySelector('#live-state').textContent.includes('--scope view')")
        page.goto(f"{server.http}/#system")
        page.wait_for_function("() => document.querySelector('#facts').textContent.includes('on the disk')")
        assert "Followers" not in page.text_content("#facts")


def test_away_and_recovered_are_told(pages, level_model, free_port, tmp_path):
    def found(i: int) -> Detection:
        return Detection("s", "e", "m", "1", "onnx", f"word-{i}", 0.9, "once", i, 0.0, 0.0, time.time())

    with live_server([level_model], port=free_port, data=tmp_path) as one:
        page = pages.open(one.http)
        page.wait_for_function(CONNECTED)
        one.log.publish([found(0)])
        page.wait_for_selector("#detections li")
    with live_server([level_model], port=free_port, data=tmp_path) as two:
        two.log.publish([found(i) for i in range(1, 4)])
        assert two.log.flush(5)
        page.wait_for_function(
            "() => document.querySelector('#notice-text').innerText.includes('recovered 3')", timeout=30000
        )
        assert page.inner_text("#notice-text").startswith("Away ")
        words = page.eval_on_selector_all("#detections strong", "all => all.map(e => e.innerText)")
        assert words == [f"word-{i}" for i in (3, 2, 1, 0)]
        page.click("#notice-close")
        assert page.is_hidden("#notice")
    with live_server([level_model], port=free_port, data=tmp_path):
        page.wait_for_function(
            "() => document.querySelector('#notice-text').innerText.includes('nothing was missed')", timeout=30000
        )
    assert pages.faults == []


def test_alerts_are_opt_in_muted_and_tried(pages, level_model):
    init = """
        window.heard = []; window.told = [];
        const start = OscillatorNode.prototype.start;
        OscillatorNode.prototype.start = function (at) { heard.push(at); return start.call(this, at); };
        window.Notification = class { static permission = 'default';
          static async requestPermission() { return this.permission = window.answer ?? 'granted'; }
          constructor(title, { body }) { told.push([title, body]); } };
    """

    def found(i: int) -> Detection:
        return Detection("s", "e", "m", "1", "onnx", "yes", 0.9, "once", i, 0.0, 0.0, time.time())

    with live_server([level_model]) as server:
        page = pages.open(server.http, init=init)
        page.wait_for_function(CONNECTED)

        def counts_after(i: int) -> list[int]:
            server.log.publish([found(i)])
            page.wait_for_function(f"() => document.querySelectorAll('#detections li').length >= {i + 1}")
            return page.evaluate("[heard.length, told.length]")

        assert counts_after(0) == [0, 0]
        page.click("#try")
        assert "example, not a detection" in page.inner_text("#detections li:first-child")
        assert page.evaluate("heard.length") == 2
        page.click("#sound")
        page.click("#notify")
        page.wait_for_selector("#notify[aria-pressed=true]")
        assert counts_after(2) == [4, 1]
        assert page.evaluate("told[0]")[0] == "yes"
        page.click("#mute")
        assert "Muted" in page.inner_text("#alert-state")
        assert counts_after(3) == [4, 1]
        page.click("#mute")
        page.click("#notify")
        page.evaluate("window.answer = 'denied'")
        page.click("#notify")
        page.wait_for_function(
            "() => document.querySelector('#alert-state').innerText.includes('refuses notifications')"
        )
    assert pages.faults == []


def test_another_server_that_goes_down_is_told_at_once(pages, level_model):
    rows = [LAB]
    with live_server([level_model], watched=lambda: rows) as server:
        page = pages.open(f"{server.http}/#system")
        page.wait_for_function("() => document.querySelector('#servers').innerText.includes('lab-2')")
        rows[:] = [{**LAB, "state": "OFF", "detail": "Connection refused"}]
        page.wait_for_function("() => document.querySelector('#notice-text').innerText.includes('lab-2:8000) is OFF')")
        assert "OFF: Connection refused" in page.inner_text("#servers")
        rows[:] = [LAB]
        page.wait_for_function("() => document.querySelector('#notice-text').innerText.includes('is ON')")
    assert pages.faults == []


def test_the_system_view_tells_of_models_boards_and_loss(pages, level_model):
    with live_server([level_model]) as server:
        answer = httpx.get(f"{server.http}/v1/status").json()
        layer = [{"layer": f"conv{i}", "cycles": 1000 * i, "operations": 10} for i in range(1, 4)]
        board = {"name": "emulator", "found": "by name", "on_cpu": {"level": "opened anew 3 times"}, "inferences": 7}
        board |= {
            "models": {
                "level": {"cycle_source": "instructions", "layers": layer, "patch_ms": 24.1, "patch_hop_ms": 40}
                | {"model_hop_ms": 20, "share": 0.603}
            },
            "frames_sent": 0,
            "reopenings": 0,
        }
        board |= {"resets": 1, "requests": 9, "repeats": 0, "bad_packets": 0, "stray_packets": 0}
        source = {
            "name": "mic",
            "spec": "mic",
            "kind": "mic",
            "state": "retrying",
            "detail": "unplugged",
            "restarts": 2,
        }
        answer |= {"boards": [board], "sources": [{**source, "retry_in_s": 3.0}]}
        answer["audio_s"]["dropped"] = 12.5
        page = pages.open("about:blank")
        page.route("**/v1/status", lambda route: route.fulfill(json=answer))
        page.goto(f"{server.http}/#system")
        page.wait_for_selector("#boards table")
        text = page.inner_text("#view-system")
        for wanted in ("12.5 s", "retrying", "unplugged", "next try in 3 s", "conv3", "50.0 %", "level runs on the CPU",
                       "no measure of the chip's cycles", "level", "up",
                       "every 40 ms, not 20 as made for", "24 ms a patch, 60 % of the board's time"):  # fmt: skip
            assert wanted in text, wanted
    assert pages.faults == []


def test_faults_of_the_microphone_are_told_in_plain_words(pages, level_model):
    cases = {
        "NotAllowedError": "Allow it in the address bar",
        "NotFoundError": "No microphone was found",
        "NotReadableError": "used by another program",
    }
    with live_server([level_model]) as server:
        page = pages.open(server.http)
        for name, text in cases.items():
            page.evaluate(
                "n => navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', n); }", name
            )
            page.click("#listen")
            page.wait_for_function("t => document.querySelector('#microphone-state').innerText.includes(t)", arg=text)
        page = pages.open(server.http, init="Object.defineProperty(window, 'isSecureContext', { value: false });")
        page.click("#listen")
        page.wait_for_selector("#tunnel", state="visible")
        assert page.inner_text("#tunnel").startswith("ssh -L 8000:localhost:")
        page = pages.open(server.http, microphone=np.zeros(44100))
        page.click("#listen")
        page.wait_for_function(
            "() => document.querySelector('#microphone-state').innerText.includes('Muted?')", timeout=15000
        )


def test_the_microphone_goes_on_through_a_restart_without_a_hole(pages, beeps, level_model, free_port, tmp_path):
    """The server goes away in the middle: the browser's ring is sent when it is back, the stream's epoch stays."""
    with live_server([level_model], port=free_port, data=tmp_path) as one:
        page = pages.open(one.http, microphone=beeps(6))
        page.click("#listen")
        page.wait_for_selector("#detections li:nth-child(2)", timeout=20000)
    page.wait_for_function("() => document.querySelector('#microphone-state').innerText.includes('reconnecting')")
    with live_server([level_model], port=free_port, data=tmp_path) as two:
        page.wait_for_selector("#detections li:nth-child(6)", timeout=30000)
        page.wait_for_function("() => document.querySelector('#microphone-state').innerText.includes('Listening')")
        items = httpx.get(f"{two.http}/v1/detections").json()["items"]
        assert len({d["epoch"] for d in items}) == 1
        gaps = np.diff([d["start_s"] for d in items])
        assert np.allclose(gaps, 1.5, atol=0.03), gaps
    assert pages.faults == []


def test_word_list_threshold_and_history_within_three_clicks_by_keyboard(pages):
    with live_server([shipped_models_dir() / "dscnn-s"]) as server:
        page = pages.open(server.http)
        page.wait_for_function("() => document.querySelector('#scores').innerText.includes('stop')")  # no click at all
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.is_visible("#view-live")
        page.goto("about:blank")
        page.goto(server.http)
        page.keyboard.press("Tab")
        for view in ("live", "history", "settings"):
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.hash") == f"#{view}"
        page.keyboard.press("Enter")
        page.wait_for_selector("#settings-models [data-setting=threshold]", state="visible")
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.dataset.setting") == "threshold":
                break
        page.keyboard.press("ArrowRight")
        page.wait_for_function("() => document.querySelector('#settings-state').innerText.includes('in force')")
    assert pages.faults == []


def test_all_of_it_is_small(pages, level_model):
    """What a first visit transfers, every view looked at."""
    sizes: dict[str, int] = {}
    with live_server([level_model]) as server:
        page = pages.open("about:blank")
        page.on("response", lambda r: sizes.__setitem__(r.url, len(r.body())) if "/v1/" not in r.url else None)
        page.goto(server.http)
        page.wait_for_function(CONNECTED)
        assert all(url.startswith(server.http) for url in sizes)  # nothing from elsewhere
        files = [p for p in (Path(__file__).parents[2] / "frontend").rglob("*") if p.suffix in (".js", ".css", ".html")]
        assert sum(sizes.values()) <= 300_000
        assert sum(p.stat().st_size for p in files) <= 300_000


def test_hostile_names_stay_text_in_every_view(pages, level_model):
    row = dict.fromkeys(("name", "address", "device", "user", "note", "detail"), "<img src=x onerror=console.error(1)>")
    row |= {"load": 0.0, "streams": 0, "state": "OFF", "last_seen": None, "url": "http://x/"}
    found = [
        Detection(s, "e", s, s, s, s, 0.9, "once", i, 0.0, 0.0, time.time(), digest=s) for i, s in enumerate(HOSTILE)
    ]
    with live_server([level_model], watched=lambda: [row]) as server:
        page = pages.open(server.http)
        count = "document.querySelectorAll('img, iframe, style, base, svg').length"
        before = page.evaluate(count)
        server.log.publish(found)
        page.wait_for_selector(f"#detections li:nth-child({len(found)})")
        page.click("#detections li:first-child button")
        page.wait_for_function("() => document.querySelector('#why-facts').innerText.length > 20")
        page.keyboard.press("Escape")
        for view in ("history", "system"):
            page.click(f"nav a[href='#{view}']")
            page.wait_for_timeout(300)
        assert "<img" in page.inner_text("#servers")
        assert page.evaluate(count) == before
    assert pages.faults == []


# What gives up after 10 s does so after 0.2 s.
HASTY = """() => {
  const timeout = AbortSignal.timeout, set = window.setTimeout;
  const short = (ms) => ms === 10000 ? 2000 : ms;
  AbortSignal.timeout = (ms) => timeout.call(AbortSignal, short(ms));
  window.setTimeout = (f, ms, ...more) => set(f, short(ms), ...more);
}"""


def test_a_download_takes_as_long_as_it_takes(pages, level_model, monkeypatch):
    """Its first slice comes well within the deadline of an answer, 2 s here, and its last well behind it."""
    made = slices.Slices.make

    async def rested(self, part):
        some = await made(self, part)
        await asyncio.sleep(0.4)
        return some

    rows = 8 * slices.ROWS
    with live_server([level_model]) as server:
        server.log.publish([detection(i) for i in range(rows)])
        page = pages.open(f"{server.http}/#history")
        page.wait_for_function("() => document.querySelector('#history-rows').childElementCount > 0")
        page.evaluate(HASTY)
        monkeypatch.setattr(slices.Slices, "make", rested)
        for kind in ("csv", "jsonl"):
            with page.expect_download() as download:
                page.click(f"#as-{kind}")
            lines = Path(download.value.path()).read_text().splitlines()
            assert len(lines) == rows + (kind == "csv")
    assert pages.faults == []
