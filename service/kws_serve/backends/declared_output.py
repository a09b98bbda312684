"""Whether a file's outputs are what its manifest declares: by their ranges and sums over patches of several kinds.

A wrong `output` fails silently otherwise: percents are cut off at 1, the softmax of a softmax never fires.
"""

from __future__ import annotations

import numpy as np

from kws_serve.manifest.spec import Output
from kws_serve.messages import Float32Array

TOLERANCE = 0.05
"""Of a score and of a sum of scores: half-precision and fused kernels stay within 0.01."""

_STEADY = 1e-3
"""Relative: sums of real logits differ from patch to patch by much more."""


def output_fault(real: Float32Array, kind: Output, step: float = 0.0) -> str:
    """What is wrong with outputs (n, n_classes), n >= 2 patches that differ, declared as `kind`; empty: nothing.

    `step`: of an integer output, by half of which each score may be rounded.
    """
    n_classes = real.shape[1]
    low, high, sums = float(real.min()), float(real.max()), real.sum(axis=1)
    least, most = float(sums.min()), float(sums.max())
    found = f"outputs of {low:.3g} to {high:.3g} whose sums are {least:.3g} to {most:.3g}"
    slack = TOLERANCE + step * n_classes / 2
    in_range = low >= -TOLERANCE and high <= 1.0 + TOLERANCE
    if kind == "logits":
        return _not_logits(real, found) if n_classes > 1 else ""
    if kind == "softmax" and not (in_range and abs(least - 1.0) <= slack and abs(most - 1.0) <= slack):
        return f"{found}, wanted 0 to 1 and sums of 1{_meant(low, high, in_range)}"
    if kind == "sigmoid" and not in_range:
        return f"{found}, wanted 0 to 1{_meant(low, high, in_range)}"
    return ""


def _not_logits(real: Float32Array, found: str) -> str:
    """Scores taken for logits: never negative, with one sum for all patches, or within 0 to 1."""
    sums = real.sum(axis=1)
    if real.min() < 0.0 or not (real.max(axis=1) > 0.0).all():
        return ""
    steady = float(np.ptp(sums)) <= _STEADY * float(sums.max())
    if steady and float(np.ptp(real, axis=0).max()) > _STEADY:
        meant = (
            "softmax" if abs(float(sums.max()) - 1.0) <= TOLERANCE else "softmax, in a unit of their own: divide them"
        )
        return f"{found}, wanted logits, whose sums differ: are they scores already (output: {meant})?"
    if real.max() <= 1.0:
        return f"{found}, wanted logits, which exceed 0 to 1: are they scores already (output: sigmoid)?"
    return ""


def _meant(low: float, high: float, in_range: bool) -> str:
    if in_range:
        return ": is output sigmoid, or logits?"
    if low >= 0.0 and high <= 100.0 + TOLERANCE and high > 20.0:
        return ": are they percents? The file should give hundredths of them"
    return ": is output logits?"
