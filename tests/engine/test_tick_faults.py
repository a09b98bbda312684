"""A fault of ours in one model, lane or stream costs no other its events, and none its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kws_serve.api.routes import models as routes
from kws_serve.backends.contract import LoadedModel
from kws_serve.engine.engine import Engine
from kws_serve.messages import Detection, StreamDone
from tests.engine.test_engine import essence, feed, finish, loaded, tones
from tests.support.tiny_model import FBANK_8K, FBANK_16K, write_level_model


@pytest.fixture
def group(tmp_path: Path) -> list[LoadedModel]:
    """A raw keyword, and two lanes of features."""
    bank = {"gain": 0.1, "bias": 1.0}
    return [
        loaded(write_level_model(tmp_path, name="raw")),
        loaded(write_level_model(tmp_path, name="bank", front_end=FBANK_16K, n_frames=20, **bank)),
        loaded(write_level_model(tmp_path, name="low", front_end=FBANK_8K, n_frames=24, patch_hop_ms=60, **bank)),
    ]


def faulty(*_: object, **__: object) -> None:
    raise RuntimeError("a fault of ours")


def in_backend(engine: Engine) -> None:
    engine.lanes[1].models[0].scorer.advance = faulty


def in_detector(engine: Engine) -> None:
    engine.lanes[1].models[0].detector.update = faulty


def in_front_end(engine: Engine) -> None:
    engine.lanes[1].framing.front_end.frames = faulty


def in_reset(engine: Engine) -> None:
    engine.lanes[1].models[0].recent.reset = faulty


@pytest.mark.parametrize("where", [in_backend, in_detector, in_front_end, in_reset])
def test_a_fault_in_one_lane_costs_the_others_nothing(group, where: Callable[[Engine], None], caplog):
    whole, engine = Engine(group), Engine(group)
    wanted = feed(whole, whole.open_stream("a", 16000, live=False), tones(1, 2.0))
    where(engine)
    found = feed(engine, engine.open_stream("a", 16000, live=False), tones(1, 2.0))
    of_others = [row for row in essence(wanted, "a") if row[0] != "bank"]
    assert of_others
    assert [row for row in essence(found, "a") if row[0] != "bank"] == of_others
    assert isinstance(found[-1], StreamDone)
    assert not engine.streams
    assert engine.unaccounted_samples == 0
    assert "a fault of ours" in caplog.text
    if where is not in_reset:
        bank = engine.lanes[1].models[0]
        assert bank.failed_patches > 50
        assert "a fault of ours" in bank.error


def test_a_lane_goes_on_after_a_fault(group):
    """The front end fails for a while: its patches of that time are lost and counted, the next ones are found."""
    engine = Engine(group[1:])
    (first, *_), quiet, loud = engine.lanes, np.zeros(8000, np.int16), tones(1, 2.0)
    for lane in (first, engine.lanes[1]):
        frames, lane.framing.front_end.frames = lane.framing.front_end.frames, faulty
        stream = engine.open_stream(f"of-{lane.models[0].name}", 16000, models=[lane.models[0].name], live=False)
        stream.push(quiet, 0.0)
        assert finish(engine) == []
        assert lane.models[0].failed_patches >= 8
        lane.framing.front_end.frames = frames
        events = feed(engine, stream, loud)
        assert [e for e in events if isinstance(e, Detection)]
        assert isinstance(events[-1], StreamDone)


def test_a_fault_in_one_stream_costs_the_others_nothing(group):
    engine = Engine(group)
    broken, other = (engine.open_stream(name, 16000, live=False) for name in ("broken", "other"))
    broken.resampler.push = broken.resampler.flush = faulty
    for stream in (broken, other):
        stream.push(tones(1, 2.0), 0.0)
        stream.end()
    events = finish(engine)
    assert {e.stream for e in events if isinstance(e, StreamDone)} == {"broken", "other"}
    assert [e for e in events if isinstance(e, Detection) and e.stream == "other"]
    assert not engine.streams


async def test_a_reload_that_is_not_done_in_time_does_not_happen_later(group, tmp_path, monkeypatch):
    """Nobody ticks: 422, and then the model is the one of before, whenever the engine runs again."""
    monkeypatch.setattr(routes, "SWAP_S", 0.05)
    engine = Engine(group[:1])
    before = engine.loaded[0].digest
    new = loaded(write_level_model(tmp_path / "new", name="raw", gain=1.0))
    with pytest.raises(ValueError, match=r"found no patch hop in time.*nothing has changed"):
        await routes.swapped(engine, [new])
    engine.tick()
    assert [m.digest for m in engine.loaded] == [before]
    assert engine.lanes[0].models[0].loaded.digest == before


async def test_a_reload_that_fails_is_told_and_the_old_model_goes_on(group, tmp_path):
    engine = Engine(group[:1])
    before = engine.loaded[0].digest
    engine.lanes[0].swap = faulty
    new = loaded(write_level_model(tmp_path / "new", name="raw", gain=1.0))
    waiting = asyncio.ensure_future(routes.swapped(engine, [new]))
    await asyncio.sleep(0)
    engine.tick()
    with pytest.raises(ValueError, match="a fault of ours"):
        await asyncio.wait_for(waiting, 5)
    assert [m.digest for m in engine.loaded] == [before]
    events = feed(engine, engine.open_stream("a", 16000, live=False), tones(1, 2.0))
    assert [e for e in events if isinstance(e, Detection)]
