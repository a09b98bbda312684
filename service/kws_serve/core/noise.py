"""Noise that is a function of an index alone: the same bits in every run, and no generator to load."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_GOLDEN, _FIRST, _SECOND = (np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_HALF = np.uint64(0xFFFFFFFF)


def uniform_pairs(index: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Two numbers in [0, 1) for each index: the halves of SplitMix64's output (Steele, Lea and Flood 2014)."""
    z = (index + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(32)).astype(np.float64) * 2.0**-32, (z & _HALF).astype(np.float64) * 2.0**-32
