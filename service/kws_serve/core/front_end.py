"""Audio windows -> frames -> patches, as the manifest's `FrontEndSpec` says: MFCC, log mel FBANK or raw samples.

The chain, each step left out where the spec does not ask for it (Kaldi's order):
samples x scale - DC -> [raw energy] -> preemphasis -> window -> |FFT| -> [energy] -> mel -> log -> DCT -> c0 -> mean.

Its bits do not depend on how many windows share a call: every step works on tiles of TILE rows. An FFT is in double
precision (NumPy's single precision one is no faster); where few bins of a large one are needed, two products of small
matrices give them in single precision for less (core.spectrum). What follows is float32 sums of positive terms.
"""

from __future__ import annotations

import numpy as np

from kws_serve.core.mel import Float64Array, dct_matrix, mel_weights, window_function
from kws_serve.core.spectrum import TILE, LowSpectrum, suits
from kws_serve.manifest.spec import FrontEndSpec
from kws_serve.messages import Float32Array

BLOCK = 8 * TILE
"""Rows (windows) in one pass: their spectra, 64 x 513 complex numbers of 16 bytes, stay in the second-level cache."""

_KEPT_BYTES = 4 << 20
"""glibc gives a block's arrays back to the system after each pass, and faults them in again, until the process has once
freed something larger (mallopt(3), M_MMAP_THRESHOLD): measured 0.2 to 0.4 ms per audio second."""


