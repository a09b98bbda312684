"""Why something fired: held against the front end and the scores themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kws_serve.api.views import why_json
from kws_serve.core.front_end import FrontEnd
from kws_serve.engine.engine import Engine
from kws_serve.engine.evidence import KEPT, envelope
from kws_serve.messages import Detection, ScoresRow
from kws_serve.sinks.filter import Logged
from tests.engine.test_engine import feed, loaded, tones
from tests.support.tiny_model import FBANK_16K, write_level_model

SMOOTHED = {"smoothing_ms": 100, "k": 2, "n": 3}


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_level_model(
        tmp_path_factory.mktemp("m"), front_end=FBANK_16K, n_frames=20, gain=0.1, bias=1.0, detection=SMOOTHED
    )


def patches_of(folder: Path, audio: np.ndarray) -> dict[float, np.ndarray]:
    """Every patch by its end, straight from the front end over a patch of zeros and the whole audio."""
    spec = loaded(folder).spec
    front_end = FrontEnd(spec.front_end)
    window, hop = spec.front_end.window_samples, spec.front_end.hop_samples
    zeros = spec.patch_samples
    padded = np.concatenate([np.zeros(zeros), audio, np.zeros(16000)]).astype(np.float32) / 32768
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    frames = front_end.frames(np.ascontiguousarray(windows))
    found = {}
    for last in range(spec.n_frames, len(frames) + 1, spec.frames_per_patch_hop):
        end = (last - 1) * hop + window - zeros
        found[round(end / 16000, 6)] = frames[last - spec.n_frames : last]
    return found


@given(st.integers(0, 5), st.lists(st.integers(1, 9000), max_size=30))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_patch_and_the_scores_are_those_that_decided_however_the_stream_was_cut(bank, seed, cuts):
    audio = tones(seed, 4.0)
    engine = Engine([loaded(bank)])
    stream = engine.open_stream("s", 16000, scores=True, live=False)
    events = feed(engine, stream, audio, cuts)
    patches = patches_of(bank, audio)
    rows = {round(e.end_s, 6): e.values for e in events if isinstance(e, ScoresRow)}
    found = [e for e in events if isinstance(e, Detection)]
    assert found
    for d in found:
        why = why_json(Logged(d), engine.evidence.get(d.uid))
        assert why["patch"]["end_s"] == round(d.decided_s, 6)
        if d.decided_s < 3.9:  # beyond it times are clamped to the last real sample
            assert np.allclose(why["patch"]["values"], patches[round(d.decided_s, 6)], atol=0.0051)
            for end_s, values in zip(why["scores"]["end_s"], why["scores"]["values"], strict=True):
                if end_s < 4.0:
                    assert np.allclose(values, rows[end_s], atol=1e-4)
        at = why["scores"]["end_s"].index(round(d.decided_s, 6))
        assert why["scores"]["smoothed"][at] == pytest.approx(d.score, abs=1e-4)
        assert why["settings"]["threshold"] == 0.5
        assert len(why["scores"]["end_s"]) - 1 - at <= 50


def test_scores_after_it_come_while_they_come_and_end_with_the_stream(bank):
    engine = Engine([loaded(bank)])
    stream = engine.open_stream("s", 16000, live=False)
    loud = np.random.default_rng(0).normal(0, 8000, 8000).clip(-32768, 32767).astype(np.int16)
    stream.push(loud, 0.0)
    found = [e for e in engine.tick() if isinstance(e, Detection)]
    after = [len(engine.evidence.get(found[0].uid).after)]
    for _ in range(8):
        stream.push(np.zeros(4000, np.int16), 0.0)
        engine.tick()
        after.append(len(engine.evidence.get(found[0].uid).after))
    assert after == sorted(after)
    assert after[0] < after[-1] == 50
    other = engine.open_stream("t", 16000, live=False)
    (d,) = [e for e in feed(engine, other, loud) if isinstance(e, Detection)]
    assert not any(engine.evidence._open.values())
    assert engine.evidence.get(d.uid).after


def test_of_a_raw_model_only_the_envelope_is_kept(tmp_path):
    engine = Engine([loaded(write_level_model(tmp_path))])
    stream = engine.open_stream("s", 16000, live=False)
    audio = tones(1, 3.0)
    found = [e for e in feed(engine, stream, audio) if isinstance(e, Detection)]
    for d in found:
        kept = engine.evidence.get(d.uid)
        assert kept.patch.shape == (200, 2)  # of 1600 samples
        assert (kept.patch[:, 0] <= kept.patch[:, 1]).all()


def test_the_last_hundred_are_kept(tmp_path):
    engine = Engine([loaded(write_level_model(tmp_path, n_frames=320, detection={"refractory_s": 0.0}))])
    stream = engine.open_stream("s", 16000, live=False)
    audio = np.tile(np.repeat(np.array([20000, 0], np.int16), 640), KEPT + 20)
    found = [e for e in feed(engine, stream, audio) if isinstance(e, Detection)]
    assert len(found) > KEPT
    assert [engine.evidence.get(d.uid) is not None for d in found] == [False] * (len(found) - KEPT) + [True] * KEPT


@given(st.integers(1, 3000))
@settings(max_examples=50, deadline=None)
def test_an_envelope_holds_every_sample(n):
    samples = np.random.default_rng(n).normal(size=n).astype(np.float32)
    found = envelope(samples)
    assert len(found) == min(n, 200)
    assert found.min() == samples.min()
    assert found.max() == samples.max()
