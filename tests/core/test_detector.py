"""The detector against a slow reading of its rules, over any cut of the scores and any company of streams."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_serve.core.detector import Detector, Firing
from kws_serve.manifest.spec import DetectionSpec

HOP = 320  # 20 ms
PATCH = 15920
LABELS = ("_silence_", "yes", "no")


def make(spec: DetectionSpec, *, sustained: bool = False, other: DetectionSpec | None = None) -> Detector:
    detector = Detector(
        LABELS,
        {"yes": spec, "no": other or spec},
        sustained=sustained,
        patch_hop_16k=HOP,
        patch_16k=PATCH,
    )
    detector.ensure(4)
    return detector


def run(detector: Detector, scores: np.ndarray, cuts: list[int], slot: int = 0, first: int = PATCH) -> list[Firing]:
    """Feed scores (n, 3) in parts of the given sizes; `first`: where the first patch ends, in samples at 16 kHz."""
    firings: list[Firing] = []
    at = 0
    for size in [*cuts, len(scores)]:
        part = scores[at : at + size]
        if not len(part):
            break
        at += len(part)
        decided = np.array([first + (at - 1) * HOP])
        firings += detector.update(np.array([slot]), part[None].astype(np.float32), decided)
    return firings


def slow(scores: np.ndarray, c: int, spec: DetectionSpec, *, sustained: bool) -> list[tuple[str, int, int]]:
    """The rules of the module's text for one label, one patch at a time: (phase, start, decided) at 16 kHz."""
    w = max(1, round(spec.smoothing_ms / 20))
    smooth = [sum(scores[max(0, t - w + 1) : t + 1, c]) / w for t in range(len(scores))]
    above = [s >= np.float32(spec.threshold) for s in smooth]
    out: list[tuple[str, int, int]] = []
    active, quiet, start = False, 0, -1
    for t, s in enumerate(smooth):
        end = PATCH + t * HOP
        if active and s < np.float32(min(spec.off_threshold, spec.threshold)):
            active = False
            if sustained:
                out.append(("end", start, end))
                quiet = end + round(spec.refractory_s * 16000)
        recent = range(max(0, t - spec.n + 1), t + 1)
        if not active and above[t] and sum(above[i] for i in recent) >= spec.k and end >= quiet:
            first = next(i for i in recent if above[i])
            start = max(0, start + 1, PATCH + first * HOP - round(spec.onset_offset_ms * 16))
            active = True
            quiet = end + round(spec.refractory_s * 16000)
            out.append(("start" if sustained else "once", start, end))
    return out


specs = st.builds(
    DetectionSpec,
    threshold=st.sampled_from([0.25, 0.5, 0.75]),
    off_threshold=st.sampled_from([0.125, 0.5]),
    smoothing_ms=st.sampled_from([0.0, 20.0, 40.0, 80.0]),
    k=st.integers(1, 2),
    n=st.integers(2, 4),
    refractory_s=st.sampled_from([0.0, 0.05, 0.3]),
    onset_offset_ms=st.sampled_from([0.0, 100.0]),
)
# eighths sum exactly in float32, so the slow reading and the fast one see the same numbers
score_rows = st.lists(st.tuples(*[st.integers(0, 8)] * 3), min_size=1, max_size=40)


@settings(max_examples=300, deadline=None)
@given(score_rows, specs, specs, st.booleans(), st.lists(st.integers(1, 9), max_size=12))
def test_equals_the_slow_reading_for_any_cut(rows, yes, no, sustained, cuts):
    scores = np.array(rows, np.float64) / 8
    firings = run(make(yes, sustained=sustained, other=no), scores, cuts)
    for c, label, spec in ((1, "yes", yes), (2, "no", no)):
        mine = [(f.phase, f.start_16k, f.decided_16k) for f in firings if f.label == label]
        assert mine == slow(scores, c, spec, sustained=sustained)


@settings(max_examples=100, deadline=None)
@given(st.lists(score_rows, min_size=2, max_size=4), specs)
def test_streams_do_not_touch_each_other(streams, spec):
    n = min(len(rows) for rows in streams)
    scores = np.array([rows[:n] for rows in streams], np.float32) / 8
    together = make(spec)
    decided = np.full(len(streams), PATCH + (n - 1) * HOP)
    firings = together.update(np.arange(len(streams)), scores, decided)
    for row in range(len(streams)):
        alone = run(make(spec), scores[row], [])
        mine = [(f.label, f.score, f.start_16k, f.decided_16k) for f in firings if f.row == row]
        assert mine == [(f.label, f.score, f.start_16k, f.decided_16k) for f in alone]


def test_rest_labels_never_fire():
    assert run(make(DetectionSpec(k=1, n=1, smoothing_ms=0)), np.tile([1.0, 0, 0], (50, 1)), []) == []


def test_one_labels_refractory_time_does_not_block_another():
    spec = DetectionSpec(threshold=0.5, smoothing_ms=0, k=1, n=1, refractory_s=10)
    firings = run(make(spec), np.array([[0, 1, 0], [0, 0, 1], [0, 1, 0.0]]), [])
    assert [f.label for f in firings] == ["yes", "no"]


def test_a_threshold_moved_live_acts_on_the_next_patch():
    spec = DetectionSpec(threshold=0.9, off_threshold=0.2, smoothing_ms=0, k=2, n=2)
    detector = make(spec)
    assert run(detector, np.array([[0, 0.6, 0.0]] * 3), []) == []
    detector.configure({"yes": DetectionSpec(threshold=0.5, off_threshold=0.2, smoothing_ms=0, k=1, n=3)})
    assert [f.label for f in run(detector, np.array([[0, 0.6, 0.0]]), [])] == ["yes"]


