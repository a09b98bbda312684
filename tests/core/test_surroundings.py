"""A word that must stand alone: against a slow reading of the rule over any cut, and in the cases it is for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_serve.core.detector import Detector, Firing
from kws_serve.manifest.spec import DetectionSpec, IsolationSpec

HOP = 320  # 20 ms
LABELS = ("_silence_", "yes")
SPEC = DetectionSpec(smoothing_ms=20.0, k=1, n=1, threshold=0.5, off_threshold=0.3, onset_offset_ms=200.0)
WORD = slice(100, 120)  # patch hops in which the word is loud; the patches above are those from 110 on


def make(isolation: IsolationSpec | None, spec: DetectionSpec = SPEC) -> Detector:
    one = replace(spec, isolation=isolation)
    detector = Detector(LABELS, {"yes": one}, sustained=False, patch_hop_16k=HOP, patch_16k=HOP)
    detector.ensure(3)
    return detector


def run(detector: Detector, scores: np.ndarray, powers: np.ndarray, cuts: list[int], slot: int = 0) -> list[Firing]:
    """Feed scores (n, 2) and powers (n,) in parts of the given sizes."""
    firings: list[Firing] = []
    at = 0
    for size in [*cuts, len(scores)]:
        part, loud = scores[at : at + size], powers[at : at + size]
        if not len(part):
            break
        at += len(part)
        end = np.array([at * HOP])
        firings += detector.update(np.array([slot]), part[None].astype(np.float32), end, loud[None].astype(np.float32))
    return firings


def stream(before_db: float, speech: float, after_db: float = -80.0, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """A word of 0 dB from hop 100 to 120 with something before it, or after it, that scores `speech`."""
    power = np.full(n, 1e-8)
    power[: WORD.start] = 10 ** (before_db / 10)
    power[WORD] = 1.0
    power[WORD.stop :] = 10 ** (after_db / 10)
    scores = np.zeros((n, 2))
    scores[:, 0] = 1 - speech
    scores[110:125] = 0, 1
    return scores, power


def found(isolation: IsolationSpec | None, *args: float, cuts: tuple[int, ...] = ()) -> list[Firing]:
    return run(make(isolation), *stream(*args), list(cuts))


def test_a_word_after_silence_counts_and_one_in_talk_does_not():
    (alone,) = found(IsolationSpec(), -60, 0.0)
    assert (alone.start_16k, alone.decided_16k) == (111 * HOP - 3200, 111 * HOP)
    assert alone.surroundings.alone and alone.surroundings.margin_db > 50
    assert found(IsolationSpec(), -3, 1.0) == []
    assert len(found(None, -3, 1.0)) == 1


def test_over_a_television_music_and_noise_it_counts():
    assert len(found(IsolationSpec(), -20, 1.0)) == 1  # talk, but far below the word
    assert len(found(IsolationSpec(), -3, 0.2)) == 1  # as loud, but no speech
    assert found(IsolationSpec(margin_db=25), -20, 1.0) == []


def test_talk_after_it_takes_it_back_and_silence_tells_it_late():
    after = IsolationSpec(after_ms=400)
    (told,) = found(after, -60, 0.0)
    assert told.decided_16k == 111 * HOP + 6400 and told.start_16k == 111 * HOP - 3200
    assert found(after, -60, 1.0, -2) == []
    assert len(found(after, -60, 0.2, -2)) == 1


def test_a_word_said_again_and_again_fires_at_least_once():
    for isolation in (IsolationSpec(), IsolationSpec(after_ms=300)):
        scores, power = stream(-60, 0.0)
        for first in (100, 140, 180):
            power[first : first + 20] = 1.0
            scores[first + 10 : first + 45] = 0, 1
        assert len(run(make(isolation), scores, power, [])) >= 1


def test_what_waits_is_told_where_the_stream_ends():
    detector = make(IsolationSpec(after_ms=2000))
    assert run(detector, *stream(-60, 0.0, -80, 130), []) == []
    (told,) = detector.reset(0, 130 * HOP)
    assert (told.phase, told.decided_16k) == ("once", 130 * HOP)
    assert detector.reset(0, 0) == []


def test_streams_and_segments_do_not_hear_each_other():
    detector = make(IsolationSpec())
    assert run(detector, *stream(-3, 1.0), [], slot=1) == []
    assert len(run(detector, *stream(-60, 0.0), [], slot=0)) == 1
    scores, power = stream(-3, 1.0)
    run(detector, scores[:100], power[:100], [], slot=2)
    detector.reset(2, 100 * HOP)  # a gap: what was before it is not known
    assert len(run(detector, scores[100:], power[100:], [], slot=2)) == 1


def test_settings_moved_live_act_on_the_next_word():
    detector = make(None)
    scores, power = stream(-3, 1.0)
    run(detector, scores[:60], power[:60], [])
    detector.configure({"yes": replace(SPEC, isolation=IsolationSpec(before_ms=300))})
    assert run(detector, scores[60:], power[60:], []) == []


def test_isolation_taken_back_while_a_word_waits_tells_it():
    two = ("_silence_", "yes", "no")
    after = replace(SPEC, isolation=IsolationSpec(after_ms=400))
    detector = Detector(two, {"yes": after, "no": after}, sustained=False, patch_hop_16k=HOP, patch_16k=HOP)
    detector.ensure(1)
    scores, power = stream(-60, 0.0)
    scores = np.concatenate([scores, np.zeros((len(scores), 1))], axis=1)
    assert run(detector, scores[:120], power[:120], []) == []
    detector.configure({"yes": SPEC, "no": after})
    told = detector.update(
        np.array([0]), scores[None, 120:].astype(np.float32), np.array([200 * HOP]), power[None, 120:]
    )
    assert [f.label for f in told] == ["yes"]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    before_ms=st.sampled_from([0.0, 100.0, 500.0]),
    after_ms=st.sampled_from([0.0, 60.0, 300.0]),
    cuts=st.lists(st.integers(1, 40), max_size=12),
)
def test_equals_the_slow_reading_for_any_cut(seed, before_ms, after_ms, cuts):
    rng = np.random.default_rng(seed)
    scores = np.repeat(rng.uniform(0, 1, (60, 2)), 5, axis=0)  # 300 patches, steps of 100 ms
    power = np.repeat(10 ** rng.uniform(-4, 0, 60), 5)
    isolation = IsolationSpec(before_ms=before_ms, after_ms=after_ms, margin_db=6.0, speech=0.4)
    found = run(make(isolation), scores, power, cuts)
    scores, power = scores.astype(np.float32), power.astype(np.float32)
    assert [(f.start_16k, f.decided_16k) for f in found] == slow(scores, power, isolation)


def slow(scores: np.ndarray, power: np.ndarray, isolation: IsolationSpec) -> list[tuple[int, int]]:
    """The rule one patch at a time: (start, decided) at 16 kHz of what is told within the scores."""
    before, after, onset, guard = round(isolation.before_ms / 20), round(isolation.after_ms / 20), 10, 3
    power = np.concatenate([np.zeros(200), power])  # digital silence before the stream
    speech = np.concatenate([np.zeros(200), 1 - scores[:, 0]])
    isolated = before + after > 0
    factor = 10 ** (-isolation.margin_db / 10)
    told: list[tuple[int, int]] = []
    active, quiet, start, waits = False, 0, -1, None
    for t, score in enumerate(scores[:, 1]):
        at, end = (t + 1) * HOP, t + 1 + 200
        if waits and at >= waits[0]:
            _, word, began = waits
            span = slice(end - after, end)
            talk = power[span].mean() > word * factor and speech[span].mean() >= isolation.speech
            if active or not talk:
                told.append((began, at))
            waits = None
            waited = True
        else:
            waited = False
        if active and score < np.float32(0.3):
            active = False
        elif not active and not waits and not waited and score >= np.float32(0.5) and at >= quiet:
            active, start = True, max(0, start + 1, at - 3200)
            on = end - onset
            word = max(power[i : i + 3].mean() for i in range(on, end - 2))
            b, s = power[on - guard - before : on - guard], speech[on - before : on]
            b, s = (x.mean() if len(x) else 0.0 for x in (b, s))
            if isolated and b > word * factor and s >= isolation.speech:
                pass
            else:
                quiet = at + 16000
                if after:
                    waits = at + after * HOP, word, start
                else:
                    told.append((start, at))
    return told
