"""Dither for samples that are finer than the ring's 16 bits: what is quieter than one step is kept, and stretches of
rounded zeros do not look to a front end like nothing that is ever recorded.

TPDF dither of two steps' width (Lipshitz, Wannamaker and Vanderkooy 1992), a function of the sample's index alone: the
same bits however the stream is cut, and the same noise in every run.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kws_serve.core.noise import uniform_pairs
from kws_serve.messages import Float32Array

STEP = np.float32(1 / 32768)
"""Of 16 bits, 1.0 full scale."""


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
    """A number in (-1, 1) for each index, triangularly distributed: the difference of two uniform ones."""
    one, other = uniform_pairs(index)
    return (one - other).astype(np.float32)