class FrontEnd:
    """One model's front end: stateless, vectorised over windows of any streams.

    A frame is what the ring keeps per hop. Without per-patch operations it is the finished feature vector. With
    `peak_normalise` it is `[mel energies (n_mels), c0's energy (0 or 1), the window's absolute peak]`, still linear,
    and `patches` divides by the patch's peak before the logarithm.
    """

    def __init__(self, spec: FrontEndSpec) -> None:
        check_front_end(spec)
        np.empty(_KEPT_BYTES, np.uint8)  # freed at once, never touched
        self.spec = spec
        raw = spec.kind == "raw"
        self.n_coeffs = spec.n_coeffs
        self.lead_samples = int(not raw and spec.preemphasis != 0.0 and spec.preemphasis_scope == "signal")
        self._linear = spec.peak_normalise and not raw  # frames are kept linear, finished per patch
        if raw or spec.mel is None:  # `check_front_end`: every other kind has mel
            self.frame_width = 1
            return
        self._n_mels = spec.mel.n
        self._energy = spec.c0 if spec.kind == "mfcc" and spec.c0 in ("energy", "raw_energy") else ""
        self.frame_width = self._n_mels + bool(self._energy) + 1 if self._linear else self.n_coeffs
        window = window_function(spec.window_function, spec.window_samples, spec.window_periodic)
        self._window = window * spec.sample_scale  # all before the FFT is linear: the scale can wait until here
        weights = mel_weights(spec.mel, spec.fft_size, spec.rate_hz)
        used = np.flatnonzero(weights.any(axis=1))
        self._bins = slice(used[0], used[-1] + 1) if used.size else slice(0, 1)
        self._low: LowSpectrum | None = None
        if self._energy != "energy" and suits(spec.fft_size, self._bins.stop - 1):
            self._low = LowSpectrum(self._window, spec.fft_size, self._bins.stop - 1)
            weights = self._low.rows_of(weights)
        else:
            weights = weights[self._bins]
        self._mel = (weights * spec.spectrum_scale).astype(np.float32)
        self._dct: Float32Array | None = None
        if spec.kind == "mfcc" and spec.dct is not None:
            dct = dct_matrix(spec.dct, self._n_mels)[:, int(spec.c0 == "none") :]
            self._dct = np.ascontiguousarray(dct, np.float32)

    @property
    def silence(self) -> Float32Array:
        """The frame (frame_width,) of a window of digital zeros."""
        window = 1 if self.spec.kind == "raw" else self.lead_samples + self.spec.window_samples
        return np.asarray(self.frames(np.zeros((1, window), np.float32))[0])

    def frames(self, windows: Float32Array) -> Float32Array:
        """Windows (n, lead_samples + window_samples) in [-1, 1) -> frames (n, frame_width); same bits for any n."""
        if self.spec.kind == "raw":  # scaled once: here, or after the peak's division
            return np.array(windows) if self.spec.peak_normalise else self._scaled(windows)
        # Blocks of BLOCK rows, the last one filled with zeros to a whole tile; what they give is cut off again:
        #   windows  |  BLOCK  |  BLOCK  | rest |         tiles of the rest  | TILE | TILE | ro 0 |
        out = np.empty((len(windows), self.frame_width), np.float32)
        for first in range(0, len(windows), BLOCK):
            rows = windows[first : first + BLOCK]
            tiles = np.zeros((-(-len(rows) // TILE) * TILE, rows.shape[1]))
            tiles[: len(rows)] = rows
            out[first : first + BLOCK] = self._frames(tiles)[: len(rows)]
        return out

    def patches(self, frames: Float32Array) -> Float32Array:
        """Frames (n, n_frames, frame_width) -> patches (n, n_frames, n_coeffs): the per-patch operations.

        The same array where there are none. The peak is that of the samples the patch's windows cover; a silent
        patch (peak 0) stays as it is.
        """
        spec = self.spec
        if spec.peak_normalise:
            peak = np.abs(frames[..., -1:]).max(axis=1, keepdims=True)
            gain = np.divide(np.float32(1.0), peak, out=np.ones_like(peak), where=peak > 0)
            frames = self._scaled(frames * gain) if spec.kind == "raw" else self._finish_patches(frames, gain)
        if spec.mean_subtract:
            frames = frames - _mean_over_time(frames)
        return frames

    def _scaled(self, windows: Float32Array) -> Float32Array:
        return np.asarray(windows * np.float32(self.spec.sample_scale), np.float32)

    def _frames(self, tiles: Float64Array) -> Float32Array:
        """One block (a multiple of TILE rows, lead + window samples)."""
        spec = self.spec
        n = len(tiles)
        peak = np.abs(tiles[:, self.lead_samples :]).max(axis=1) if self._linear else None
        if spec.remove_dc:
            tiles -= tiles[:, self.lead_samples :].mean(axis=1, keepdims=True)
        energy: Float64Array | None = None
        if self._energy == "raw_energy":
            scaled = tiles[:, self.lead_samples :] * spec.sample_scale
            energy = (scaled * scaled).sum(axis=1)
        if self._low is not None:
            power = self._low.power(self._emphasised(tiles).astype(np.float32))
        else:
            spectrum = np.fft.rfft(self._emphasised(tiles) * self._window, spec.fft_size)
            if self._energy == "energy":
                whole = np.square(spectrum.real) + np.square(spectrum.imag)
                energy = (np.sqrt(whole) if spec.spectrum == "magnitude" else whole).sum(axis=1) * spec.spectrum_scale
            parts = spectrum.view(np.float64)[:, 2 * self._bins.start : 2 * self._bins.stop].astype(np.float32)
            np.square(parts, out=parts)
            power = parts[:, ::2] + parts[:, 1::2]
        if spec.spectrum == "magnitude":
            np.sqrt(power, out=power)
        mel = _tiled_product(power, self._mel)
        columns = [mel]
        if energy is not None:
            columns.append(energy.astype(np.float32)[:, None])
        if peak is None:
            return self._finish(mel, columns[1] if energy is not None else None)
        columns.append(peak.astype(np.float32)[:, None])
        return np.concatenate(columns, axis=1).reshape(n, self.frame_width)

    def _emphasised(self, tiles: Float64Array) -> Float64Array:
        """y[n] = x[n] - a x[n-1], (n_rows, window_samples); without a lead sample x[-1] is x[0], as in Kaldi."""
        a = self.spec.preemphasis
        if a == 0.0:
            return tiles
        if self.lead_samples:
            return np.asarray(tiles[:, 1:] - a * tiles[:, :-1])
        emphasised = tiles.copy()
        emphasised[:, 1:] -= a * tiles[:, :-1]
        emphasised[:, 0] *= 1.0 - a
        return emphasised

    def _finish(self, mel: Float32Array, energy: Float32Array | None) -> Float32Array:
        """Linear mel (n, n_mels), n a multiple of TILE, and energy (n, 1) -> features (n, n_coeffs)."""
        features = self._log(mel)
        if self._dct is not None:
            features = _tiled_product(features, self._dct)
        if energy is not None:
            features[:, :1] = self._log(energy)
        return features

    def _log(self, energies: Float32Array) -> Float32Array:
        log = self.spec.log
        floored = np.maximum(energies, np.float32(log.floor)) + np.float32(log.offset)
        with np.errstate(divide="ignore"):  # floor 0 and offset 0 ask for -inf at digital silence
            return np.asarray(np.log(floored), np.float32)

    def _finish_patches(self, frames: Float32Array, gain: Float32Array) -> Float32Array:
        """Linear frames (n, n_frames, frame_width) and 1 / peak (n, 1, 1) -> features (n, n_frames, n_coeffs)."""
        n, n_frames, _ = frames.shape
        spectral_gain = gain if self.spec.spectrum == "magnitude" else gain * gain
        n_rows = -(-n * n_frames // TILE) * TILE
        mel = np.zeros((n_rows, self._n_mels), np.float32)
        mel[: n * n_frames] = (frames[..., : self._n_mels] * spectral_gain).reshape(-1, self._n_mels)
        energy = None
        if self._energy:
            energy_gain = gain * gain if self._energy == "raw_energy" else spectral_gain
            energy = np.zeros((n_rows, 1), np.float32)
            energy[: n * n_frames] = (frames[..., self._n_mels, None] * energy_gain).reshape(-1, 1)
        return self._finish(mel, energy)[: n * n_frames].reshape(n, n_frames, self.n_coeffs)


def _tiled_product(rows: Float32Array, matrix: Float32Array) -> Float32Array:
    """rows (n, i) @ matrix (i, j) for n a multiple of TILE, one product of TILE rows at a time."""
    tiles = rows.reshape(-1, TILE, rows.shape[1])
    return np.asarray(np.matmul(tiles, matrix).reshape(-1, matrix.shape[1]))


def _mean_over_time(patches: Float32Array) -> Float32Array:
    """Mean (n, 1, n_coeffs) of patches (n, n_frames, n_coeffs): one product of one fixed shape per patch."""
    n_frames = patches.shape[1]
    weights = np.full((1, n_frames), 1.0 / n_frames)
    return np.asarray(np.matmul(weights, patches.astype(np.float64)), np.float32)


def check_front_end(spec: FrontEndSpec) -> None:
    """Raise ValueError naming the first field of `spec` that no front end can have: field, found, wanted."""
    if spec.kind == "raw":
        _require("window_samples", spec.window_samples, "1 (raw)", spec.window_samples == 1)
        _require("hop_samples", spec.hop_samples, "1 (raw)", spec.hop_samples == 1)
        return
    _require("window_samples", spec.window_samples, ">= 1", spec.window_samples >= 1)
    _require("hop_samples", spec.hop_samples, ">= 1", spec.hop_samples >= 1)
    wanted = f"even, >= window_samples ({spec.window_samples})"
    _require("fft_size", spec.fft_size, wanted, spec.fft_size >= spec.window_samples and spec.fft_size % 2 == 0)
    _require("preemphasis", spec.preemphasis, "0 to 1", 0.0 <= spec.preemphasis <= 1.0)
    _require("log.floor", spec.log.floor, ">= 0", spec.log.floor >= 0.0)
    mel = spec.mel
    if mel is None:
        raise ValueError(f"mel: found nothing, wanted a filter bank for kind {spec.kind!r}")
    _require("mel.n", mel.n, ">= 1", mel.n >= 1)
    nyquist_hz = spec.rate_hz / 2
    band = f"[{mel.f_min_hz}, {mel.f_max_hz}]"
    inside = 0.0 <= mel.f_min_hz < mel.f_max_hz <= nyquist_hz
    _require("mel.f_min_hz and mel.f_max_hz", band, f"rising within [0, {nyquist_hz}]", inside)
    if spec.kind == "mfcc":
        if spec.dct is None:
            raise ValueError("dct: found nothing, wanted one for kind 'mfcc'")
        least = 2 if spec.c0 == "none" else 1
        _require("dct.n", spec.dct.n, f"{least} to mel.n ({mel.n})", least <= spec.dct.n <= mel.n)
        _require("dct.lifter", spec.dct.lifter, ">= 0", spec.dct.lifter >= 0)


def _require(field: str, found: object, wanted: str, holds: bool) -> None:
    if not holds:
        raise ValueError(f"{field}: found {found}, wanted {wanted}")
