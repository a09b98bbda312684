"""The engine on real tiny models: cuts, company, gaps, lag, ends, settings."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kws_serve.backends import open_backend
from kws_serve.backends.contract import LoadedModel
from kws_serve.core import resampler as half
from kws_serve.engine.engine import Engine, Stream
from kws_serve.manifest.folder import load_model
from kws_serve.manifest.spec import FileSpec
from kws_serve.messages import BackendError, Detection, Event, Gap, ScoresRow, StreamDone, StreamRefused
from tests.support.tiny_model import FBANK_8K, FBANK_16K, write_level_model


def loaded(folder: Path) -> LoadedModel:
    spec = load_model(folder)
    return LoadedModel(spec, open_backend("onnx", spec), "onnx")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[LoadedModel]:
    """A raw keyword, a 16 kHz keyword and an 8 kHz event model."""
    folder = tmp_path_factory.mktemp("models")
    bank = {"gain": 0.1, "bias": 1.0}  # mean log energy -10 .. 0 -> 0 .. 1
    return [
        loaded(write_level_model(folder, name="raw")),
        loaded(write_level_model(folder, name="bank", front_end=FBANK_16K, n_frames=20, **bank)),
        loaded(
            write_level_model(
                folder, name="event", front_end=FBANK_8K, n_frames=24, patch_hop_ms=60, task="event", **bank
            )
        ),
    ]


def tones(seed: int, seconds: float, rate: int = 16000) -> np.ndarray:
    """Quiet noise with loud bursts, int16."""
    rng = np.random.default_rng(seed)
    n = int(seconds * rate)
    audio = rng.normal(0, 0.001, n)
    for at in rng.integers(0, max(1, n - rate // 5), 3):
        audio[at : at + rate // 6] += 0.6 * np.sin(np.arange(rate // 6)[: len(audio[at : at + rate // 6])] / 5)
    return np.clip(audio * 32768, -32768, 32767).astype(np.int16)


def noise(n: int) -> np.ndarray:
    """Loud noise, int16: every band is full."""
    return np.clip(np.random.default_rng(0).normal(0, 8000, n), -32768, 32767).astype(np.int16)


def finish(engine: Engine) -> list[Event]:
    events: list[Event] = []
    while engine.busy:
        events += engine.tick(now_s=0.0)
    return events


def side_by_side(
    engine: Engine, rate_hz: int, parts: Sequence[np.ndarray], size: int
) -> tuple[list[Stream], list[Event]]:
    """Streams of as many samples each, every other one live, `size` of each at a time; and all their events."""
    streams = [engine.open_stream(f"s{i}", rate_hz, live=i % 2 == 0) for i in range(len(parts))]
    events: list[Event] = []
    for at in range(0, len(parts[0]), size):
        for stream, samples in zip(streams, parts, strict=True):
            stream.push(samples[at : at + size], 0.0)
        events += engine.tick(now_s=0.0)
    for stream in streams:
        stream.end()
    return streams, events + finish(engine)


def feed(engine: Engine, stream: Stream, audio: np.ndarray, cuts: Iterable[int] = ()) -> list[Event]:
    """Push the audio in these parts, ticking after each, and end the stream."""
    events: list[Event] = []
    at = 0
    for size in [*cuts, len(audio)]:
        stream.push(audio[at : at + size], 0.0)
        at += size
        events += finish(engine)
    stream.end()
    return events + finish(engine)


def essence(events: Iterable[Event], stream: str) -> list[tuple[object, ...]]:
    """What "the same detections" compares, scores apart; models side by side have no order of their own."""
    return sorted(
        (e.model, e.decided_s, e.label, e.phase, e.start_sample, e.start_s, e.end_s or 0.0)
        for e in events
        if isinstance(e, Detection) and e.stream == stream
    )


def scores_of(events: Iterable[Event], stream: str, model: str) -> np.ndarray:
    rows = [e for e in events if isinstance(e, ScoresRow) and e.stream == stream and e.model == model]
    ends = [e.end_sample for e in rows]
    assert ends == sorted(ends)
    return np.array([e.values for e in rows])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 5), st.sampled_from([16000, 44100, 8000]), st.lists(st.integers(1, 9000), max_size=30))
def test_any_cut_gives_the_same_detections_and_scores(models, seed, rate, cuts):
    audio = tones(seed, 2.0, rate)
    whole, parts = Engine(models), Engine(models)
    one = feed(whole, whole.open_stream("a", rate, scores=True, live=False), audio)
    two = feed(parts, parts.open_stream("a", rate, scores=True, live=False), audio, cuts)
    assert essence(one, "a") == essence(two, "a")
    assert any(isinstance(e, Detection) for e in one)
    for model in whole.models:
        np.testing.assert_allclose(scores_of(one, "a", model), scores_of(two, "a", model), atol=1e-6)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 5), st.integers(100, 9000), st.integers(1, 40000))
def test_a_segment_begins_as_if_zeros_had_gone_before(models, seed, chunk, lost):
    """At a stream's start and after a gap: scores and detections are those of the same audio after zeros."""
    engine, audio = Engine(models), tones(seed, 1.0)
    audio[: half.LEAD] = 0  # at 8 kHz a step is heard 5 ms before it, where a segment has nothing
    n, zeros = len(audio), np.zeros(19200, np.int16)  # whole hops of every model, longer than every patch
    cuts = [chunk] * (n // chunk)
    after = feed(engine, engine.open_stream("a", 16000, scores=True, live=False), np.concatenate([zeros, audio]), cuts)
    stream = engine.open_stream("b", 16000, scores=True, live=False)
    stream.push(audio, 0.0)
    stream.skip(lost, "test")
    both = feed(engine, stream, audio, cuts)
    for model in engine.models:
        wanted = {e.end_sample - len(zeros): e.values for e in after if isinstance(e, ScoresRow) and e.model == model}
        for begin in (0, n + lost):
            rows = [e for e in both if isinstance(e, ScoresRow) and e.model == model]
            found = {e.end_sample - begin: e.values for e in rows if begin <= e.end_sample < begin + n}
            assert min(found) == min(k for k in wanted if k > 0)  # the first patch hop gives scores
            for end, values in found.items():
                np.testing.assert_allclose(values, wanted[end], atol=1e-6)
    once = [[e for e in some if isinstance(e, Detection) and e.phase == "once"] for some in (after, both)]
    wanted_once = [(e.model, e.label, max(0, e.start_sample - len(zeros))) for e in once[0]]
    for begin in (0, n + lost):
        mine = [e for e in once[1] if begin <= e.start_sample <= begin + n]
        assert [(e.model, e.label, e.start_sample - begin) for e in mine] == wanted_once


def test_company_changes_nothing_and_slots_are_reused_clean(models):
    audio = [tones(seed, 2.0) for seed in range(9)]
    alone = {}
    for i, a in enumerate(audio):
        engine = Engine(models)
        alone[f"s{i}"] = essence(feed(engine, engine.open_stream(f"s{i}", 16000, live=False), a), f"s{i}")
    engine = Engine(models)
    events: list[Event] = []
    for group in (range(5), range(5, 9)):  # the second group gets the slots of the first
        streams = {i: engine.open_stream(f"s{i}", 16000, live=False) for i in group}
        for at in range(0, 32000, 1600):
            for i, stream in streams.items():
                stream.push(audio[i][at : at + 1600], 0.0)
            events += finish(engine)
        for stream in streams.values():
            stream.end()
        events += finish(engine)
    for name, wanted in alone.items():
        assert essence(events, name) == wanted
    assert not engine.streams


def test_a_stream_gets_only_the_models_it_asked_for(models):
    engine = Engine(models)
    some = feed(engine, engine.open_stream("a", 16000, models=["bank"], scores=True, live=False), tones(1, 2.0))
    assert {e.model for e in some if isinstance(e, ScoresRow)} == {"bank"}


def test_a_word_at_the_very_end_is_found_and_its_times_stay_inside(models):
    audio = np.zeros(16000, np.int16)
    audio[-4000:] = noise(4000)
    engine = Engine(models)
    events = feed(engine, engine.open_stream("a", 16000, live=False), audio)
    found = [e for e in events if isinstance(e, Detection)]
    assert {(e.model, e.phase) for e in found} >= {("raw", "once"), ("event", "start"), ("event", "end")}
    assert all(e.decided_s <= 1.0 and e.start_s <= 1.0 and (e.end_s is None or e.end_s <= 1.0) for e in found)
    assert events[-1] == StreamDone("a", 16000)


@pytest.mark.parametrize("n", [0, 1, 159, 15999])
def test_short_streams_end_cleanly(models, n):
    engine = Engine(models)
    assert feed(engine, engine.open_stream("a", 16000, live=False), np.zeros(n, np.int16))[-1] == StreamDone("a", n)


def test_a_gap_is_exact_and_resets_the_stages(models):
    engine = Engine(models)
    stream = engine.open_stream("a", 48000, live=False)
    loud = noise(48000)
    stream.push(loud, 0.0)
    stream.skip(48001, "device")
    stream.push(np.zeros(48000, np.int16), 0.0)
    events = finish(engine)
    stream.push(loud, 0.0)
    stream.end()
    events += finish(engine)
    assert [e for e in events if isinstance(e, Gap)] == [Gap("a", 48000, 48001, "device")]
    raw = [e for e in events if isinstance(e, Detection) and e.model == "raw"]
    first, second = raw
    assert first.start_sample < 48000
    assert 48000 + 48001 + 48000 <= second.start_sample <= stream.received_samples
    assert stream.counts == (192001, 144000, 48001, 0)
    on = [e for e in events if isinstance(e, Detection) and e.model == "event"]
    assert [e.phase for e in on] == ["start", "end", "start", "end"]
    assert on[1].decided_s <= 1.0  # the gap ends what was on


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 8000), st.floats(0, 1.5), st.booleans()), min_size=1, max_size=40))
def test_lag_drops_the_oldest_and_accounts_for_every_sample(models, steps):
    """Chunks arrive, the clock moves, the engine only sometimes ticks."""
    engine = Engine(models[:1])
    stream = engine.open_stream("a", 16000)
    now, events = 100.0, []
    for n, wait, ticks in steps:
        now += wait
        stream.push(np.zeros(n, np.int16), now)
        received, processed, dropped, buffered = stream.counts
        assert received == processed + dropped + buffered
        if ticks:
            events += engine.tick(now_s=now)
    while engine.busy:
        events += engine.tick(now_s=now)
    gaps = [e for e in events if isinstance(e, Gap)]
    assert sum(g.n for g in gaps) == stream.dropped_samples
    assert all(g.reason == "overload" for g in gaps)
    assert all(a.first_sample + a.n <= b.first_sample for a, b in itertools.pairwise(gaps))
    assert stream.counts == (sum(n for n, _, _ in steps), stream.processed_samples, stream.dropped_samples, 0)


