"""Published log-mel features of further clips, brought to our own front end's scale.

`coefficients.npz`: int16 as `low` and `high` byte (49, 40, clips), the orthonormal two-dimensional DCT of
0.5 ln(mel power). `index.csv`: column, word, speaker, n, validation. They are approximate, so a straight line per band
is fitted on clips that exist both as features and as audio.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kws_models.data.audio_cache import Audio
from kws_models.data.csv_table import read_table
from kws_models.data.features import PatchMaker, first_second
from kws_models.data.recordings import DataError, Recording
from kws_serve.manifest.spec import FrontEndSpec
from kws_serve.messages import Float32Array

N_FRAMES, N_MELS = 49, 40  # of a clip of one second, as published
PACK_HOP_MS, _MIDDLE_MS = 20.0, 20.0  # frame 0: two 30 ms windows 10 ms apart, so their middle is at 20 ms
SAME_CLIP_CORRELATION = 0.9  # below it the two are different clips: older collections number them otherwise
_FIT_CLIPS = 1500  # for 40 straight lines: some 70,000 frames
_LEAST_FIT_CLIPS = 50  # below it a few odd clips would tilt the lines
_SILENT_LOG = -20.0  # nepers: log mel of digital silence, -27.6, and of what rounds to it


@dataclass(frozen=True)
class PackEntry:
    """One clip of the pack."""

    column: int
    folder: str  # its word
    source: str  # its speaker
    number: int

    @property
    def stem(self) -> str:
        """The name its audio has in the Speech Commands layout."""
        return f"{self.source}_nohash_{self.number}"


def read_index(folder: Path) -> list[PackEntry]:
    """The entries of index.csv, [] where there is no pack."""
    if not (folder / "index.csv").is_file():
        return []
    rows = read_table(folder / "index.csv", ("column", "word", "speaker", "n"))
    return [PackEntry(int(row["column"]), row["word"], row["speaker"], int(row["n"])) for row in rows]


def read_log_mels(folder: Path, columns: list[int]) -> Float32Array:
    """Features (len(columns), N_FRAMES, N_MELS) as published: 0.5 ln(mel power)."""
    packed = np.load(folder / "coefficients.npz")
    low, high = packed["low"][:, :, columns], packed["high"][:, :, columns]
    if low.shape[:2] != (N_FRAMES, N_MELS):
        raise DataError(f"{folder}: found {low.shape[:2]} coefficients a clip, wanted {(N_FRAMES, N_MELS)}")
    return np.ascontiguousarray(maps_of(low, high))


def maps_of(low: npt.NDArray[np.uint8], high: npt.NDArray[np.int8], step: float = 1.0) -> Float32Array:
    """Maps (n, n_frames, n_mels) of rounded coefficients (n_frames, n_mels, n), `step` apart, by their two bytes."""
    coefficients = (high.astype(np.int16) * 256 + low) * np.float32(step)
    time, mel = dct_basis(low.shape[0]), dct_basis(low.shape[1])
    return np.asarray(np.einsum("kt,kmc,mf->ctf", time, coefficients, mel, optimize=True), np.float32)


def frame_line(spec: FrontEndSpec) -> tuple[float, float]:
    """(a, b): a front end's frame t stands where the pack's frame a * t + b does."""
    # middles of windows:  ours  t * hop + window / 2        the pack's  a frame each 20 ms from _MIDDLE_MS on
    ms = 1000 / spec.rate_hz  # a sample
    return spec.hop_samples * ms / PACK_HOP_MS, (spec.window_samples * ms / 2 - _MIDDLE_MS) / PACK_HOP_MS


def at_frames(values: Float32Array, n_frames: int, line: tuple[float, float]) -> Float32Array:
    """Pack frames (n, N_FRAMES, N_MELS) read at a front end's `n_frames` by linear interpolation."""
    at = np.clip(line[0] * np.arange(n_frames) + line[1], 0, N_FRAMES - 1)
    below = np.minimum(at.astype(np.int64), N_FRAMES - 2)
    share = (at - below)[:, None]
    return np.asarray(values[:, below] * (1 - share) + values[:, below + 1] * share, np.float32)


def fit_bands(
    folder: Path, entries: list[PackEntry], recordings: list[Recording], audio: Audio, log_mel: PatchMaker
) -> tuple[Float32Array, Float32Array, int]:
    """Slope and offset per band (N_MELS,): our log mel = slope * published + offset; and the clips it rests on.

    Raises DataError with fewer than _LEAST_FIT_CLIPS such clips.
    """
    index = {(r.folder, r.path.stem): i for i, r in enumerate(recordings)}
    both = [(e.column, index[e.folder, e.stem]) for e in entries if (e.folder, e.stem) in index]
    both = both[:: max(1, len(both) // _FIT_CLIPS)]
    if not both:
        raise DataError(f"{folder}: found no clip that also exists as audio, wanted some to fit the scale")
    ours = log_mel.frames(np.stack([first_second(audio.clip(i)) for _, i in both]))[:, : log_mel.n_frames]
    line = frame_line(log_mel.spec)
    published = at_frames(read_log_mels(folder, [column for column, _ in both]), ours.shape[1], line)
    x, y = (a.reshape(len(both), -1) - a.reshape(len(both), -1).mean(1, keepdims=True) for a in (published, ours))
    correlation = (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1) + 1e-9)
    same = correlation > SAME_CLIP_CORRELATION
    if same.sum() < _LEAST_FIT_CLIPS:
        raise DataError(
            f"{folder}: found {same.sum()} clips alike in features and audio, wanted at least {_LEAST_FIT_CLIPS}"
        )
    x, y = (a[same].reshape(-1, N_MELS) for a in (published, ours))
    keep = y.min(1) > _SILENT_LOG  # frames of digital silence say nothing about the scale
    x, y = x[keep], y[keep]
    slope = ((x - x.mean(0)) * (y - y.mean(0))).sum(0) / ((x - x.mean(0)) ** 2).sum(0)
    return slope.astype(np.float32), (y.mean(0) - slope * x.mean(0)).astype(np.float32), int(same.sum())


def dct_basis(n: int) -> Float32Array:
    """Orthonormal DCT-II (k, n): coefficients = basis @ values, values = basis.T @ coefficients."""
    k = np.arange(n)
    basis = np.sqrt(2.0 / n) * np.cos(np.pi * k[:, None] * (k + 0.5) / n)
    basis[0] *= np.sqrt(0.5)
    return np.asarray(basis, np.float32)
