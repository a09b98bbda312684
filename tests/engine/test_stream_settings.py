"""Detector settings of one stream: by its name, over those for all, live, whoever has the slot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kws_serve.engine.engine import Engine, Stream
from kws_serve.messages import Detection
from tests.engine.test_engine import finish, loaded
from tests.support.tiny_model import write_level_model

SOFT = np.full(4800, 8000, np.int16)  # scores 0.49
QUIET = np.zeros(4800, np.int16)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    one = write_level_model(tmp_path, name="level", detection={"refractory_s": 0.0})
    other = write_level_model(tmp_path, name="other", detection={"refractory_s": 0.0})
    return Engine([loaded(one), loaded(other)])


def opened(engine: Engine, name: str) -> Stream:
    return engine.open_stream(name, 16000, models=["level"], live=False)


def heard(engine: Engine, *streams: Stream) -> set[str]:
    """The streams on which soft sound fires, after silence."""
    for stream in streams:
        stream.push(QUIET, 0.0)
    finish(engine)
    for stream in streams:
        stream.push(SOFT, 0.0)
    return {e.stream for e in finish(engine) if isinstance(e, Detection)}


def test_they_act_live_on_this_stream_only_and_null_inherits(engine):
    desk, door = opened(engine, "desk"), opened(engine, "door")
    assert heard(engine, desk, door) == set()
    result = engine.patch_detection("level", {"loud": {"threshold": 0.2}}, "desk")
    assert result["loud"]["threshold"] == 0.2 and result["loud"]["off_threshold"] == 0.2
    assert engine.detection_settings("level")["loud"].threshold == 0.5
    assert heard(engine, desk, door) == {"desk"}
    assert engine.stream_overrides("level") == {"desk": {"loud": {"threshold": 0.2}}}
    assert engine.patch_detection("level", {"loud": {"threshold": None}}, "desk")["loud"]["threshold"] == 0.5
    assert engine.stream_overrides("level") == {}
    assert heard(engine, desk, door) == set()


def test_a_stream_that_comes_later_has_its_own_and_leaves_them_behind_in_its_slot(engine):
    engine.patch_detection("level", {"*": {"threshold": 0.2}}, "desk")
    desk = opened(engine, "desk")
    assert heard(engine, desk) == {"desk"}
    desk.end()
    finish(engine)
    door = opened(engine, "door")
    assert door.slot == desk.slot
    assert heard(engine, door) == set()
    assert heard(engine, opened(engine, "desk"), door) == {"desk"}


def test_they_lie_over_those_for_all_key_by_key(engine):
    engine.patch_detection("level", {"*": {"threshold": 0.3}}, "desk")
    engine.patch_detection("level", {"loud": {"threshold": 0.7, "refractory_s": 3.0}})
    mine = engine.detection_settings("level", "desk")["loud"]
    assert (mine.threshold, mine.refractory_s) == (0.3, 3.0)  # a stream's own "*" too
    assert engine.detection_settings("level", "door")["loud"].threshold == 0.7
    assert engine.detection_settings("other", "desk")["loud"].threshold == 0.5
    assert engine.show_detection("level", "desk")["*"] == {"threshold": 0.3}
    assert "*" not in engine.show_detection("level", "door")


def test_settings_for_all_that_no_longer_fit_a_streams_own_are_refused_and_named(engine):
    engine.patch_detection("level", {"loud": {"n": 5}})
    engine.patch_detection("level", {"loud": {"k": 5}}, "desk")
    with pytest.raises(ValueError, match=r"stream desk: detection.loud.k: found 5, wanted at most n, 1"):
        engine.patch_detection("level", {"loud": None})
    assert engine.detection_settings("level", "desk")["loud"].n == 5
    with pytest.raises(ValueError, match="unknown setting"):
        engine.patch_detection("level", {"loud": {"colour": 1}}, "desk")
    assert engine.detection_overrides("level", "desk") == {"loud": {"k": 5}}


def test_what_is_kept_of_a_detection_has_the_settings_of_its_stream(engine):
    engine.patch_detection("level", {"loud": {"threshold": 0.2, "smoothing_ms": 40}}, "desk")
    desk = opened(engine, "desk")
    desk.push(SOFT, 0.0)
    (found,) = [e for e in finish(engine) if isinstance(e, Detection)]
    evidence = engine.evidence.get(found.uid)
    assert evidence is not None
    assert (evidence.settings.threshold, evidence.settings.smoothing_ms) == (0.2, 40)


def test_they_outlive_a_reload_also_of_another_task(engine, tmp_path):
    engine.patch_detection("level", {"loud": {"threshold": 0.2}}, "desk")
    desk, door = opened(engine, "desk"), opened(engine, "door")
    assert heard(engine, desk, door) == {"desk"}
    for task in ("keyword", "event"):  # the detector goes on, and a new one
        folder = write_level_model(tmp_path / task, name="level", task=task, detection={"refractory_s": 0.0})
        done = engine.swap([loaded(folder)])
        finish(engine)
        engine.tick(0.0)
        done.result(5)
        assert heard(engine, desk, door) == {"desk"}


def test_what_is_restored_is_as_it_was_and_what_no_longer_fits_is_told(engine, caplog):
    engine.restore_detection("level", {"loud": {"threshold": 0.2}, "gone": {"k": 1}}, "desk")
    assert engine.stream_overrides("level") == {"desk": {"loud": {"threshold": 0.2}}}
    assert "found label 'gone'" in caplog.text
