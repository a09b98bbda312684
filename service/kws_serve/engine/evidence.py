"""Why something fired: the patch that decided, the scores around it and the settings in force, of the last detections.

All in memory, bounded, gone with the process. The samples of a raw-waveform model are audio: of such a patch only the
envelope is kept.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from kws_serve.core.detector import smoothed
from kws_serve.core.detector_rules import mean_width
from kws_serve.core.surroundings import Judgement
from kws_serve.engine.lane_model import LaneModel
from kws_serve.manifest.spec import DetectionSpec, ModelSpec, VerifySpec
from kws_serve.messages import Detection, Float32Array, Int64Array

KEPT = 100
"""Detections of a stream whose evidence is kept, the last ones: 2 MB with the widest of the shipped patches, 24 x 192
values."""

KEPT_IN_ALL = 10 * KEPT
"""Of all streams. Beyond it the stream that has most gives its oldest, so that a busy one does not empty the others."""

UNTOLD_S = 10.0
"""So long before a detection what its model proposed and was not told is shown with it."""

UNTOLD = 100
"""Of a stream at most: ten a second."""

UntoldReason = Literal["rejected", "not_armed"]

AFTER_S = 1.0
"""Of scores after the deciding patch, to see how it goes on; before it, what the lane keeps."""

ENVELOPE = 200
"""Points of a raw patch's envelope: 5 ms each of a second, too few to hear a word in."""


@dataclass(frozen=True, slots=True)
class SecondLook:
    """What a second model said of a detection."""

    spec: VerifySpec
    best: float | None  # its highest score up to where it decided; None: it failed or fell behind


@dataclass(frozen=True, slots=True)
class Untold:
    """What a model proposed and was not told."""

    model: str
    label: str
    score: float
    decided_s: float
    reason: UntoldReason
    second: SecondLook | None = None  # rejected by it


@dataclass(slots=True)
class Evidence:
    """What led to one detection."""

    uid: str
    spec: ModelSpec
    label: str
    settings: DetectionSpec
    decided_s: float
    patch: Float32Array  # (n_frames, n_coeffs) as the backend got it; (ENVELOPE, 2) lowest and highest of a raw one
    before: Float32Array  # (t, n_classes) scores up to the deciding patch
    whole: bool  # whether `before` begins with the stream
    surroundings: Judgement | None = None  # of a label that must stand alone
    second: SecondLook | None = None  # of a model with `verify`
    armed_s: float | None = None  # of a label that is armed: when the one that armed it was decided
    untold: list[Untold] = field(default_factory=list)  # shortly before it
    after: list[Float32Array] = field(default_factory=list)  # (n_classes,) each

    @property
    def scores(self) -> Float32Array:
        """Around the deciding patch, which is row `len(before) - 1`: (t, n_classes)."""
        return np.stack([*self.before, *self.after])

    @property
    def smoothed(self) -> Float32Array:
        """The label's score as the detector compares it, (t,); NaN where what it rests on is not kept."""
        width = mean_width(self.settings.smoothing_ms, self.spec.patch_hop_ms)
        means = smoothed(self.scores[:, self.spec.labels.index(self.label)], width)
        if not self.whole:
            means[: width - 1] = np.nan
        return means


class EvidenceBook:
    """The evidence of the last detections. One owner thread writes; any thread reads."""

    def __init__(self) -> None:
        self._found: dict[str, Evidence] = {}
        self._of: dict[str, deque[str]] = {}  # stream -> uids of its own, oldest first
        self._open: dict[str, dict[int, list[Evidence]]] = {}  # model -> slot -> those that wait for scores after them
        self._untold: dict[int, deque[Untold]] = {}  # slot -> oldest first

    def get(self, uid: str) -> Evidence | None:
        """What is kept of a detection. Any thread."""
        return self._found.get(uid)

    def begin(
        self,
        model: LaneModel,
        slot: int,
        back: int,
        patch: Float32Array,
        d: Detection,
        settings: DetectionSpec,
        surroundings: Judgement | None = None,
    ) -> Evidence:
        """Of a detection that `patch` decided, `back` patches before the model's last of this stream. It is shown once
        it is kept.
        """
        # recent, oldest first, with back = 2:   [ . . . before . . D | a a ]   D: the deciding patch's scores
        spec = model.loaded.spec
        before = model.recent.last(slot, back)
        kept = envelope(patch) if spec.front_end.kind == "raw" else patch.copy()
        whole = len(before) + back < model.recent.length
        evidence = Evidence(d.uid, spec, d.label, settings, d.decided_s, kept, before, whole, surroundings)
        evidence.after += list(model.recent.last(slot)[len(before) :])
        self._open.setdefault(spec.name, {}).setdefault(slot, []).append(evidence)
        return evidence

    def keep(self, stream: str, slot: int, evidence: Evidence) -> None:
        """The detection is told."""
        evidence.untold = [
            one
            for one in self._untold.get(slot, ())
            if one.model == evidence.spec.name and 0 <= evidence.decided_s - one.decided_s <= UNTOLD_S
        ]
        if evidence.uid not in self._found:
            self._of.setdefault(stream, deque()).append(evidence.uid)
        self._found[evidence.uid] = evidence
        if len(self._of[stream]) <= KEPT:
            if len(self._found) <= KEPT_IN_ALL:
                return
            stream = max(self._of, key=lambda name: len(self._of[name]))
        del self._found[self._of[stream].popleft()]
        if not self._of[stream]:
            del self._of[stream]

    def follow(self, spec: ModelSpec, slots: Int64Array, scores: Float32Array) -> None:
        """Scores (k, p, n_classes) of streams' next patches."""
        waiting = self._open.get(spec.name)
        if not waiting:
            return
        wanted = math.ceil(AFTER_S * 1000 / spec.patch_hop_ms)
        for i, slot in enumerate(slots.tolist()):
            if slot not in waiting:
                continue
            for evidence in waiting[slot]:
                new = scores[i, : max(0, wanted - len(evidence.after))]
                evidence.after += list(new.copy())  # a view would keep the scores of all streams
            waiting[slot] = [e for e in waiting[slot] if len(e.after) < wanted]
            if not waiting[slot]:
                del waiting[slot]

    def note_untold(self, slot: int, untold: Untold) -> None:
        """A proposal that is not told."""
        self._untold.setdefault(slot, deque(maxlen=UNTOLD)).append(untold)

    def leave(self, slot: int) -> None:
        """The stream is no more."""
        self._untold.pop(slot, None)

    def reset(self, slot: int) -> None:
        """The stream has ended, or goes on elsewhere: nothing follows."""
        for waiting in self._open.values():
            waiting.pop(slot, None)


def envelope(samples: Float32Array, points: int = ENVELOPE) -> Float32Array:
    """The lowest and the highest of each of `points` equal parts (fewer where there are fewer samples): (points, 2)."""
    flat = samples.reshape(-1)
    first = np.unique(np.arange(points) * len(flat) // points)
    return np.stack([np.minimum.reduceat(flat, first), np.maximum.reduceat(flat, first)], axis=1)
