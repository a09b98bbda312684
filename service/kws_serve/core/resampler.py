"""Any source rate -> 16 kHz (soxr, one stream at a time), and 16 -> 8 kHz (a FIR over many streams at once)."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import soxr
from numpy.lib.stride_tricks import sliding_window_view

from kws_serve.core.pcm import check_rate, clean
from kws_serve.messages import Float32Array, Int16Array

_Float64Array: TypeAlias = npt.NDArray[np.float64]

ENGINE_RATE_HZ = 16_000
"""Of the sample ring that all streams share: what the models hear, or twice that."""


def soxr_quality(rate_hz: int) -> str:
    """soxr's quality for a source of `rate_hz`: flat to 7.3 kHz, aliases below int16's 98 dB, with the least lag.

    The lag comes from block FFTs. Measured from 48 kHz, worst and mean: LQ 20 and 11 ms, MQ 38 and 21, HQ 37 and 21,
    VHQ 76 and 43; from 96 kHz MQ still 38, HQ 79. LQ is 3 dB down at 6.5 kHz and 24 dB at 7.3 kHz (from 8 kHz
    telephony: 13 dB at 3.5 kHz), which bends the features of models that see those bands. Aliases: MQ -108, HQ -134 dB.
    """
    return "HQ" if rate_hz <= 48_000 else "MQ"


class StreamResampler:
    """One stream, any rate -> 16 kHz int16. However the input is cut, the output's bits are the same.

    A gap in the input begins a new StreamResampler: the filter has memory.
    """

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = check_rate("rate_hz", rate_hz)
        self._ended = False
        self._soxr: soxr.ResampleStream | None = None
        if rate_hz != ENGINE_RATE_HZ:
            quality = soxr_quality(rate_hz)
            self._soxr = soxr.ResampleStream(rate_hz, ENGINE_RATE_HZ, 1, dtype="float32", quality=quality)

    def push(self, samples: Float32Array | Int16Array) -> Int16Array:
        """Samples (n,), int16 or float32 in [-1, 1), any n >= 0 -> what they complete (k,) at 16 kHz, k may be 0.

        Floats outside [-1, 1) saturate, NaN counts as 0: the caller has counted or refused them. Raises ValueError
        after `flush`; nothing has changed then.
        """
        if self._ended:
            raise ValueError("samples: found some after the stream's end, wanted a new StreamResampler")
        if self._soxr is None and samples.dtype == np.int16:
            return np.asarray(samples, np.int16)
        floats = _to_float32(samples)
        return to_int16(floats if self._soxr is None else self._soxr.resample_chunk(floats))

    def flush(self) -> Int16Array:
        """The rest of the stream (k,), which ends here: in all round(n * 16000 / rate_hz) samples."""
        self._ended = True
        if self._soxr is None:
            return np.empty(0, np.int16)
        return to_int16(self._soxr.resample_chunk(np.empty(0, np.float32), last=True))


def _to_float32(samples: Float32Array | Int16Array) -> Float32Array:
    if samples.dtype == np.int16:
        return np.asarray(samples * np.float32(1 / 32768), np.float32)
    return np.asarray(clean(np.asarray(samples, np.float32)).samples)  # one NaN would blank a whole FFT block


def to_int16(samples: Float32Array) -> Int16Array:
    """Nearest int16, saturated: our own rounding, as soxr's adds random dither."""
    return np.asarray(np.clip(np.rint(samples * np.float32(32768)), -32768, 32767), np.int16)


# 16 -> 8 kHz: a linear-phase low-pass of TAPS taps centred on its output, so output n stands at time n / 8000.
LEAD = LAG = 80
"""Samples at 16 kHz that an output needs before and after its time: 5 ms, the latency that the design allows."""

TAPS = LEAD + 1 + LAG
"""Of the filter: what lies before an output's time, at it and after it."""

_CUTOFF_HZ = 3_850.0
"""Flat (0.003 dB) to 3.6 kHz, half at 3.85 kHz, 32 dB down at 4.0, 70 dB from 4.1 kHz: what aliases lands above 3.9."""

_KAISER_BETA = 6.5
"""Of the window's shapes tried this is nearest to soxr HQ on recordings."""

_ONE = 1 << 20
"""Taps are integers / 2^20: a sum of int16 * tap is exact in float64, so its order cannot matter."""

_BLOCK = 32
"""Outputs in one row of the matrix product: a small matrix (224 x 32), mostly taps and not zeros."""


def half_rate(samples_16k: Int16Array) -> Int16Array:
    """Samples (k, LEAD + 2 * m + LAG) int16 at 16 kHz -> (k, m) int16 at 8 kHz, for k streams at once.

    Output j stands at input LEAD + 2 * j. No state, and exact but for the last rounding: any cut of a stream and any
    company give the same bits. Raises ValueError for a width that no m gives.
    """
    k, width = samples_16k.shape
    m, odd = divmod(width - LEAD - LAG, 2)
    if m < 0 or odd:
        raise ValueError(f"samples_16k: found width {width}, wanted {LEAD + LAG} + 2 * m, m >= 0")
    if m == 0 or k == 0:
        return np.empty((k, m), np.int16)
    # Output j needs inputs 2 * j .. 2 * j + TAPS - 1. So a block of _BLOCK outputs needs 2 * _BLOCK + TAPS - 1 inputs,
    # and the next one's begin 2 * _BLOCK later. Zeros fill the last block, whose surplus outputs are cut off:
    #   inputs   [ of block 0 . . . . . . . ]                 each @ (2 * _BLOCK + TAPS - 1, _BLOCK) -> _BLOCK outputs
    #                  [ of block 1 . . . . . . . ]
    n_blocks = -(-m // _BLOCK)
    padded = np.zeros((k, 2 * n_blocks * _BLOCK + TAPS - 1))
    padded[:, :width] = samples_16k
    blocks = sliding_window_view(padded, 2 * _BLOCK + TAPS - 1, axis=1)[:, :: 2 * _BLOCK]
    sums = blocks.reshape(k * n_blocks, -1) @ _BLOCK_MATRIX
    out = np.clip(np.rint(sums * (1.0 / _ONE)), -32768, 32767).astype(np.int16)
    return np.asarray(out.reshape(k, -1)[:, :m])


def half_rate_taps() -> _Float64Array:
    """The filter (TAPS,), symmetric, unit gain at 0 Hz: a Kaiser-windowed sinc rounded to multiples of 1 / 2^20."""
    at = np.arange(-LEAD, LAG + 1)
    ratio = 2.0 * _CUTOFF_HZ / ENGINE_RATE_HZ
    taps = np.sinc(ratio * at) * np.kaiser(TAPS, _KAISER_BETA)
    return np.asarray(np.rint(taps / taps.sum() * _ONE) / _ONE)


def _block_matrix() -> _Float64Array:
    """Integer taps as a band matrix (2 * _BLOCK + TAPS - 1, _BLOCK): column j holds them from row 2 * j."""
    taps = half_rate_taps() * _ONE
    matrix = np.zeros((2 * _BLOCK + TAPS - 1, _BLOCK))
    for j in range(_BLOCK):
        matrix[2 * j : 2 * j + TAPS, j] = taps
    return matrix


_BLOCK_MATRIX = _block_matrix()
