"""Features for training and evaluation: the service's own front end, over whole clips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from kws_models.zoo.architectures import Architecture
from kws_serve.core.front_end import FrontEnd
from kws_serve.core.mel import dct_matrix, hz_to_mel
from kws_serve.manifest.consistency import parse_front_end
from kws_serve.manifest.spec import FrontEndSpec, MelSpec
from kws_serve.messages import Float32Array, Int16Array

_UNIT = np.float32(1 / 32768)  # of int16: to [-1, 1), as the engine scales


class PatchMaker:
    """Samples of one patch's length -> the patch, for many clips at once."""

    def __init__(self, front_end: FrontEndSpec, n_frames: int) -> None:
        self.spec = front_end
        self.n_frames = n_frames
        self.patch_samples = front_end.window_samples + (n_frames - 1) * front_end.hop_samples
        self._front_end = FrontEnd(front_end)
        if self._front_end.lead_samples or front_end.pad != "none":
            raise ValueError("front_end: found preemphasis_scope signal or pad centre, wanted frame and none")

    def patches(self, samples: Int16Array) -> Float32Array:
        """Samples (n, >= patch_samples) -> patches (n, n_frames, n_coeffs) of each row's first samples."""
        return self._front_end.patches(self.frames(samples[:, : self.patch_samples]))

    def frames(self, samples: Int16Array) -> Float32Array:
        """Samples (n, n_samples) -> all frames (n, n_windows, frame_width)."""
        scaled = samples.astype(np.float32) * _UNIT
        windows = sliding_window_view(scaled, self.spec.window_samples, axis=1)[:, :: self.spec.hop_samples]
        n, n_windows, window = windows.shape
        frames = self._front_end.frames(windows.reshape(n * n_windows, window))
        return frames.reshape(n, n_windows, -1)

    def sliding_patches(self, samples: Int16Array, frames_per_hop: int) -> Float32Array:
        """One clip (n_samples,) >= patch_samples -> patches (k, n_frames, n_coeffs), one each `frames_per_hop`."""
        # frames (n_windows, frame_width); windows over them (k, frame_width, n_frames), the new axis last: turned
        frames = self.frames(samples[None])[0]
        windows = sliding_window_view(frames, self.n_frames, axis=0)[::frames_per_hop]
        return self._front_end.patches(np.ascontiguousarray(windows.transpose(0, 2, 1)))


def bands_maker(front_end: FrontEndSpec, n_frames: int) -> PatchMaker:
    """The front end up to the logarithm of its mel bands."""
    return PatchMaker(replace(front_end, kind="fbank", dct=None, c0="none"), n_frames)


def mel_step(mel: MelSpec) -> float:
    """Mel from band to band."""
    low, high = hz_to_mel(np.array([mel.f_min_hz, mel.f_max_hz], np.float64), mel.formula)
    return float((high - low) / (mel.n + 1))


def behind_bands(front_end: FrontEndSpec) -> Float32Array:
    """What makes features of log-mel bands (n_mels, n_coeffs): the DCT, or what leaves them as they are."""
    assert front_end.mel is not None
    n = front_end.mel.n
    return (dct_matrix(front_end.dct, n) if front_end.dct else np.eye(n)).astype(np.float32)


def patch_maker(architecture: Architecture) -> PatchMaker:
    """The architecture's own."""
    return PatchMaker(parse_front_end(dict(architecture.front_end)), architecture.n_frames)


def first_second(samples: Int16Array, rate_hz: int = 16_000, n_samples: int = 0) -> Int16Array:
    """The first second, right-padded with zeros; of a patch of more samples, in the middle of `n_samples`."""
    # n_samples  |0 0 0 0 0|-- a second --|0 0 0 0 0|      longer than a second: as much before as after
    #                      ^ first
    out = np.zeros(max(rate_hz, n_samples), np.int16)
    first = (len(out) - rate_hz) // 2
    kept = samples[:rate_hz]
    out[first : first + len(kept)] = kept
    return out