def test_an_event_that_is_on_ends_at_a_reset():
    spec = DetectionSpec(threshold=0.5, smoothing_ms=0, k=1, n=1, onset_offset_ms=100)
    detector = make(spec, sustained=True)
    run(detector, np.array([[0, 1.0, 0]] * 60), [])
    (end,) = detector.reset(0, 40000)
    assert (end.phase, end.label, end.decided_16k, end.score) == ("end", "yes", 40000, 1.0)
    assert end.start_16k == PATCH - 1600
    assert end.end_16k == PATCH + 59 * HOP - (PATCH - 1600)
    assert detector.reset(0, 50000) == []
    again = run(detector, np.array([[0, 1.0, 0]]), [])
    assert [f.phase for f in again] == ["start"]  # no refractory time outlives a reset


EVENT = DetectionSpec(threshold=0.75, off_threshold=0.5, smoothing_ms=0, k=1, n=1, refractory_s=0.0)
SETTLED = PATCH // HOP - 1  # patches that end before the last one in which the segment's first sample lies


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, SETTLED - 1), st.integers(1, 2 * SETTLED), st.lists(st.integers(1, 30), max_size=12), st.booleans()
)
def test_an_event_that_starts_within_the_first_patch_is_told_if_it_is_still_on_then(first, n, cuts, sustained):
    scores = np.zeros((3 * SETTLED, 3))
    scores[first : first + n, 1] = 1.0
    found = run(make(EVENT, sustained=sustained), scores, cuts, first=HOP)
    on = [((f.decided_16k - HOP) // HOP, f.start_16k) for f in found if f.phase != "end"]
    ends = [(f.decided_16k - HOP) // HOP for f in found if f.phase == "end"]
    start = HOP + first * HOP  # where the first patch above ended
    if not sustained:
        assert (on, ends) == ([(first, start)], [])
    elif first + n > SETTLED:
        assert (on, ends) == ([(SETTLED, start)], [first + n])
    else:
        assert found == []  # the step, not the sound


def test_a_segment_that_breaks_off_tells_what_was_held():
    detector = make(EVENT, sustained=True)
    assert run(detector, np.tile([0, 1.0, 0], (3, 1)), [], first=HOP) == []
    found = detector.reset(0, 4 * HOP)
    assert [(f.phase, f.label, f.start_16k, f.score) for f in found] == [
        ("start", "yes", HOP, 1),
        ("end", "yes", HOP, 1),
    ]
    assert detector.reset(0, 0) == []


@settings(max_examples=200, deadline=None)
@given(st.lists(score_rows, min_size=3, max_size=3), specs, specs, specs, st.lists(st.integers(1, 9), max_size=6))
def test_a_stream_with_settings_of_its_own_and_its_neighbours_do_not_touch_each_other(streams, all_, one, later, cuts):
    n = min(len(rows) for rows in streams)
    scores = np.array([rows[:n] for rows in streams], np.float32) / 8
    together = make(all_)
    together.configure({"yes": one, "no": one}, slot=1)
    together.configure({"yes": later, "no": later}, slot=2)
    firings: list[Firing] = []
    at = 0
    for size in [*cuts, n]:
        part = scores[:, at : at + size]
        if not part.shape[1]:
            break
        at += part.shape[1]
        firings += together.update(np.arange(3), part, np.full(3, PATCH + (at - 1) * HOP))
    for row, spec in enumerate((all_, one, later)):
        alone = run(make(spec), scores[row], cuts)
        mine = [(f.label, f.score, f.start_16k, f.decided_16k) for f in firings if f.row == row]
        assert mine == [(f.label, f.score, f.start_16k, f.decided_16k) for f in alone]  # to the bit


def test_settings_for_all_take_those_of_one_stream_back_and_new_streams_get_them():
    loud, quiet = (DetectionSpec(threshold=x, off_threshold=0.1, smoothing_ms=0, k=1, n=1) for x in (0.9, 0.5))
    detector = make(loud)
    detector.configure({"yes": quiet}, slot=3)
    detector.ensure(9)
    scores, decided = np.tile(np.array([0, 0.6, 0], np.float32), (9, 1, 1)), np.full(9, PATCH)
    assert [f.row for f in detector.update(np.arange(9), scores, decided)] == [3]
    detector.reset(3, PATCH)
    detector.configure({"yes": loud})
    assert detector.update(np.arange(9), scores, decided + HOP) == []


def test_the_widths_of_others_do_not_change_a_streams_bits():
    rng = np.random.default_rng(7)
    scores = rng.random((1, 400, 3)).astype(np.float32) ** 0.2
    spec = DetectionSpec(threshold=0.8, off_threshold=0.79, smoothing_ms=60, k=1, n=1, refractory_s=0)
    alone, company = make(spec), make(spec)
    company.configure({"yes": DetectionSpec(smoothing_ms=1000, k=3, n=30)}, slot=1)
    at = np.array([PATCH + 399 * HOP])
    mine = [(f.label, f.score, f.decided_16k) for f in alone.update(np.array([0]), scores, at)]
    assert len(mine) > 20
    assert mine == [(f.label, f.score, f.decided_16k) for f in company.update(np.array([0]), scores, at)]
