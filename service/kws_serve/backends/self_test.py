"""How an integer file is tried as it is loaded: on loud noise, whose scores must be those of a small reference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from kws_serve.core.front_end import FrontEnd
from kws_serve.core.noise import uniform_pairs
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import Float32Array

Scores = Callable[[Float32Array], Float32Array]
"""Patches (n, n_frames, n_coeffs) -> scores (n, n_classes)."""

N_PATCHES = 4
TOLERANCE = 0.05
"""Of a patch's score that differs most, on average over the patches. Right kernels of trained models: at most 0.004,
one step of the output, for the reference rounds at the same places; saturated ones: mostly 0.05 to 0.95."""
_NUDGE = np.float32(1.001)
"""A model on a cliff between two labels falls to either side by one step of one layer. How far it falls is seen where
features are this much larger, less than one step of an int8 input: twice that is allowed beside TOLERANCE."""


def difference(tested: Scores, reference: Scores, patches: Float32Array) -> tuple[float, float]:
    """How far the scores are apart, and how far they may be."""
    wanted = reference(patches)
    found = _apart(tested(patches), wanted)
    return found, TOLERANCE if found <= TOLERANCE else TOLERANCE + 2 * _apart(reference(patches * _NUDGE), wanted)


def _apart(scores: Float32Array, others: Float32Array) -> float:
    return float(np.abs(scores - others).max(axis=1).mean())


def trial_patches(spec: ModelSpec) -> Float32Array:
    """Patches (N_PATCHES, n_frames, n_coeffs), the same for every call: white noise at full scale and 30 dB below,
    a square wave of 200 Hz under noise, and sound after silence. Loud features make large activations."""
    front_end = FrontEnd(spec.front_end)
    width, hop = front_end.lead_samples + spec.front_end.window_samples, spec.front_end.hop_samples
    n = width + (spec.n_frames - 1) * hop
    even = uniform_pairs(np.arange(N_PATCHES * n, dtype=np.uint64))[0]
    noise = (2.0 * even - 1.0).astype(np.float32).reshape(N_PATCHES, n)
    noise[1] *= 10.0 ** (-30 / 20)
    noise[2] = 0.5 * noise[2] + 0.5 * np.sign(np.sin(2 * np.pi * 200 / spec.front_end.rate_hz * np.arange(n)))
    noise[3, : n // 2] = 0.0
    windows = sliding_window_view(noise, width, axis=1)[:, ::hop]
    frames = front_end.frames(np.ascontiguousarray(windows.reshape(-1, width)))
    patches = front_end.patches(frames.reshape(N_PATCHES, spec.n_frames, -1))
    return np.nan_to_num(patches)
