"""PCM from outside: which rates are taken, how bytes become samples, and what becomes of those that are no samples.

Every way in (WebSocket, file, standard input, resampler) asks here, so that one and the same input sounds the same
whichever way it comes: NaN is silence, an infinity full scale, and what lies beyond full scale saturates.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from kws_serve.messages import Float32Array, Int16Array

Samples: TypeAlias = Int16Array | Float32Array
T = TypeVar("T", np.int16, np.float32)

MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 384_000
"""Source rates, in Hz: half of telephony's 8 kHz, below which a model hears next to nothing, to the highest that sound
cards have; soxr takes them all."""

_INT, _FLOAT = np.dtype("<i2"), np.dtype("<f4")  # as they come: made once, for each message takes one
_FULL = np.float32(1.0)
_UNIT = 1 / 32768  # a power of two: int16 -> [-1, 1) is exact
_HIGHEST, _LOWEST = 32767, -32768  # of int16: a sample there has very likely been cut off
_CLIPPED = _HIGHEST * _UNIT


class Pcm(NamedTuple):
    """Samples of one channel that can be used, and what was found in them."""

    samples: Samples  # (n,) int16, or float32 in [-1, 1]
    peak: float  # highest magnitude in [0, 1], 1.0 full scale; 0.0 where n is 0
    bad: int = 0  # samples that were NaN or infinite
    clipped: int = 0  # samples at full scale or beyond; those that were infinite are bad only


def check_rate(what: str, rate_hz: int) -> int:
    """`rate_hz` itself where it is one that is taken; else ValueError saying `what`, found and wanted."""
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise ValueError(f"{what}: found {rate_hz}, wanted {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz")
    return rate_hz


def decoded(data: bytes | npt.NDArray[np.uint8], sample_bytes: int, channels: int = 1, channel: int = 0) -> Pcm:
    """Channel `channel` (from 0) of interleaved little-endian PCM: int16 where `sample_bytes` is 2, float32 where 4.

        data   | c0 c1 c2 | c0 c1 c2 | ...      channels = 3: sample 0 of each channel, sample 1 of each, ...
        [1::3]      c1         c1               channel = 1

    The samples may share the memory of `data`. Raises ValueError where `data` ends within a value.
    """
    if sample_bytes == 4:
        return clean(_picked(np.frombuffer(data, _FLOAT), channels, channel))
    samples = _picked(np.frombuffer(data, _INT), channels, channel)
    peak = _highest(samples) * _UNIT if len(samples) else 0.0
    if peak < _CLIPPED:  # nothing at full scale: so it is nearly always
        return Pcm(samples, peak)
    return Pcm(samples, peak, clipped=int(np.count_nonzero((samples == _HIGHEST) | (samples == _LOWEST))))


def clean(samples: Float32Array) -> Pcm:
    """Samples (n,) with NaN as 0, infinities as full scale, and saturated; the same array where nothing is to do."""
    peak = peak_of(samples)
    if peak < 1.0:  # not so where there is a NaN: highest and lowest are NaN then
        return Pcm(samples, peak)
    finite = np.isfinite(samples)
    clipped = int(np.count_nonzero(np.abs(samples[finite]) >= _FULL))
    whole = np.clip(np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0), -_FULL, _FULL)
    return Pcm(whole, peak_of(whole), len(samples) - int(np.count_nonzero(finite)), clipped)


def peak_of(samples: Samples) -> float:
    """The highest magnitude of samples (n,), 1.0 full scale; NaN where one is; 0.0 where n is 0."""
    if not len(samples):
        return 0.0
    return _highest(samples) * _UNIT if samples.dtype == np.int16 else _highest(samples)


def _picked(values: npt.NDArray[T], channels: int, channel: int) -> npt.NDArray[T]:
    """One channel, in this machine's byte order; a view of `values` where that is little-endian."""
    if channels > 1:
        values = values[channel::channels]
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


def _highest(samples: Samples) -> float:
    """The highest magnitude of samples (n,), n >= 1, in their own unit; NaN where one is."""
    return max(float(np.maximum.reduce(samples)), -float(np.minimum.reduce(samples)))
