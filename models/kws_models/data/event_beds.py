"""Sounds coloured and laid over backgrounds: how loud a sound event is, and against what."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from kws_models.data.augmentation import drawn
from kws_models.data.event_mix import EventMix
from kws_serve.messages import Float32Array

_LOUD_S = 0.05  # a shot is short: its loudness is that of its loudest 50 ms
_FULL_SCALE = 32768.0  # of int16
_DULL_SHARE = 0.33  # of the sounds: heard by a microphone that loses the highs
_DULL_HZ = (1500.0, 3800.0)  # where it begins to lose them: within the 4 kHz that 8 kHz models hear
_DULL_ORDER = 8  # of (f / corner) under the root: a fall of 24 dB an octave
_LEAST_TILT_HZ = 50.0  # below it the tilt stays as it is: log2(0) has no value
_TILT_HZ = 1000.0  # where the tilt changes nothing
_FAINT_RMS = 3.0  # of 32768, at most: the noise of a quiet microphone
_CENTRED_SHARE = (0.3, 1.0)  # of the patch that a bed fills where it stands for a short file


def coloured(rng: Generator, sounds: Float32Array, mix: EventMix, rate_hz: int) -> Float32Array:
    """Sounds (n, n_samples) with a random tilt, and in _DULL_SHARE of the rows by a dull microphone; same shape."""
    n, n_samples = sounds.shape
    size = 1 << (n_samples - 1).bit_length()
    hz = np.maximum(np.fft.rfftfreq(size, 1 / rate_hz), _LEAST_TILT_HZ)
    tilt = rng.uniform(-mix.tilt_db_per_octave, mix.tilt_db_per_octave, (n, 1))
    gain = 10.0 ** (tilt * np.log2(hz / _TILT_HZ) / 20.0)
    corner = np.where(rng.random((n, 1)) < _DULL_SHARE, rng.uniform(*_DULL_HZ, (n, 1)), 1e6)
    gain /= np.sqrt(1.0 + (hz / corner) ** _DULL_ORDER)
    return np.fft.irfft(np.fft.rfft(sounds, size) * gain, size)[:, :n_samples].astype(np.float32)


def over_beds(rng: Generator, sounds: Float32Array, beds: Float32Array, mix: EventMix, rate_hz: int) -> Float32Array:
    """Sounds (n, patch_samples) at random levels over as many `beds` at random ratios, or in digital silence.

    int16's scale, not yet saturated. Ratios are of the loudest _LOUD_S of the sound to the mean of the bed.
    """
    # All factors are columns (n, 1), one a row of `sounds`:
    #
    #     sound  *  level / loud              so that its loudest part has the RMS `level`
    #     bed    *  level / bed_rms / ratio   so that level / (RMS of the bed) = ratio = 10 ** (snr_db / 20)
    #
    # A row without a sound has no ratio: its bed has the RMS `level` itself. The + 1.0 (one step of int16) keeps
    # silence from a division by zero and changes nothing that can be heard.
    n, width = sounds.shape
    level = _FULL_SCALE * 10.0 ** (rng.uniform(*mix.level_db, (n, 1)) / 20.0)
    loud = _loudest_rms(sounds, round(_LOUD_S * rate_hz))
    bed_rms = np.sqrt((beds**2).mean(1, keepdims=True)) + 1.0
    ratio = 10.0 ** (rng.uniform(*mix.snr_db, (n, 1)) / 20.0)
    silent = loud[:, 0] < 1.0
    ratio[silent] = 1.0
    bare = (drawn(rng, (0.0, 1.0), n) < mix.no_bed_share)[:, None]
    bed = beds * (level / bed_rms / ratio)
    faint = rng.normal(size=(n, width)) * rng.uniform(0.0, _FAINT_RMS, (n, 1)) * (rng.random((n, 1)) < 0.5)
    centred = _centred_in_zeros(rng, bed) if bare.any() else bed
    bed = np.where(bare, np.where(silent[:, None], centred, faint), bed + faint)
    return np.asarray(sounds * (level / (loud + 1.0)) + bed, np.float32)


def _loudest_rms(signals: Float32Array, window: int) -> Float32Array:
    """RMS (n, 1) of the loudest of the windows of `window` samples side by side; a rest at the end is not heard."""
    n, n_samples = signals.shape
    windows = signals[:, : n_samples // window * window].reshape(n, -1, window)
    return np.asarray(np.sqrt((windows**2).mean(2).max(1))[:, None], np.float32)


def _centred_in_zeros(rng: Generator, beds: Float32Array) -> Float32Array:
    """Backgrounds cut to 0.3 ... 1 of the patch, the rest zeros: as a short file centred in zeros."""
    # |0 0 0|<-- half -->.<-- half -->|0 0 0|     half is drawn a row; the middle is at width // 2
    n, width = beds.shape
    half = (rng.uniform(*_CENTRED_SHARE, (n, 1)) * width / 2).astype(int)
    return np.where(np.abs(np.arange(width) - width // 2) < half, beds, np.float32(0.0))