def test_an_engine_that_lags_two_seconds_drops_what_is_older(models):
    engine = Engine(models[:1])
    stream = engine.open_stream("a", 16000)
    for second in range(4):
        stream.push(np.zeros(16000, np.int16), 10.0 + second)
    events = engine.tick(now_s=13.5)
    assert [e for e in events if isinstance(e, Gap)] == [Gap("a", 0, 32000, "overload")]


def test_ahead_is_measured_against_the_streams_own_clock(models):
    stream = Engine(models).open_stream("a", 16000)
    assert stream.ahead_s(5.0) == 0.0
    stream.push(np.zeros(16000, np.int16), 10.0)
    stream.push(np.zeros(48000, np.int16), 10.0)
    assert stream.ahead_s(10.0) == pytest.approx(3.0)
    assert stream.ahead_s(12.0) == pytest.approx(1.0)


def test_refusals(models):
    engine = Engine(models, max_streams=2)
    engine.open_stream("a", 16000)
    cases = [("a", 16000, None, 4409), ("A/..", 16000, None, 4400), ("b", 10, None, 4400), ("b", 16000, ["x"], 4400)]
    for name, rate, wanted, code in cases:
        with pytest.raises(StreamRefused) as e:
            engine.open_stream(name, rate, models=wanted)
        assert e.value.code == code
        assert "wanted" in str(e.value)
    engine.open_stream("b", 16000)
    with pytest.raises(StreamRefused) as e:
        engine.open_stream("c", 16000)
    assert e.value.code == 4429


