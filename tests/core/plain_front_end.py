"""The manifest's front end once more, written for reading: float64, one window, one band, one coefficient at a time.

Shares no code with `kws_serve.core`: it states what each key of FrontEndSpec means.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from kws_serve.manifest.spec import FrontEndSpec, MelSpec

Float64Array = npt.NDArray[np.float64]


def plain_patch(spec: FrontEndSpec, samples: Float64Array) -> Float64Array:
    """Features (n_frames, n_coeffs) of one patch: all complete windows of `samples` in [-1, 1)."""
    starts = range(0, len(samples) - spec.window_samples + 1, spec.hop_samples)
    covered = samples[: starts[-1] + spec.window_samples]
    if spec.peak_normalise and np.any(covered):
        samples = samples / np.abs(covered).max()
    frames = np.array([plain_frame(spec, samples, start) for start in starts])
    return frames - frames.mean(axis=0) if spec.mean_subtract else frames


def plain_frame(spec: FrontEndSpec, samples: Float64Array, start: int) -> Float64Array:
    """The frame whose window begins at `start`."""
    x = samples[start : start + spec.window_samples] * spec.sample_scale
    if spec.kind == "raw":
        return x
    before = samples[start - 1] * spec.sample_scale if start else 0.0
    if spec.remove_dc:
        before, x = before - x.mean(), x - x.mean()
    raw_energy = math.fsum(value * value for value in x)
    if spec.preemphasis_scope == "frame":
        before = x[0]
    x = x - spec.preemphasis * np.concatenate([[before], x[:-1]])
    spectrum = np.abs(np.fft.rfft(x * window(spec), spec.fft_size))
    spectrum = spec.spectrum_scale * (spectrum if spec.spectrum == "magnitude" else spectrum**2)
    assert spec.mel is not None
    bands = mel_bands(spec.mel, spec.fft_size, spec.rate_hz)
    log_mel = np.array([log(spec, float(np.dot(band, spectrum))) for band in bands])
    if spec.kind == "fbank":
        return log_mel
    assert spec.dct is not None
    n = len(log_mel)
    coeffs = []
    for k in range(spec.dct.n):
        scale = {"tf": math.sqrt(2 / n), "ortho": math.sqrt((2 if k else 1) / n), "none": 1.0}[spec.dct.norm]
        lifter = 1 + spec.dct.lifter / 2 * math.sin(math.pi * k / spec.dct.lifter) if spec.dct.lifter else 1.0
        terms = (value * math.cos(math.pi * k * (j + 0.5) / n) for j, value in enumerate(log_mel))
        coeffs.append(scale * lifter * math.fsum(terms))
    if spec.c0 == "energy":
        coeffs[0] = log(spec, float(spectrum.sum()))
    if spec.c0 == "raw_energy":
        coeffs[0] = log(spec, raw_energy)
    return np.array(coeffs[1:] if spec.c0 == "none" else coeffs)


def log(spec: FrontEndSpec, value: float) -> float:
    return math.log(max(value, spec.log.floor) + spec.log.offset)


@lru_cache
def window(spec: FrontEndSpec) -> Float64Array:
    n = spec.window_samples
    period = n if spec.window_periodic else n - 1
    cosine = np.array([math.cos(2 * math.pi * i / period) for i in range(n)])
    if spec.window_function == "rectangular":
        return np.ones(n)
    if spec.window_function == "hamming":
        return 0.54 - 0.46 * cosine
    if spec.window_function == "blackman":
        return 0.42 - 0.5 * cosine + 0.08 * (2 * cosine**2 - 1)
    return (0.5 - 0.5 * cosine) ** (0.85 if spec.window_function == "povey" else 1.0)


def to_mel(hz: float, formula: str) -> float:
    if formula == "htk":
        return 2595 * math.log10(1 + hz / 700)
    return 3 * hz / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)


def to_hz(mel: float, formula: str) -> float:
    if formula == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return 200 * mel / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


@lru_cache
def mel_bands(spec: MelSpec, fft_size: int, rate_hz: int) -> list[Float64Array]:
    """Each band's weight of each FFT bin."""
    low, high = to_mel(spec.f_min_hz, spec.formula), to_mel(spec.f_max_hz, spec.formula)
    edges_mel = [low + (high - low) * i / (spec.n + 1) for i in range(spec.n + 2)]
    edges_hz = [to_hz(mel, spec.formula) for mel in edges_mel]
    bin_hz = rate_hz / fft_size
    bands = []
    for band in range(spec.n):
        weights = np.zeros(fft_size // 2 + 1)
        for k in range(len(weights)):
            if spec.triangles == "hz":
                x, edges = k * bin_hz, edges_hz
            elif spec.triangles == "bin":
                x, edges = float(k), [float(math.floor((fft_size + 1) * hz / rate_hz)) for hz in edges_hz]
            else:
                x, edges = to_mel(k * bin_hz, spec.formula), edges_mel
            left, centre, right = edges[band : band + 3]
            if left < x < centre:
                weights[k] = (x - left) / (centre - left)
            elif centre <= x < right:
                weights[k] = (right - x) / (right - centre)
            if spec.triangles == "tf" and not int(1.5 + spec.f_min_hz / bin_hz) <= k <= int(spec.f_max_hz / bin_hz):
                weights[k] = 0.0
        if spec.norm == "slaney":
            weights *= 2 / (edges_hz[band + 2] - edges_hz[band])
        bands.append(weights)
    return bands
