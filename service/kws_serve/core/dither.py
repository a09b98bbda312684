"""Dither for samples that are finer than the ring's 16 bits: what is quieter than one step is kept, and stretches of
rounded zeros do not look to a front end like nothing that is ever recorded.

TPDF dither of two steps' width (Lipshitz, Wannamaker and Vanderkooy 1992), a function of the sample's index alone: the
same bits however the stream is cut, and the same noise in every run.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kws_serve.messages import Float32Array

STEP = np.float32(1 / 32768)
"""Of 16 bits, 1.0 full scale."""

_GOLDEN, _FIRST, _SECOND = (np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_HALF = np.uint64(0xFFFFFFFF)


def dithered(samples: Float32Array, first_sample: int) -> Float32Array:
    """Samples (n, channels), 1.0 full scale, `first_sample` the index of the first: dithered where 16 bits do not hold
    them exactly, as they are where they do, and where they are no numbers.
    """
    with np.errstate(invalid="ignore"):
        whole = samples * np.float32(32768)
        inexact = np.isfinite(whole) & (np.rint(whole) != whole)
    if not inexact.any():
        return samples
    noise = _triangular(np.arange(first_sample, first_sample + len(samples), dtype=np.uint64))
    return np.where(inexact, samples + noise[:, None] * STEP, samples).astype(np.float32)


def _triangular(index: npt.NDArray[np.uint64]) -> Float32Array:
    """A number in (-1, 1) for each index, triangularly distributed: the difference of two uniform ones, from the halves
    of SplitMix64's output (Steele, Lea and Flood 2014).
    """
    z = (index + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    z ^= z >> np.uint64(31)
    return ((z >> np.uint64(32)).astype(np.float64) - (z & _HALF).astype(np.float64)).astype(np.float32) * np.float32(
        2.0**-32
    )