def test_a_vanished_source_frees_its_name_at_once_and_loses_nothing(models):
    engine = Engine(models)
    stream = engine.open_stream("a", 16000)
    stream.push(np.full(8000, 20000, np.int16), 0.0)
    stream.close()
    again = engine.open_stream("a", 16000)
    assert again.epoch != stream.epoch
    events = finish(engine)
    assert any(isinstance(e, Detection) and e.epoch == stream.epoch for e in events)
    assert not any(isinstance(e, StreamDone) for e in events)
    assert engine.streams == {"a": again}


def test_settings_act_live_and_bad_ones_change_nothing(models):
    engine = Engine(models)
    result = engine.patch_detection("raw", {"loud": {"threshold": 0.2}, "*": {"k": 1}})
    assert result["loud"]["threshold"] == 0.2
    assert result["loud"]["off_threshold"] == 0.2  # follows a threshold that went below it
    for bad in (
        {"loud": {"threshold": 1.5}},
        {"loud": {"threshold": True}},
        {"loud": {"k": 5}},
        {"loud": {"colour": 1}},
        {"quiet": {}},
        {"_rest_": {"threshold": 0.5}},
        {"loud": 3},
        {"loud": {"n": 1.5}},
        {"loud": {"refractory_s": float("nan")}},
    ):
        with pytest.raises(ValueError, match="wanted"):
            engine.patch_detection("raw", bad)
    assert engine.detection_overrides("raw") == {"loud": {"threshold": 0.2}, "*": {"k": 1}}
    events = feed(engine, engine.open_stream("a", 16000, models=["raw"], live=False), np.full(16000, 5000, np.int16))
    assert [e.label for e in events if isinstance(e, Detection)] == ["loud"]
    assert engine.patch_detection("raw", {"loud": None, "*": None})["loud"]["threshold"] == 0.5


