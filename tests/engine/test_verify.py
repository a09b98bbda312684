"""A second model looks again at what a first one proposes: the rule, whatever the cuts, the company and the faults."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_serve.backends import open_backend
from kws_serve.backends.contract import LoadedModel
from kws_serve.core.ring import SampleRing
from kws_serve.engine.engine import Engine
from kws_serve.engine.past_patches import PastPatches
from kws_serve.engine.proposals import BEHIND_S
from kws_serve.manifest.folder import load_model
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import BackendError, Detection, Event, Gap, ManifestError, ScoresRow, StreamDone
from tests.engine.test_engine import feed, finish, loaded, side_by_side
from tests.engine.test_twin import Second
from tests.support.tiny_model import FBANK_8K, FBANK_16K, write_level_model

RATE_HZ = 16000
BANK = {"n_frames": 20, "gain": 0.1, "bias": 1.0}
SECOND_BANK = {**BANK, "bias": 0.8}
FIRST = {
    "raw": {"gain": 2.0, "detection": {"threshold": 0.3, "off_threshold": 0.2}},
    "8k": {"front_end": FBANK_8K, **BANK, "detection": {"threshold": 0.55, "off_threshold": 0.5}},
    "event": {"front_end": FBANK_16K, **BANK, "patch_hop_ms": 60, "task": "event",
              "detection": {"threshold": 0.55, "off_threshold": 0.5}},
}  # fmt: skip
SECOND = {
    "raw": {"n_frames": 3200, "patch_hop_ms": 50},
    "8k": {
        "front_end": {**FBANK_8K, "pad": "centre", "preemphasis": 0.5, "preemphasis_scope": "signal"},
        **SECOND_BANK,
    },
    "16k": {"front_end": FBANK_16K, **SECOND_BANK, "n_frames": 31, "patch_hop_ms": 30},
}
THRESHOLD = {"raw": 0.9, "8k": 0.9, "16k": 0.9}


def folders(at: Path, first: str, second: str, *, window_ms: float = 300) -> tuple[Path, Path]:
    verify = {"model": "second", "threshold": THRESHOLD[second], "window_ms": window_ms}
    return (
        write_level_model(at, name="first", verify=verify, **FIRST[first]),
        write_level_model(at, name="second", **SECOND[second]),
    )


def audio(seed: int, seconds: float = 6.0) -> np.ndarray:
    """Bursts about twice a second, as loud as may be; some of them rise: int16 (n,)."""
    rng = np.random.default_rng(seed)
    amplitude = np.full(int(seconds * RATE_HZ), 0.0005)
    at = int(rng.integers(0, 4000))
    while at < len(amplitude):
        n, loud = int(rng.integers(1500, 7000)), rng.uniform(0.1, 0.9)
        part = amplitude[at : at + n]
        part[:] = loud * (np.linspace(0.2, 1.0, n)[: len(part)] if rng.integers(2) else 1.0)
        at += n + int(rng.integers(2000, 8000))
    return (amplitude * rng.uniform(-1, 1, len(amplitude)) * 32767).astype(np.int16)


def engine_of(first: Path, second: Path, *, without: bool = False) -> Engine:
    one = loaded(first)
    if without:
        return Engine([replace(one, spec=replace(one.spec, verify=None))])
    return Engine([one], [loaded(second)])


Told = tuple[str, float, float, float | None, bool | None]


def told(events: list[Event], stream: str = "s") -> list[Told]:
    found = [e for e in events if isinstance(e, Detection) and e.stream == stream]
    return [(d.phase, d.start_s, d.decided_s, d.end_s, d.verified) for d in found]


def rounded(found: list[Told]) -> list[tuple[object, ...]]:
    """To a microsecond: what was computed in two ways."""
    return [tuple(round(x, 6) if type(x) is float else x for x in one) for one in found]


def by_the_rule(first: Path, second: Path, samples: np.ndarray) -> list[Told]:
    """The first model's detections and the second one's scores, each listening alone, put together in plain words."""
    alone = engine_of(first, second, without=True)
    proposed = told(feed(alone, alone.open_stream("s", RATE_HZ, live=False), samples))
    listening = Engine([loaded(second)])
    events = feed(listening, listening.open_stream("s", RATE_HZ, live=False, scores=True), samples)
    rows = [(e.end_s, float(e.values[1])) for e in events if isinstance(e, ScoresRow)]
    spec = load_model(first)
    window_s, threshold = spec.verify.window_ms / 1000, spec.verify.threshold
    found, started = [], {}
    for phase, start_s, decided_s, end_s, _ in proposed:
        if phase == "end":
            if (began_s := started.get(start_s)) is not None:
                found.append((phase, start_s, max(began_s, decided_s), end_s, True))
            continue
        agreed = [at for at, x in rows if abs(at - decided_s) < window_s + 1e-6 and x >= threshold]
        if agreed:
            started[start_s] = max(decided_s, min(agreed))
            found.append((phase, start_s, started[start_s], None, True))
    return sorted(found, key=lambda x: (x[2], x[0] == "end"))


@pytest.mark.parametrize("second", SECOND)
def test_past_patches_are_those_of_one_that_listens_to_the_bit(tmp_path, second):
    one = loaded(write_level_model(tmp_path, name="second", **SECOND[second]))
    samples = audio(3, 1.0)
    engine = Engine([one])
    stream = engine.open_stream("s", RATE_HZ, live=False)
    stream.push(samples, 0.0)
    (lane,), parts = engine.lanes, []
    while engine.busy:  # half a second at a tick
        engine.tick()
        parts.append(lane.models[0].scorer.patches[0])
    wanted = np.concatenate(parts)
    ring, past = SampleRing(1 << 15), PastPatches(one.spec)
    ring.ensure(1)
    ring.write(0, samples)
    ends = past.ends(0, RATE_HZ - past.lag_16k)
    assert len(ends) == len(wanted)
    for m in (1, 4, len(ends)):
        for i in range(len(ends) - m + 1):
            some = ends[i : i + m]
            found = past.patches(past.samples(ring, 0, some), some)
            np.testing.assert_array_equal(found, wanted[i : i + m])
    engine.close()


PAIRS = [(first, second) for first in FIRST for second in SECOND]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_any_model_verifies_any_other_by_the_rule(tmp_path, first, second):
    one, two = folders(tmp_path, first, second)
    kinds = set()
    for seed in range(4):
        samples = np.concatenate([audio(seed), np.zeros(RATE_HZ, np.int16)])  # ends have their own test
        engine = engine_of(one, two)
        events = told(feed(engine, engine.open_stream("s", RATE_HZ, live=False), samples))
        assert rounded(events) == rounded(by_the_rule(one, two, samples))
        counts = engine.proposals.counts["first"]
        kinds |= {name for name in ("verified", "rejected", "waited") if getattr(counts, name)}
        assert counts.unverified == 0
        engine.close()
    assert kinds == {"verified", "rejected", "waited"}, "the audio does not show every case"


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    return folders(tmp_path_factory.mktemp("models"), "8k", "raw")


def heard(pair: tuple[Path, Path], samples: np.ndarray, cuts=(), *, live: bool = False, rate: int = RATE_HZ):
    engine = engine_of(*pair)
    events = feed(engine, engine.open_stream("s", rate, live=live), samples, cuts)
    engine.close()
    return told(events)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 9),
    cuts=st.lists(st.integers(1, 9000), max_size=20),
    live=st.booleans(),
    rate=st.sampled_from([16000, 44100]),
)
def test_however_the_audio_is_cut(pair, seed, cuts, live, rate):
    """Live and from a file; the end of the audio is wherever it is, also within a wait."""
    samples = audio(seed, 3.0)
    assert heard(pair, samples, cuts, live=live, rate=rate) == heard(pair, samples, rate=rate)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 9), at=st.integers(4000, 40000), n=st.integers(1, 8000))
def test_a_gap_ends_the_wait(pair, seed, at, n):
    """What is before it is as if the stream had ended there but for the silence that follows an end."""
    samples = audio(seed, 3.0)
    engine = engine_of(*pair)
    stream = engine.open_stream("s", RATE_HZ, live=True)
    events: list[Event] = []
    stream.push(samples[:at], 0.0)
    stream.skip(n, "device")
    events += feed(engine, stream, samples[at:], [5000, 7000])
    (gap,) = [e for e in events if isinstance(e, Gap)]
    assert (gap.first_sample, gap.n) == (at, n)
    found = told(events)
    alone = heard(pair, samples[:at])
    before = [d for d in found if d[2] * RATE_HZ <= at]
    assert [d for d in alone if d in before] == before
    shift_s = (at + n) / RATE_HZ
    after = [(p, s - shift_s, d - shift_s, e, v) for p, s, d, e, v in found if d > shift_s]
    assert rounded(after) == rounded(heard(pair, samples[at:]))
    engine.close()


@settings(max_examples=10, deadline=None)
@given(seeds=st.lists(st.integers(0, 9), min_size=2, max_size=6), size=st.integers(200, 9000))
def test_in_company_as_alone(pair, seeds, size):
    engine = engine_of(*pair)
    parts = [audio(seed, 2.0) for seed in seeds]
    streams, events = side_by_side(engine, RATE_HZ, parts, size)
    for stream, samples in zip(streams, parts, strict=True):
        assert told(events, stream.name) == heard(pair, samples)
        done = next(i for i, e in enumerate(events) if isinstance(e, StreamDone) and e.stream == stream.name)
        assert all(e.stream != stream.name for e in events[done + 1 :])
    engine.close()


def opened(folder: Path, before) -> LoadedModel:
    spec = load_model(folder)
    return LoadedModel(spec, Second(open_backend("onnx", spec), before), "second")


def broken(_: np.ndarray) -> np.ndarray:
    raise BackendError("session: lost")


def misshapen(_: np.ndarray) -> np.ndarray:
    return np.zeros((1, 7), np.float32)


def ill(patches: np.ndarray) -> np.ndarray:
    return np.full((len(patches), 2), np.nan, np.float32)


@pytest.mark.parametrize("fault", [broken, misshapen, ill])
def test_a_verifier_that_fails_vetoes_nothing(pair, fault, caplog):
    samples = audio(1)
    engine = Engine([loaded(pair[0])], [opened(pair[1], fault)])
    events = told(feed(engine, engine.open_stream("s", RATE_HZ, live=False), samples))
    alone = engine_of(*pair, without=True)
    proposed = told(feed(alone, alone.open_stream("s", RATE_HZ, live=False), samples))
    assert events == [(*one[:-1], False) for one in proposed] != []
    assert engine.proposals.counts["first"].unverified == len(events)
    assert len([r for r in caplog.records if r.name == "kws_serve.engine.verifier"]) == 1
    engine.close()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Open at the end at least, so that no thread stays behind."""
    event = threading.Event()
    yield event
    event.set()


