"""Why something fired: the patch that decided, the scores around it and the settings in force, of the last detections.

All in memory, bounded, gone with the process. The samples of a raw-waveform model are audio: of such a patch only the
envelope is kept.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field

import numpy as np

from kws_serve.core.detector import mean_width, smoothed
from kws_serve.lane import LaneModel
from kws_serve.manifest import DetectionSpec, ModelSpec
from kws_serve.messages import Detection, Float32Array, Int64Array, JsonObject

KEPT = 100
"""Detections."""

AFTER_S = 1.0
"""Of scores after the deciding patch; before it, what the lane keeps."""

ENVELOPE = 200
"""Points of a raw patch's envelope."""


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
    after: list[Float32Array] = field(default_factory=list)  # (n_classes,) each

    def as_json(self) -> JsonObject:
        """For the API. Times in s of the stream; `smoothed` is the label's score as the detector compares it."""
        hop_s = self.spec.patch_hop_ms / 1000
        scores = np.stack([*self.before, *self.after])
        c = self.spec.labels.index(self.label)
        width = mean_width(self.settings.smoothing_ms, self.spec.patch_hop_ms)
        smooth: list[float | None] = [round(float(x), 4) for x in smoothed(scores[:, c], width)]
        if not self.whole:  # what the first means rest on is not kept
            smooth[: width - 1] = [None] * min(width - 1, len(smooth))
        n = len(self.before)
        patch_s = self.spec.patch_samples / self.spec.front_end.rate_hz
        return {
            "settings": asdict(self.settings),
            "patch": {
                "kind": self.spec.front_end.kind,
                "first_s": round(max(0.0, self.decided_s - patch_s), 6),
                "end_s": round(self.decided_s, 6),
                "values": rounded(self.patch),
            },
            "scores": {
                "labels": list(self.spec.labels),
                "end_s": [round(self.decided_s + (i + 1 - n) * hop_s, 6) for i in range(len(scores))],
                "values": rounded(scores, 4),
                "smoothed": smooth,
            },
        }


class EvidenceBook:
    """The evidence of the last detections. One owner thread writes; any thread reads."""

    def __init__(self) -> None:
        self._found: dict[str, Evidence] = {}
        self._open: dict[tuple[str, int], list[Evidence]] = {}  # those that wait for scores after them

    def get(self, uid: str) -> Evidence | None:
        """What is kept of a detection. Any thread."""
        return self._found.get(uid)

    def add(
        self, model: LaneModel, slot: int, back: int, patch: Float32Array, d: Detection, settings: DetectionSpec
    ) -> None:
        """Note a detection that `patch` decided, `back` patches before the model's last of this stream."""
        spec = model.loaded.spec
        before = model.recent.last(slot, back)
        kept = envelope(patch) if spec.front_end.kind == "raw" else patch.copy()
        whole = len(before) + back < model.recent.length
        evidence = Evidence(d.uid, spec, d.label, settings, d.decided_s, kept, before, whole)
        evidence.after += list(model.recent.last(slot)[len(before) :])
        self._found[d.uid] = evidence
        while len(self._found) > KEPT:
            del self._found[next(iter(self._found))]
        self._open.setdefault((spec.name, slot), []).append(evidence)

    def follow(self, spec: ModelSpec, slots: Int64Array, scores: Float32Array) -> None:
        """Scores (k, p, n_classes) of streams' next patches."""
        if not self._open:
            return
        wanted = math.ceil(AFTER_S * 1000 / spec.patch_hop_ms)
        for slot, mine in zip(slots.tolist(), scores, strict=True):
            waiting = self._open.pop((spec.name, slot), ())
            for evidence in waiting:
                evidence.after += list(mine[: max(0, wanted - len(evidence.after))])
            if still := [e for e in waiting if len(e.after) < wanted]:
                self._open[spec.name, slot] = still

    def reset(self, slot: int) -> None:
        """The stream has ended, or goes on elsewhere: nothing follows."""
        for key in [key for key in self._open if key[1] == slot]:
            del self._open[key]


def envelope(samples: Float32Array, points: int = ENVELOPE) -> Float32Array:
    """The lowest and the highest of each of `points` equal parts (fewer where there are fewer samples): (points, 2)."""
    flat = samples.reshape(-1)
    first = np.unique(np.arange(points) * len(flat) // points)
    return np.stack([np.minimum.reduceat(flat, first), np.maximum.reduceat(flat, first)], axis=1)


def rounded(values: Float32Array, digits: int = 2) -> list[list[float | None]]:
    """For JSON: null where a value is not finite."""
    rows = np.round(values.astype(np.float64), digits)
    return [[x if math.isfinite(x) else None for x in row] for row in rows.tolist()]
