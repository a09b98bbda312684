"""The engine's load: what a stream more would make of it."""

from __future__ import annotations

import pytest

from kws_serve import load
from kws_serve.backends import open_backend
from kws_serve.lane import LoadedModel
from kws_serve.load import MEAN_S, Load, share_of_one
from kws_serve.model_folder import load_model
from tests.tiny_model import write_level_model


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
        assert busy.expected(n) == pytest.approx(0.1 * (n + 1))
        busy.joined()
    now += MEAN_S / 2
    assert busy.expected(5) == pytest.approx(0.1 * (5 * 0.5 + 1))
    now += MEAN_S
    busy.share = 0.45
    assert busy.expected(5) == pytest.approx(0.55)  # few: still the estimate
    assert busy.expected(45) == pytest.approx(0.46)  # many: as measured


def test_one_streams_share_is_timed(tmp_path):
    spec = load_model(write_level_model(tmp_path))
    backend = open_backend("onnx", spec)
    assert 0.0 < share_of_one([LoadedModel(spec, backend, "onnx")]) < 1.0
    assert share_of_one([LoadedModel(spec, backend, "gap8")]) == 0.0
    backend.close()
    assert share_of_one([LoadedModel(spec, backend, "onnx")]) == 0.0