def test_one_that_falls_behind_vetoes_nothing_and_delays_no_tick(pair, gate):
    samples = audio(1)
    engine = Engine([loaded(pair[0])], [opened(pair[1], lambda patches: gate.wait() and None)])
    stream = engine.open_stream("s", RATE_HZ, live=True)
    now_s, events = 100.0, []
    for part in np.split(samples, 60):
        stream.push(part, now_s)
        events += engine.tick(now_s)
    assert stream.processed_samples == len(samples)
    assert not told(events)
    asked = len(engine.proposals._waiting)
    assert asked >= 5
    assert not told(engine.tick(now_s + BEHIND_S))
    late = told(engine.tick(now_s + BEHIND_S + 0.01))
    assert [one[-1] for one in late] == [False] * asked
    assert [one[2] for one in late] == sorted(one[2] for one in late)
    gate.set()
    stream.end()
    rest = told(finish(engine))  # its answers come too late for what was told
    assert {one[1] for one in rest}.isdisjoint(one[1] for one in late)
    engine.close()


def test_what_waits_is_told_in_the_order_of_its_decisions(tmp_path, gate):
    """A quiet burst waits for a loud one; the verifier has the look at what that proposes before the last of those at
    what waits.
    """
    detection = {"threshold": 0.3, "off_threshold": 0.2, "refractory_s": 0.6}
    verify = {"model": "second", "threshold": 0.9, "window_ms": 1000}
    first = write_level_model(tmp_path, name="first", gain=2.0, detection=detection, verify=verify)
    second = write_level_model(tmp_path, name="second", **SECOND["raw"])
    samples = np.zeros(2 * RATE_HZ, np.int16)
    samples[8000:10400], samples[16000:20000] = 6000, 28000
    engine = Engine([loaded(first)], [opened(second, lambda patches: gate.wait() and None)])
    stream = engine.open_stream("s", RATE_HZ, live=True)
    for part in np.split(samples, 100):
        stream.push(part, 0.0)
        assert not told(engine.tick(0.0))
    gate.set()
    events = told(finish(engine))
    assert [round(one[2], 3) for one in events] == [1.05, 1.12]
    engine.close()


