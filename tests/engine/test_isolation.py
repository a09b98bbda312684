"""Words that must stand alone, in the engine: the same for any cut of the audio, at either rate, and as evaluated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kws_models.data.features import PatchMaker
from kws_models.evaluation.scenes import detections, stream_powers, stream_scores
from kws_serve.backends import open_backend
from kws_serve.engine.engine import Engine
from kws_serve.manifest.folder import load_model
from kws_serve.messages import Detection
from tests.engine.test_engine import feed, loaded
from tests.support.tiny_model import FBANK_8K, write_level_model

RATE_HZ = 16000
FRONT_ENDS = {"raw": {}, "8k": {"front_end": FBANK_8K, "n_frames": 10, "gain": 0.2, "bias": -0.3}}


def audio() -> np.ndarray:
    """Noise of 0.2 with three bursts of 0.5, before the second of which it is quiet: int16 (n,)."""
    rng = np.random.default_rng(5)
    amplitude = np.full(4 * RATE_HZ, 0.2)
    amplitude[int(1.2 * RATE_HZ) : int(2.2 * RATE_HZ)] = 0.001
    for at_s in (0.9, 2.0, 3.2):
        amplitude[int(at_s * RATE_HZ) : int((at_s + 0.2) * RATE_HZ)] = 0.9
    return (amplitude * rng.uniform(-1, 1, len(amplitude)) * 32767).astype(np.int16)


DETECTION = {"isolation": {"margin_db": 20}, "threshold": 0.6, "off_threshold": 0.4, "refractory_s": 0.5}


@pytest.fixture(params=FRONT_ENDS)
def folder(request, tmp_path):
    if request.param == "raw":
        return write_level_model(tmp_path, gain=1.0, detection=DETECTION)
    # a mean over 100 ms is above the threshold once most of the patch is loud
    return write_level_model(tmp_path, detection={**DETECTION, "onset_offset_ms": 100}, **FRONT_ENDS["8k"])


def heard(engine: Engine, cuts: list[int]) -> list[tuple[float, float]]:
    events = feed(engine, engine.open_stream("s", RATE_HZ, live=False), audio(), cuts)
    return [(e.start_s, e.decided_s) for e in events if isinstance(e, Detection)]


def test_only_the_word_in_the_quiet_counts(folder):
    (found,) = heard(Engine([loaded(folder)]), [])
    assert 2.0 <= found[1] <= 2.4


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 9000), max_size=12))
def test_however_the_audio_is_cut(folder, cuts):
    assert heard(Engine([loaded(folder)]), cuts) == heard(Engine([loaded(folder)]), [])


def test_the_evaluation_hears_the_same(tmp_path):
    folder = write_level_model(tmp_path, gain=1.0, detection=DETECTION)
    spec = load_model(folder)
    assert PatchMaker(spec.front_end, spec.n_frames).patch_samples == spec.patch_samples
    scores = stream_scores(spec, open_backend("onnx", spec).infer, audio())
    fired = detections(spec, scores, dict(spec.detection), stream_powers(spec, audio()))
    live = heard(Engine([loaded(folder)]), [])
    assert [f.decided_16k / RATE_HZ for f in fired] == [decided_s for _, decided_s in live]


def test_patch_turns_it_off_and_on(tmp_path):
    folder = write_level_model(tmp_path, gain=1.0, detection=DETECTION)
    engine = Engine([loaded(folder)])
    assert engine.detection_settings("level")["loud"].isolation.margin_db == 20
    engine.patch_detection("level", {"*": {"isolation": {"before_ms": 0}}})
    assert len(heard(engine, [])) == 3
    engine.patch_detection("level", {"*": {"isolation": {"before_ms": None, "margin_db": 3}}})
    assert engine.detection_overrides("level") == {"*": {"isolation": {"margin_db": 3.0}}}
    engine.patch_detection("level", {"*": {"isolation": None}})
    assert len(heard(engine, [])) == 1
    with pytest.raises(ValueError, match=r"isolation.margin_db: found 99, wanted a number from 0 to 60"):
        engine.patch_detection("level", {"*": {"isolation": {"margin_db": 99}}})
