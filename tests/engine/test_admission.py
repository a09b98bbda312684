"""The engine's load: what a stream more would make of it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_serve.backends import open_backend
from kws_serve.backends.contract import LoadedModel
from kws_serve.engine import admission as load
from kws_serve.engine.admission import MAX_LOAD, MEAN_S, Load, share_of_one
from kws_serve.engine.engine import Engine
from kws_serve.manifest.folder import load_model
from tests.support.tiny_model import write_level_model


def test_the_share_is_a_mean_in_time():
    busy = Load()
    for _ in range(int(5 * MEAN_S / 0.02)):
        busy.note(0.01, 0.02)
    assert busy.share == pytest.approx(0.5, abs=0.01)
    busy.note(60.0, 60.0)
    assert busy.share == pytest.approx(1.0, abs=0.01)
    busy.note(0.0, 60.0)
    assert busy.share == pytest.approx(0.0, abs=0.01)
    busy.note(1.0, 0.0)  # a clock without resolution
    assert 0.0 <= busy.share <= 1.0


def test_streams_that_have_just_joined_are_reckoned_in(monkeypatch):
    now = 100.0
    monkeypatch.setattr(load.time, "monotonic", lambda: now)
    busy = Load()
    busy.of_one = 0.1
    for n in range(5):
        assert busy.expected(n) == pytest.approx(0.1 * (2 * n + 1))
        busy.joined(n)
    now += 20 * MEAN_S
    busy.share = 0.45
    assert busy.expected(5) == pytest.approx(0.55)  # few: the estimate, unless more was measured
    busy.share = 0.6
    assert busy.expected(5) == pytest.approx(0.72)
    assert busy.expected(60) == pytest.approx(0.61)  # many: as measured


def test_a_stream_that_has_left_is_forgotten_at_once(monkeypatch):
    monkeypatch.setattr(load.time, "monotonic", lambda: 100.0)
    busy = Load()
    busy.of_one = 0.1
    busy.joined("stays")
    for n in range(200):
        busy.joined(n)
        busy.left(n)
    assert busy.expected(1) == pytest.approx(0.3)


def test_what_those_did_that_have_left_is_not_laid_on_who_is_there(monkeypatch):
    """A hundred short streams have kept the engine half busy; two others are there."""
    now = 100.0
    monkeypatch.setattr(load.time, "monotonic", lambda: now)
    busy = Load()
    busy.of_one = 0.005
    busy.joined(1), busy.joined(2)
    now += 5 * MEAN_S
    for n in range(100):
        now += 0.03
        busy.joined(("short", n))
        busy.left(("short", n))
        busy.note(0.015, 0.03)
    assert busy.share > 0.3
    assert busy.expected(2) < busy.share + 0.02


@pytest.mark.parametrize("end", ["end", "close"])
def test_streams_that_come_and_go_by_and_by_are_no_load(tmp_path, end):
    spec = load_model(write_level_model(tmp_path))
    engine = Engine([LoadedModel(spec, open_backend("onnx", spec), "onnx")])
    engine.load.of_one = 0.01
    for n in range(200):  # without a pause they would fill the engine twice over
        stream = engine.open_stream(f"s{n}", 16000)
        stream.push(np.zeros(100, np.int16), 0.0)
        getattr(stream, end)()
        while engine.busy:
            engine.tick()
    assert engine.load.expected(0) == pytest.approx(0.01)
    engine.close()


@given(st.floats(0.002, 0.3), st.floats(0.65, 1.2), st.integers(1, 600))
@settings(max_examples=150, deadline=None)
def test_a_crowd_at_the_door_never_fills_the_engine(cost, guess, crowd):
    """Streams that each take `cost`, estimated as `guess` of that, all wanting in at once and again every 0.5 s."""
    clock = {"now": 0.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load.time, "monotonic", lambda: clock["now"])
        busy, streams = Load(), 0
        busy.of_one = guess * cost
        for step in range(3000):  # a minute
            clock["now"] = step * 0.02
            if step % 25 == 0:
                for _ in range(crowd - streams):
                    if busy.expected(streams) > MAX_LOAD:
                        break
                    busy.joined((step, streams))
                    streams += 1
            busy.note(0.02 * min(1.0, streams * cost), 0.02)
            assert streams * cost <= 1.0
    assert streams == crowd or (streams + 1) * cost > 0.75  # nor does it stay half empty


def test_one_streams_share_is_timed(tmp_path):
    spec = load_model(write_level_model(tmp_path))
    backend = open_backend("onnx", spec)
    assert 0.0 < share_of_one([LoadedModel(spec, backend, "onnx")]) < 1.0
    backend.device = SimpleNamespace(share_of={"level": 0.25}.get)
    assert share_of_one([LoadedModel(spec, backend, "onnx")]) == 0.25  # what the device says; nothing is timed
    del backend.device
    backend.close()
    assert share_of_one([LoadedModel(spec, backend, "onnx")]) == 0.0