def test_latency_counts_from_the_arrival_of_the_deciding_sample(models):
    engine = Engine(models[:1])
    stream = engine.open_stream("a", 16000)
    now = time.monotonic()
    stream.push(np.zeros(1600, np.int16), now - 1.0)
    stream.push(np.full(3200, 20000, np.int16), now - 0.5)
    (found,) = [e for e in engine.tick() if isinstance(e, Detection)]
    assert found.arrived_s == now - 0.5
    waited_s = time.monotonic() - found.arrived_s
    assert found.at == pytest.approx(time.time() - waited_s - (found.decided_s - found.start_s), abs=0.05)


def test_the_end_of_a_sound_is_at_its_own_time(models):
    """A sound of 6 s does not begin and end in the same second."""
    engine = Engine(models[2:])
    stream, now_s = engine.open_stream("a", 16000), time.monotonic()
    events = []
    for i, loud in enumerate([*[True] * 60, *[False] * 20]):
        stream.push(noise(1600) if loud else np.zeros(1600, np.int16), now_s + (i - 79) / 10)  # the last part just now
        events += finish(engine)
    start, end = [e for e in events if isinstance(e, Detection)]
    assert (start.phase, end.phase) == ("start", "end")
    assert end.end_s - start.start_s == pytest.approx(6.0, abs=0.5)
    assert end.at - start.at == pytest.approx(end.end_s - start.start_s, abs=0.1)
    assert end.start_at == pytest.approx(start.at, abs=0.1)
    assert start.start_at == start.at


class _Broken:
    name = "broken"
    file = FileSpec(Path("none"), "0" * 64, "NTF", "softmax")

    def infer(self, patches: np.ndarray) -> np.ndarray:
        raise BackendError("the link is gone")

    def close(self) -> None:
        pass


def test_a_model_that_breaks_is_counted_and_the_others_go_on(models):
    broken = LoadedModel(models[0].spec, _Broken(), "broken")
    engine = Engine([broken, models[1]])
    events = feed(engine, engine.open_stream("a", 16000, live=False), tones(0, 1.0))
    assert {e.model for e in events if isinstance(e, Detection)} <= {"bank"}
    (lane_model,) = [m for lane in engine.lanes for m in lane.models if m.name == "raw"]
    assert lane_model.failed_patches > 0
    assert lane_model.error == "the link is gone"


def test_a_second_backend_runs_beside_the_first_and_is_compared(models, tmp_path):
    same = LoadedModel(models[0].spec, models[0].backend, "tflite")
    other = loaded(write_level_model(tmp_path, name="raw", gain=0.0))
    differing = LoadedModel(models[0].spec, other.backend, "gap8")
    engine = Engine([models[0], same, differing])
    events = feed(engine, engine.open_stream("a", 16000, live=False), tones(0, 1.0))
    found = [e for e in events if isinstance(e, Detection)]
    assert {e.backend for e in found} == {"onnx"}
    (model,) = [m for lane in engine.lanes for m in lane.models]
    assert all(twin.flush(30.0) for twin in model.twins)
    counts = engine.disagreements()["raw"]
    assert counts["tflite"] == (0, model.patches, 0)
    assert 0 < counts["gap8"].differing <= counts["gap8"].of == model.patches