def test_a_reload_takes_another_threshold_and_another_verifier(pair, tmp_path):
    samples = audio(2)
    engine = engine_of(*pair)
    before = told(feed(engine, engine.open_stream("s", RATE_HZ, live=False), samples))
    manifest = json.loads((pair[0] / "model.json").read_text())

    def again(**verify) -> LoadedModel:
        one = loaded(pair[0])
        spec: ModelSpec = replace(one.spec, verify=replace(one.spec.verify, **verify) if verify else None)
        return replace(one, spec=spec)

    def hear() -> list[Told]:
        return told(feed(engine, engine.open_stream("s", RATE_HZ, live=False), samples))

    engine.swap([again(threshold=0.0)])
    assert len(hear()) > len(before)
    engine.swap([again()])
    assert {one[-1] for one in hear()} == {None}
    engine.swap([again(threshold=manifest["verify"]["threshold"])])
    assert hear() == before
    other = loaded(write_level_model(tmp_path, name="second", **{**SECOND["raw"], "gain": 0.0}))
    engine.swap_verifier(other)
    assert hear() == []
    with pytest.raises(ValueError, match=r"verify.model: found 'third', wanted a model that is loaded"):
        engine.swap([again(model="third")])
    longer = loaded(write_level_model(tmp_path / "l", name="second", **{**SECOND["raw"], "n_frames": 160_000}))
    with pytest.raises(ValueError, match=r"found 10\.\d\d s of audio to look back, wanted at most"):
        engine.swap_verifier(longer)
    longer.backend.close()
    engine.close()


