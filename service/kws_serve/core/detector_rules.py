"""Detector settings as arrays over a model's labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kws_serve.core.label_state import BoolArray
from kws_serve.core.resampler import ENGINE_RATE_HZ
from kws_serve.manifest.spec import DetectionSpec
from kws_serve.messages import Float32Array, Int64Array


@dataclass(frozen=True, slots=True)
class Rules:
    """DetectionSpec per label as arrays (n_classes,), with the two windows as weights; w and n: the longest label's."""

    on: Float32Array
    off: Float32Array
    mean: Float32Array  # (w, n_classes): 1/w_c on the last w_c patches
    recent: BoolArray  # (n, n_classes): True on the last n_c patches
    k: Int64Array
    refractory_16k: Int64Array
    onset_16k: Int64Array
    after_16k: Int64Array  # how long what comes on waits, or 0

    @classmethod
    def of(cls, specs: Sequence[DetectionSpec | None], patch_hop_16k: int, after_16k: Mapping[int, int]) -> Rules:
        """`specs`: of each label, None where it never fires; `after_16k`: of the labels that wait."""
        c = len(specs)
        patch_hop_ms = patch_hop_16k * 1000 / ENGINE_RATE_HZ
        widths = [mean_width(s.smoothing_ms, patch_hop_ms) if s else 1 for s in specs]
        counts = [s.n if s else 1 for s in specs]
        w, n = max(widths), max(counts)
        mean = np.zeros((w, c), np.float32)
        recent = np.zeros((n, c), bool)
        for i in range(c):
            mean[w - widths[i] :, i] = 1 / widths[i]
            recent[n - counts[i] :, i] = True
        never = np.float32(np.inf)
        return cls(
            on=np.array([s.threshold if s else never for s in specs], np.float32),
            off=np.array([min(s.off_threshold, s.threshold) if s else never for s in specs], np.float32),
            mean=mean,
            recent=recent,
            k=np.array([s.k if s else 1 for s in specs], np.int64),
            refractory_16k=np.array([round(s.refractory_s * ENGINE_RATE_HZ) if s else 0 for s in specs], np.int64),
            onset_16k=np.array([round(s.onset_offset_ms * ENGINE_RATE_HZ / 1000) if s else 0 for s in specs], np.int64),
            after_16k=np.array([after_16k.get(i, 0) for i in range(c)], np.int64),
        )


def mean_width(smoothing_ms: float, patch_hop_ms: float) -> int:
    """How many patches a smoothed score is the mean of."""
    return max(1, round(smoothing_ms / patch_hop_ms))
