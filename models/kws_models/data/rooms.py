"""Synthetic rooms: impulse responses of decaying noise after a direct sound and a few early reflections."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from kws_serve.messages import Float32Array

_SPEED_OF_SOUND_M_S = 343.0  # in air of 20 degrees
RT60_S = (0.15, 1.2)  # to fall by 60 dB: from a furnished room to a bare hall
DECAY = 6.9  # nepers in a reverberation time: ln(1000), 60 dB
_GAP_S = (0.002, 0.02)  # from the direct sound to the diffuse tail
_DULLNESS = (0.1, 0.7)  # of the walls: the low-pass's share
_REFLECTIONS = 5  # early ones, each on a path of its own
_DETOUR_M = (0.7, 8.0)  # of such a path against the direct one
_LEAST_REFLECTION, _MOST_REFLECTION = -0.5, 0.5  # of the tail's loudest sample
RATIO_DB = (-6.0, 15.0)  # direct to reverberant: far to near
_TAPS = 16  # of the low-pass: 0.7 ** 16 is 0.003
_LEAST_POWER = 1e-9  # added before a quotient: digital silence has none


def impulse_responses(rng: Generator, n: int, rate_hz: int, n_samples: int) -> Float32Array:
    """`n` rooms (n, n_samples), direct sound at sample 0 with gain 1.

    Reverberation time 0.15 to 1.2 s, direct-to-reverberant ratio 15 to -6 dB (near to far), five early reflections,
    walls that swallow high frequencies.
    """
    time_s = np.arange(n_samples) / rate_hz
    rt60_s = np.exp(rng.uniform(np.log(RT60_S[0]), np.log(RT60_S[1]), n))
    tail = rng.normal(size=(n, n_samples)) * np.exp(-DECAY * time_s / rt60_s[:, None])
    gap_s = rng.uniform(*_GAP_S, n)
    tail *= time_s >= gap_s[:, None]
    tail = _low_passed(tail, rng.uniform(*_DULLNESS, n))
    for row in tail:
        at = (rng.uniform(*_DETOUR_M, _REFLECTIONS) / _SPEED_OF_SOUND_M_S * rate_hz).astype(int)
        row[np.minimum(at, n_samples - 1)] += (
            rng.uniform(_LEAST_REFLECTION, _MOST_REFLECTION, _REFLECTIONS) * np.abs(row).max()
        )
    ratio = 10.0 ** (rng.uniform(*RATIO_DB, n) / 20.0)
    tail /= np.sqrt((tail**2).sum(1, keepdims=True)) * ratio[:, None]
    tail[:, 0] += 1.0
    return np.asarray(tail, np.float32)


def _low_passed(signals: np.ndarray, share: np.ndarray) -> np.ndarray:
    """One-pole low-pass as its first _TAPS taps, share ** i; share 0: nothing, near 1: dull."""
    taps = share[:, None] ** np.arange(_TAPS)
    size = 2 * signals.shape[1]
    spectra = np.fft.rfft(signals, size) * np.fft.rfft(taps, size)
    return np.asarray(np.fft.irfft(spectra, size)[:, : signals.shape[1]])


def in_rooms(rng: Generator, signals: Float32Array, rooms: Float32Array, share: float) -> Float32Array:
    """Signals (n, n_samples), in `share` of the rows heard in one of the `rooms` (m, k); same length, same power."""
    rows = np.flatnonzero(rng.random(len(signals)) < share)
    if not len(rows):
        return signals
    chosen = rooms[rng.integers(0, len(rooms), len(rows))]
    # a convolution has n_samples + k - 1 values: `size` is the next power of two, so that its end does not wrap around
    size = 1 << (signals.shape[1] + rooms.shape[1] - 2).bit_length()
    heard = np.fft.irfft(np.fft.rfft(signals[rows], size) * np.fft.rfft(chosen, size), size)[:, : signals.shape[1]]
    power = np.sqrt((signals[rows] ** 2).mean(1) / ((heard**2).mean(1) + _LEAST_POWER))
    out = signals.copy()
    out[rows] = heard * power[:, None]
    return out
