"""Mel filter banks, DCT matrices and window functions, in float64 as the field defines them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from kws_serve.manifest.spec import DctSpec, MelSpec

Float64Array: TypeAlias = npt.NDArray[np.float64]

_SLANEY_HZ_PER_MEL = 200.0 / 3.0  # linear below 1 kHz (15 mel), then 27 mel for each factor of 6.4
_SLANEY_KNEE_HZ = 1000.0
_SLANEY_KNEE_MEL = _SLANEY_KNEE_HZ / _SLANEY_HZ_PER_MEL
_SLANEY_LOG_STEP = np.log(6.4) / 27.0


def window_function(name: str, n: int, periodic: bool) -> Float64Array:
    """Window (n,). periodic: one period of n samples (spectral analysis); else symmetric, as Kaldi's."""
    if name == "rectangular":
        return np.ones(n)
    phase = 2.0 * np.pi * np.arange(n) / max(1, n if periodic else n - 1)
    if name == "hamming":
        return np.asarray(0.54 - 0.46 * np.cos(phase))
    if name == "blackman":
        return np.asarray(0.42 - 0.5 * np.cos(phase) + 0.08 * np.cos(2.0 * phase))
    hann = 0.5 - 0.5 * np.cos(phase)
    return np.asarray(hann**0.85 if name == "povey" else hann)  # povey: Kaldi, feature-window.cc


def hz_to_mel(hz: Float64Array, formula: str) -> Float64Array:
    """Mel of `hz`. htk: 1127 ln(1 + f/700). slaney: Auditory Toolbox, linear to 1 kHz, then logarithmic."""
    if formula == "htk":
        return np.asarray(1127.0 * np.log1p(hz / 700.0))
    above = _SLANEY_KNEE_MEL + np.log(np.maximum(hz, 1.0) / _SLANEY_KNEE_HZ) / _SLANEY_LOG_STEP
    return np.asarray(np.where(hz < _SLANEY_KNEE_HZ, hz / _SLANEY_HZ_PER_MEL, above))


def mel_to_hz(mel: Float64Array, formula: str) -> Float64Array:
    """Inverse of `hz_to_mel`."""
    if formula == "htk":
        return np.asarray(700.0 * np.expm1(mel / 1127.0))
    above = _SLANEY_KNEE_HZ * np.exp(_SLANEY_LOG_STEP * (mel - _SLANEY_KNEE_MEL))
    return np.asarray(np.where(mel < _SLANEY_KNEE_MEL, mel * _SLANEY_HZ_PER_MEL, above))


def mel_weights(spec: MelSpec, fft_size: int, rate_hz: int) -> Float64Array:
    """Filter bank (fft_size // 2 + 1, n): energies = spectrum @ weights.

    Triangles rise from edge b to edge b + 1 and fall to b + 2; the n + 2 edges are equidistant in mel. What
    they are linear in is `spec.triangles`: mel (Kaldi), Hz (librosa), FFT bins rounded down (python_speech_features:
    floor((fft_size + 1) * hz / rate)), or mel within TensorFlow's first and last bin (mfcc_mel_filterbank.cc).
    """
    low, high = hz_to_mel(np.array([spec.f_min_hz, spec.f_max_hz], np.float64), spec.formula)
    edges_mel = np.linspace(low, high, spec.n + 2)
    edges_hz = mel_to_hz(edges_mel, spec.formula)
    bins = np.arange(fft_size // 2 + 1, dtype=np.float64)
    bins_hz = bins * rate_hz / fft_size
    if spec.triangles == "hz":
        weights = _triangles(bins_hz, edges_hz)
    elif spec.triangles == "bin":
        weights = _triangles(bins, np.floor((fft_size + 1) * edges_hz / rate_hz))
    else:
        weights = _triangles(hz_to_mel(bins_hz, spec.formula), edges_mel)
    if spec.triangles == "tf":
        bin_hz = rate_hz / fft_size
        first, last = int(1.5 + spec.f_min_hz / bin_hz), int(spec.f_max_hz / bin_hz)
        weights[:first] = 0.0
        weights[last + 1 :] = 0.0
    if spec.norm == "slaney":
        weights *= 2.0 / (edges_hz[2:] - edges_hz[:-2])
    return weights


def _triangles(at: Float64Array, edges: Float64Array) -> Float64Array:
    """Heights (n_bins, n_bands) at the points `at` (n_bins,) of triangles over `edges` (n_bands + 2,)."""
    left, peak, right = edges[:-2], edges[1:-1], edges[2:]
    x = at[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):  # edges on one bin: a side of no width, used nowhere
        rise, fall = (x - left) / (peak - left), (right - x) / (right - peak)
    weights = np.where((x >= left) & (x < peak), rise, 0.0)
    return np.where((x >= peak) & (x < right), fall, weights)


def dct_matrix(spec: DctSpec, n_mels: int) -> Float64Array:
    """DCT-II (n_mels, n), liftered: coefficients = log_mel @ matrix. Column k: scale * cos(pi k (j + 1/2) / n_mels).

    scale: sqrt(2 / n_mels) (tf); the same but sqrt(1 / n_mels) in column 0 (ortho); 1 (none; scipy's has 2).
    Lifter L: column k times 1 + L/2 sin(pi k / L) (HTK, Kaldi, python_speech_features).
    """
    k = np.arange(spec.n, dtype=np.float64)
    matrix = np.cos(np.pi * k * (np.arange(n_mels)[:, None] + 0.5) / n_mels)
    if spec.norm != "none":
        matrix *= np.sqrt(2.0 / n_mels)
    if spec.norm == "ortho":
        matrix[:, 0] *= np.sqrt(0.5)
    if spec.lifter:
        matrix *= 1.0 + spec.lifter / 2.0 * np.sin(np.pi * k / spec.lifter)
    return np.asarray(matrix)
