"""Labels that count only shortly after another one: the rule, whatever the cuts, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_serve.api.views import models_json, why_json
from kws_serve.core.arming import Arming
from kws_serve.core.detector import Detector
from kws_serve.engine.engine import Engine
from kws_serve.manifest.folder import load_model
from kws_serve.manifest.spec import ArmingSpec, DetectionSpec
from kws_serve.messages import Detection, Event, ManifestError
from kws_serve.sinks.filter import Logged
from tests.engine.test_engine import feed, finish, loaded, side_by_side
from tests.engine.test_verify import FBANK_8K, RATE_HZ, SECOND, audio
from tests.support.tiny_model import FBANK_16K, write_level_model

WITHIN_S = 0.8
ARMED = {"model": "wake", "label": "loud", "within_s": WITHIN_S}
BANK = {"n_frames": 20, "gain": 0.1, "bias": 0.9}
WAKE = {
    "raw": {"gain": 1.0, "detection": {"threshold": 0.6}},
    "8k": {"front_end": FBANK_8K, **BANK, "detection": {"threshold": 0.75, "off_threshold": 0.6}},
    "event": {"front_end": FBANK_16K, **BANK, "patch_hop_ms": 60, "task": "event",
              "detection": {"threshold": 0.75, "off_threshold": 0.6}},
    "verified": {"front_end": FBANK_8K, **BANK, "detection": {"threshold": 0.75, "off_threshold": 0.6},
                 "verify": {"model": "second", "threshold": 0.8, "window_ms": 300}},
}  # fmt: skip
WORD = {"threshold": 0.3, "off_threshold": 0.2, "refractory_s": 0, "onset_offset_ms": 40}


def folders(at: Path, wake: str, armed: dict | None = ARMED, **word) -> dict[str, Path]:
    return {
        "word": write_level_model(at, name="word", gain=2.0, detection={**WORD, "armed_by": armed, **word}),
        "wake": write_level_model(at, name="wake", **WAKE[wake]),
        "second": write_level_model(at, name="second", **SECOND["raw"]),
    }


def engine_of(found: dict[str, Path]) -> Engine:
    again = [loaded(found["second"])] if load_model(found["wake"]).verify else []
    return Engine([loaded(found["word"]), loaded(found["wake"])], again)


def heard(found: dict[str, Path], samples: np.ndarray, cuts=(), rate: int = RATE_HZ) -> list[Event]:
    engine = engine_of(found)
    events = feed(engine, engine.open_stream("s", rate, live=False), samples, cuts)
    engine.close()
    return events


def told(events: list[Event], model: str) -> list[tuple[float, float]]:
    found = [e for e in events if isinstance(e, Detection) and e.model == model and e.phase != "end"]
    return sorted((round(d.start_s, 6), round(d.decided_s, 6)) for d in found)


def by_the_rule(at: Path, wake: str, samples: np.ndarray) -> list[tuple[float, float]]:
    """What is told without the rules, put together in plain words."""
    verified = dict(told(heard(folders(at / "v", wake, None), samples), "wake"))
    proposed = told(heard(folders(at / "p", "8k" if wake == "verified" else wake, None), samples), "wake")
    found = []
    for start_s, decided_s in told(heard(folders(at / "w", wake, None), samples), "word"):
        before = [s for s, d in proposed if start_s - WITHIN_S - 1e-6 <= d <= start_s + 1e-6]
        arms = [verified[s] for s in before if s in verified]
        if arms:
            found.append((start_s, max(decided_s, min(arms))))
    return found


@pytest.mark.parametrize("wake", WAKE)
def test_a_label_counts_only_shortly_after_another_one(tmp_path, wake):
    armed = n = 0
    for seed in range(4):
        samples = audio(seed)
        wanted = by_the_rule(tmp_path, wake, samples)
        assert told(heard(folders(tmp_path / "a", wake), samples), "word") == wanted
        armed += len(wanted)
        n += len(told(heard(folders(tmp_path / "w", wake, None), samples), "word"))
    assert 0 < armed < n, "the audio does not show both cases"


@pytest.fixture(scope="module", params=WAKE)
def group(request, tmp_path_factory) -> dict[str, Path]:
    """With a refractory time, which only what counts begins."""
    return folders(tmp_path_factory.mktemp("m"), request.param, refractory_s=0.6)


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 9),
    cuts=st.lists(st.one_of(st.integers(1, 200), st.integers(1, 9000)), max_size=30),
    rate=st.sampled_from([16000, 44100]),
)
def test_however_the_audio_is_cut(group, seed, cuts, rate):
    samples = audio(seed, 3.0)
    one, two = heard(group, samples, rate=rate), heard(group, samples, cuts, rate)
    for model in ("word", "wake"):
        assert told(one, model) == told(two, model)


@settings(max_examples=6, deadline=None)
@given(seeds=st.lists(st.integers(0, 9), min_size=2, max_size=4), size=st.integers(200, 9000))
def test_in_company_as_alone(group, seeds, size):
    engine = engine_of(group)
    parts = [audio(seed, 2.0) for seed in seeds]
    streams, events = side_by_side(engine, RATE_HZ, parts, size)
    for stream, samples in zip(streams, parts, strict=True):
        mine = [e for e in events if isinstance(e, Detection) and e.stream == stream.name]
        assert told(mine, "word") == told(heard(group, samples), "word")
    engine.close()


def test_what_hears_8_khz_arms_in_time(tmp_path):
    """Both come on at the same sample, 5 ms before the first can know it: the sound jumps up within its patch hop."""
    found = folders(tmp_path, "8k", threshold=0.9, onset_offset_ms=0)
    samples = bursts((0.5, 0.4), seconds=1.5)
    ((_, at_s),) = told(heard(found, samples), "wake")
    first = int((at_s - 0.015) * RATE_HZ)
    samples[first : first + 800] = 30000
    whole = heard(found, samples)
    assert told(whole, "wake")[0][1] == at_s
    assert told(whole, "word") == [(at_s, at_s)]
    assert told(heard(found, samples, [80] * (len(samples) // 80)), "word") == told(whole, "word")


def test_an_event_that_does_not_count_has_no_end_either(tmp_path):
    found = folders(tmp_path, "raw")
    found["word"] = write_level_model(
        tmp_path, name="word", gain=2.0, task="event", detection={**WORD, "armed_by": ARMED}
    )
    samples = bursts((0.0, 0.3), (0.5, 0.3), (1.0, 0.9), (1.4, 0.3))
    (wake,) = told(events := heard(found, samples), "wake")
    mine = [e for e in events if isinstance(e, Detection) and e.model == "word"]
    assert [e.phase for e in mine[:2]] == ["start", "end"]
    assert all(e.start_s >= wake[1] for e in mine)


def bursts(*at_s: tuple[float, float], seconds: float = 4.0) -> np.ndarray:
    """Noise of these amplitudes for 0.15 s each: int16."""
    samples = np.zeros(int(seconds * RATE_HZ))
    for begin_s, loud in at_s:
        first = int(begin_s * RATE_HZ)
        samples[first : first + 2400] = loud * np.random.default_rng(1).uniform(-1, 1, 2400)
    return (samples * 32767).astype(np.int16)


def test_one_that_does_not_count_quiets_nothing_and_is_shown(tmp_path):
    """A word before the wake word, and one after it: within the refractory time of the first."""
    engine = engine_of(folders(tmp_path, "raw", refractory_s=2.0))
    samples = bursts((0.5, 0.3), (1.0, 0.9), (1.4, 0.3))
    events = feed(engine, engine.open_stream("s", RATE_HZ, live=False), samples)
    (wake,) = told(events, "wake")
    (word,) = [e for e in events if isinstance(e, Detection) and e.model == "word"]
    assert wake[1] <= word.start_s <= wake[1] + WITHIN_S
    why = why_json(Logged(word), engine.evidence.get(word.uid))
    assert why["armed_s"] == wake[1]
    assert [one["reason"] for one in why["untold"]] == ["not_armed"] * len(why["untold"])
    assert 0.5 < why["untold"][0]["decided_s"] < 0.7
    counted = next(item for item in models_json(engine) if item["name"] == "word")["proposed"]
    assert counted["not_armed"] == len(why["untold"])


@pytest.mark.parametrize(("lost_s", "counts"), [(0.2, True), (2.0, False)])
def test_over_a_gap_in_audio_time(tmp_path, lost_s, counts):
    engine = engine_of(folders(tmp_path, "raw"))
    stream = engine.open_stream("s", RATE_HZ, live=True)
    samples = bursts((0.5, 0.9), (0.9, 0.3), seconds=1.5)
    cut = int(0.8 * RATE_HZ)
    stream.push(samples[:cut], 0.0)
    stream.skip(int(lost_s * RATE_HZ), "device")
    events = feed(engine, stream, samples[cut:])
    late = [one for one in told(events, "word") if one[0] > 0.8]
    assert bool(late) is counts


def test_a_chain_of_models_in_whatever_order_they_were_loaded(tmp_path):
    """All three come on in one tick, each at the burst that follows."""
    rules = {"a": None, "b": {"model": "a", "label": "loud"}, "c": {"model": "b", "label": "loud"}}
    thresholds = {"a": 0.8, "b": 0.5, "c": 0.2}
    models = {
        name: loaded(
            write_level_model(
                tmp_path, name=name, gain=1.0, n_frames=1600 + i,  # each in a lane of its own
                detection={"threshold": thresholds[name], "off_threshold": 0.1, "refractory_s": 0, "armed_by": rule},
            )
        )
        for i, (name, rule) in enumerate(rules.items())
    }  # fmt: skip
    samples = bursts((0.0, 0.3), (0.1, 0.6), (0.3, 0.9), (0.6, 0.6), (0.9, 0.3), seconds=1.2)
    found = []
    for names in ("abc", "cba", "bca"):
        engine = Engine([models[name] for name in names])
        stream = engine.open_stream("s", RATE_HZ, live=False)
        events: list[Event] = []
        for part in np.split(samples, 3):  # 0.4 s at a tick
            stream.push(part, 0.0)
            events += engine.tick()
        stream.end()
        events += finish(engine)
        found.append({name: told(events, name) for name in "abc"})
    assert found[0] == found[1] == found[2]
    assert all(found[0].values())


def test_patch_turns_it_on_and_off(tmp_path):
    samples = bursts((0.5, 0.3), (1.0, 0.9), (1.4, 0.3))
    engine = engine_of(folders(tmp_path, "raw", None))

    def hear() -> int:
        return len(told(feed(engine, engine.open_stream("s", RATE_HZ, live=False), samples), "word"))

    assert hear() == 3
    result = engine.patch_detection("word", {"*": {"armed_by": {"model": "wake", "label": "loud"}}})
    assert result["loud"]["armed_by"] == {"model": "wake", "label": "loud", "within_s": 5.0}
    assert hear() < 3
    engine.patch_detection("word", {"*": {"armed_by": {"within_s": 0.001}}})
    assert engine.detection_overrides("word")["*"]["armed_by"]["within_s"] == 0.001
    assert hear() <= 1
    engine.patch_detection("word", {"*": {"armed_by": None}})
    assert hear() == 3


def test_what_is_not_there_or_waits_for_itself_is_refused(tmp_path):
    found = folders(tmp_path, "raw")
    engine = engine_of(found)
    before = engine.detection_overrides("wake")
    for model, rule, fault in (
        ("word", {"model": "siri"}, r"detection.loud.armed_by.model: found 'siri', wanted one of word, wake"),
        ("word", {"label": "quiet"}, r"detection.loud.armed_by.label: found 'quiet', wanted one of loud"),
        ("word", {"within_s": 61}, r"within_s: found 61, wanted a number above 0 up to 60"),
        ("wake", {"model": "word", "label": "loud"}, r"circle word/loud -> wake/loud -> word/loud"),
        ("wake", {"model": "wake", "label": "loud"}, r"circle wake/loud -> wake/loud"),
        ("wake", {"model": "word"}, r"armed_by: found .*, wanted a model and one of its labels"),
    ):
        with pytest.raises(ValueError, match=fault):
            engine.patch_detection(model, {"loud": {"armed_by": {**(ARMED if model == "word" else {}), **rule}}})
    assert engine.detection_overrides("wake") == before == {}
    with pytest.raises(ValueError, match=r"armed_by.model: found 'wake', wanted one of word"):
        Engine([loaded(found["word"])])
    with pytest.raises(ValueError, match=r"label: found 'loud', wanted one of other"):
        engine.swap([loaded(write_level_model(tmp_path / "n", name="wake", label="other", gain=1.0))])
    engine.restore_detection("wake", {"loud": {"armed_by": {"model": "gone", "label": "x"}}})
    assert engine.detection_overrides("wake") == {}
    manifest = json.loads((found["word"] / "model.json").read_text())
    manifest["detection"]["*"]["armed_by"] = {"label": "loud"}
    (found["word"] / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(ManifestError, match=r"wanted a model and one of its labels"):
        load_model(found["word"])


def test_labels_of_one_model_in_the_order_of_who_arms_whom():
    """ "b" is armed by "c": all come on in one patch, and later "b" alone."""
    plain = DetectionSpec(threshold=0.5, off_threshold=0.4, smoothing_ms=0, k=1, n=1, refractory_s=0)
    rules = {
        "a": DetectionSpec(0.5, 0.4, 0, 1, 1, 0, armed_by=ArmingSpec("m", "b", 0.1)),
        "b": DetectionSpec(0.5, 0.4, 0, 1, 1, 0, armed_by=ArmingSpec("m", "c", 0.1)),
        "c": plain,
    }
    arming = Arming()
    arming.wanted = frozenset({("m", "b"), ("m", "c")})
    detector = Detector("abc", rules, sustained=False, patch_hop_16k=160, patch_16k=160, name="m", arming=arming)
    detector.ensure(1)
    scores = np.zeros((1, 40, 3), np.float32)
    scores[0, 3] = 1.0
    scores[0, 9, 1] = 1.0
    scores[0, 20, :2] = 1.0
    fired = detector.update(np.array([0]), scores, np.array([40 * 160]))
    assert [(f.label, f.decided_16k // 160, f.arms != ()) for f in fired] == [
        ("c", 4, True), ("b", 4, True), ("a", 4, True), ("b", 10, True), ("b", 21, False), ("a", 21, False),
    ]  # fmt: skip
