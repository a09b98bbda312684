"""The detection settings that miss least within bounds, by the service's own detector on scores computed before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kws_models.evaluation.calibration_material import Material, Streamed
from kws_models.evaluation.intervals import BoolArray
from kws_models.evaluation.scenes import count, detections, stream_powers, with_settings
from kws_models.evaluation.talk_report import OFF_SHARE, Talking
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import Int64Array

GRID = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.985)  # denser where false accepts become rare
NEAR_S = {"keyword": 0.9, "event": 2.5}  # after a clip's end: still its detection


@dataclass(frozen=True)
class Curves:
    """Per label and threshold of GRID: counts (n_labels, n_thresholds)."""

    hits: Int64Array
    false_accepts: Int64Array  # on running speech
    hard_accepts: Int64Array  # on backgrounds and hard negatives
    talk_accepts: Int64Array  # on real people's speech


@dataclass(frozen=True)
class Choice:
    """One setting of smoothing and k-of-n, and the thresholds (by label) that are best with it."""

    settings: dict[str, Any]
    thresholds: dict[str, float]
    hits: int
    false_accepts: int
    hard_accepts: int
    talk_accepts: int
    curves: Curves
    as_it_was: bool = False  # nothing was chosen: the settings are the model's own


def choose(spec: ModelSpec, material: Material, most_per_hour: float, most_hard: int) -> Choice:
    """The setting and thresholds with the most hits within the bounds: those tried are what the shipped models use.

    `most_per_hour`: false accepts on running speech, all labels together. `most_hard`: accepts a label on backgrounds
    and hard negatives.
    """
    if spec.task == "keyword":
        tried: list[dict[str, Any]] = [
            {"smoothing_ms": ms, "k": k, "n": n} for ms, k, n in ((160.0, 2, 3), (240.0, 2, 3))
        ]
    else:
        hop_ms = spec.patch_hop_ms
        shapes = ((1, 1, 1), (1, 2, 2), (2, 2, 2))
        tried = [{"smoothing_ms": m * hop_ms, "k": k, "n": n} for m, k, n in shapes]
    budget = int(most_per_hour * material.hours)
    choices = [_best(spec, curves_of(spec, material, s), s, budget, most_hard) for s in tried]
    return min(choices, key=lambda c: (max(0, c.false_accepts - budget), -c.hits, c.false_accepts))


def curves_of(spec: ModelSpec, material: Material, settings: dict[str, Any]) -> Curves:
    """Run the detector at every threshold. Labels do not block each other, so all are tried in one pass."""
    labels = list(spec.detection)
    shape = (len(labels), len(GRID))
    curves = Curves(*(np.zeros(shape, np.int64) for _ in range(4)))
    for j, threshold in enumerate(GRID):
        setting = with_settings(spec, threshold=threshold, off_threshold=OFF_SHARE * threshold, **settings)
        talk = [one for some in material.talk.values() for one in some]
        streams: list[tuple[Streamed | Talking, Int64Array]] = [(one, curves.talk_accepts) for one in talk]
        streams += [(material.speech, curves.false_accepts), (material.hard, curves.hard_accepts)]
        for stream, counts in streams:
            for firing in detections(spec, stream.scores, setting, stream.powers):
                counts[labels.index(firing.label), j] += 1
        for scene, one in material.scenes:
            powers = stream_powers(spec, scene.samples)
            found = count(scene, spec, detections(spec, one, setting, powers), NEAR_S[spec.task])
            for label, delays in found.delays_s.items():
                curves.hits[labels.index(label), j] += len(delays)
    return curves


def kept(spec: ModelSpec, material: Material) -> Choice:
    """The settings that the model has, and what they do."""
    curves = curves_of(spec, material, {})
    fired = [detections(spec, s.scores, dict(spec.detection), s.powers) for s in (material.speech, material.hard)]
    talk = [one for some in material.talk.values() for one in some]
    talked = [detections(spec, one.scores, dict(spec.detection), one.powers) for one in talk]
    hits = 0
    for scene, scores in material.scenes:
        firings = detections(spec, scores, dict(spec.detection), stream_powers(spec, scene.samples))
        hits += count(scene, spec, firings, NEAR_S[spec.task]).hits
    thresholds = {label: s.threshold for label, s in spec.detection.items()}
    counts = (hits, len(fired[0]), len(fired[1]), sum(map(len, talked)))
    return Choice({}, thresholds, *counts, curves, as_it_was=True)


def _best(spec: ModelSpec, curves: Curves, settings: dict[str, Any], budget: int, most_hard: int) -> Choice:
    """Start each label as low as the hard negatives allow; then raise where a false accept costs the fewest hits.

    Greedy; where no label can be raised any more, the budget is overspent.
    """
    # at[i] is label i's index into GRID. A step moves one label from j to a higher k, and costs
    #
    #     hits[i, j] - hits[i, k]                     hits lost
    #     -------------------------------------  =  -------------------
    #     false_accepts[i, j] - false_accepts[i, k]   false accepts saved
    #
    # The cheapest is taken; k may jump over thresholds that save nothing.
    labels = list(spec.detection)
    at = [_first(curves.hard_accepts[i] <= most_hard) for i in range(len(labels))]
    while sum(curves.false_accepts[i, j] for i, j in enumerate(at)) > budget:
        steps = [
            ((curves.hits[i, j] - curves.hits[i, k]) / saved, i, k)
            for i, j in enumerate(at)
            for k in range(j + 1, len(GRID))
            if (saved := curves.false_accepts[i, j] - curves.false_accepts[i, k]) > 0
        ]
        if not steps:
            break
        _, i, k = min(steps)
        at[i] = k
    pick = [(i, j) for i, j in enumerate(at)]
    counted = (curves.hits, curves.false_accepts, curves.hard_accepts, curves.talk_accepts)
    hits, false_accepts, hard, talk = (int(sum(counts[i, j] for i, j in pick)) for counts in counted)
    thresholds = {label: GRID[j] for label, j in zip(labels, at, strict=True)}
    return Choice(settings, thresholds, hits, false_accepts, hard, talk, curves)


def _first(fits: BoolArray) -> int:
    """Index of the lowest threshold from which on all `fits` (n_thresholds,) hold; of the highest if it does not."""
    # fits  F F T F T T  ->  last F at 3, so 4; what fits below it is left alone, for it might be chance
    bad = np.flatnonzero(~fits)
    return min(len(fits) - 1, int(bad[-1]) + 1) if len(bad) else 0


def chosen_detection(spec: ModelSpec, choice: Choice) -> dict[str, Any]:
    """DetectionSpec per label as the service will use them, with the onset offsets that the model had."""
    if choice.as_it_was:
        return dict(spec.detection)
    return {
        label: replace(
            s,
            threshold=choice.thresholds[label],
            off_threshold=OFF_SHARE * choice.thresholds[label],
            **choice.settings,
        )
        for label, s in spec.detection.items()
    }