def test_what_does_not_suit_is_refused_with_what_was_found_and_wanted(tmp_path):
    one, _ = folders(tmp_path, "raw", "raw")
    with pytest.raises(ValueError, match=r"model first: verify.model: found 'second', wanted a model that is loaded"):
        Engine([loaded(one)])
    stranger = loaded(write_level_model(tmp_path / "b", name="second", label="quiet"))
    with pytest.raises(ValueError, match=r"verify.model: found 'second' without loud; wanted a model that has every"):
        Engine([loaded(one)], [stranger])
    for verify, fault in (
        ({"model": "first"}, r'verify.model: found "first", wanted the name of another model'),
        ({}, r"verify.model: found no such key, wanted it"),
        ({"model": "../x"}, r"verify.model: found '../x', wanted a name"),
        ({"model": "second", "window_ms": 2001}, r"verify.window_ms: found 2001, wanted a number from 0 to 2000"),
    ):
        manifest = json.loads((one / "model.json").read_text()) | {"verify": verify}
        (one / "model.json").write_text(json.dumps(manifest))
        with pytest.raises(ManifestError, match=fault):
            load_model(one)


def test_a_tick_without_proposals_asks_for_nothing(pair):
    engine = engine_of(*pair)
    stream = engine.open_stream("s", RATE_HZ, live=False)
    feed(engine, stream, np.zeros(3 * RATE_HZ, np.int16))
    assert engine.proposals.verifiers["second"].patches == 0
    engine.close()
