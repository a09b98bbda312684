"""Power of the low bins of real windows by two small matrix products, which for a quarter of the bins of a zero-padded
window costs less than an FFT of all of it.

Cooley and Tukey (1965) with fft_size = R x C, sample C a + b and bin c + R d:
X[c + R d] = sum_b w(C, b d) w(fft_size, b c) sum_a w(R, a c) x[C a + b], w(n, m) = exp(-2 pi i m / n).
The samples are real, so c <= R / 2 is enough: what lies beyond is the mirror image of bins that are computed instead.
"""

from __future__ import annotations

from math import ceil, log2

import numpy as np

from kws_serve.core.mel import Float64Array
from kws_serve.messages import Float32Array, Int64Array

TILE = 8
"""Windows of one call are a multiple of it: a BLAS product's bits depend on its row count."""


def suits(fft_size: int, last_bin: int) -> bool:
    """Whether it is the faster way."""
    return fft_size >= 1024 and fft_size & (fft_size - 1) == 0 and 4 * (last_bin + 1) <= fft_size + 4


class LowSpectrum:
    """The low bins of one window function and FFT size; stateless after `__init__`."""

    def __init__(self, window: Float64Array, fft_size: int, last_bin: int) -> None:
        """`window` (window_samples,) is what windows are multiplied with."""
        r = 1 << ceil(log2(fft_size) / 2)
        c = fft_size // r
        rows = ceil(len(window) / c)
        self._window = window.astype(np.float32)
        self._folded = (rows, c)
        first = np.outer(np.arange(r // 2 + 1), np.arange(rows)) * (-2 * np.pi / r)
        # real and imaginary parts of one c side by side: (2 (r/2 + 1), rows)
        self._first = np.stack([np.cos(first), np.sin(first)], 1).reshape(-1, rows).astype(np.float32)
        n_d = last_bin // r + 1
        d = np.concatenate([np.arange(n_d), np.arange(c - n_d, c)])
        b, at = np.arange(c), np.arange(r // 2 + 1)[:, None, None]
        second = (b[None, :, None] * at / fft_size + np.outer(b, d) / c) * (-2 * np.pi)
        cos, sin = np.cos(second), np.sin(second)
        parts = [np.concatenate([cos, sin], 2), np.concatenate([-sin, cos], 2)]
        self._second = np.concatenate(parts, 1).astype(np.float32)  # (r/2 + 1, 2 c, 2 len(d))
        whole = (np.arange(r // 2 + 1)[:, None] + r * d).reshape(-1)
        self._bins: Int64Array = np.minimum(whole, fft_size - whole)  # of each column; some are there twice

    def rows_of(self, weights: Float64Array) -> Float64Array:
        """Rows of `weights` (fft_size / 2 + 1, n), one a bin, as `power` has its columns; zeros where one is back."""
        first = np.unique(self._bins, return_index=True)[1]
        rows = np.zeros((len(self._bins), weights.shape[1]))
        rows[first] = weights[self._bins[first]]
        return rows

    def power(self, windows: Float32Array) -> Float32Array:
        """Windows (n, window_samples), n a multiple of TILE -> squared magnitudes (n, n_columns)."""
        # Sample C a + b of a window is row a, column b. `_first` sums over a, then `_second` over b, one for each c:
        #   samples (n, rows, C)  ->  inner (n, 2 n_c, C): rows 2 c and 2 c + 1 are the real and the imaginary part of c
        #   turned (n / TILE, n_c, TILE, 2 C)  @  _second (n_c, 2 C, 2 n_d)  ->  outer (n / TILE, n_c, TILE, 2 n_d)
        # so that every product has TILE rows, however many windows there are.
        rows, c = self._folded
        n, width = windows.shape
        samples = np.zeros((n, rows * c), np.float32) if width < rows * c else np.empty((n, width), np.float32)
        np.multiply(windows, self._window, out=samples[:, :width])
        inner = np.matmul(self._first, samples.reshape(n, rows, c))
        n_c, _, n_bins = self._second.shape
        turned = inner.reshape(n // TILE, TILE, n_c, 2 * c).transpose(0, 2, 1, 3)
        outer = np.matmul(np.ascontiguousarray(turned), self._second)
        np.square(outer, out=outer)
        half = n_bins // 2
        out = np.empty((n // TILE, TILE, n_c, half), np.float32)
        np.add(outer[..., :half], outer[..., half:], out=out.transpose(0, 2, 1, 3))
        return out.reshape(n, n_c * half)
