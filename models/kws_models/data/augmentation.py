"""Augmentation of many clips at once: shift and speed, noise, gain, rooms in audio; the like in log mel; time masks.

Every function takes its random numbers from the generator it is given: a batch is a function of seed and step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from kws_models.data.audio_cache import Audio
from kws_serve.core.mel import Float64Array
from kws_serve.messages import Float32Array, Int16Array, Int64Array

LOG_FLOOR = np.float32(np.log(1e-12))  # of log mel: what the front ends' own floor of 1e-12 becomes
_LEAST_POWER = 1e-12  # added to powers before a quotient or a logarithm: digital silence has none
_LEAST_RMS = 1e-3  # of int16's scale, added to a noise's before a quotient: a thousandth of a step
NO_NOISE = -50.0  # nepers: noise as faint adds nothing that float32 could hold
FIRST_HZ, BREAK_HZ, MELS = 20.0, 700.0, 1127.0  # HTK's mel = 1127 ln(1 + f / 700), from 20 Hz on
TILT_NEPERS = 0.25  # standard deviation of a tilt's ends: about 2 dB
FAINT_PERCENT = 5  # of a clip's values, that are below what stands for its surroundings
MASKS = 2  # runs of frames hidden, at most, as SpecAugment's policies have


@dataclass(frozen=True)
class AugmentSpec:
    """Ranges of the augmentation; a pair is drawn from uniformly. A share is of the rows of a batch."""

    shift_ms: float = 100.0
    speed: tuple[float, float] = (0.85, 1.18)
    noise_share: float = 0.8
    snr_db: tuple[float, float] = (-2.0, 30.0)
    gain_db: tuple[float, float] = (-18.0, 6.0)
    mask_share: float = 0.5
    mask_ms: float = 160.0
    room_share: float = 0.1


LEVELS: dict[str, AugmentSpec] = {
    "strong": AugmentSpec(),
    "mild": AugmentSpec(100.0, (0.9, 1.12), 0.6, (5.0, 35.0), (-12.0, 4.0), 0.25, 120.0, 0.03),
    "reference": AugmentSpec(100.0, (1.0, 1.0), 0.8, (5.0, 40.0), (0.0, 0.0), 0.0, 20.0, 0.0),  # shift and noise only
}


def stretched(
    audio: Audio, clips: Int64Array, n_samples: int, speed: Float32Array, start: Float32Array
) -> Float32Array:
    """Rows (n, n_samples) read from clip `clips[i]` at `speed[i]` from its sample `start[i]` on; zeros outside it.

    Linear interpolation; samples keep int16's scale.
    """
    # row i, place t reads the clip at start + speed * t: between its samples `below` and below + 1
    #
    #     clip        x0    x1    x2    x3 ...            lies at starts[clip] ... ends[clip] of all samples
    #                        |--share--|
    #     at = 1.4              ^                         (1 - 0.4) * x1 + 0.4 * x2
    #
    # Outside, both indexes point to the clip's first two samples, and what is read there is replaced by 0.
    at = start[:, None] + speed[:, None] * np.arange(n_samples, dtype=np.float32)
    below = np.floor(at).astype(np.int64)
    share = at - below
    lengths = (audio.ends[clips] - audio.starts[clips])[:, None]
    inside = (below >= 0) & (below < lengths - 1)
    index = np.where(inside, below, 0) + audio.starts[clips][:, None]
    left, right = audio.samples[index], audio.samples[index + 1]
    return np.where(inside, left + share * (right.astype(np.float32) - left), np.float32(0.0)).astype(np.float32)


def segments(rng: Generator, audio: Audio, clips: Int64Array, n_samples: int) -> Float32Array:
    """A random segment (n, n_samples) of each clip; a shorter clip is repeated from a random point."""
    out = np.empty((len(clips), n_samples), np.float32)
    for row, clip in zip(out, clips, strict=True):
        samples = audio.clip(int(clip))
        if len(samples) >= n_samples:
            first = int(rng.integers(0, len(samples) - n_samples + 1))
            row[:] = samples[first : first + n_samples]
        elif len(samples):
            first = int(rng.integers(0, len(samples)))
            row[:] = np.resize(np.roll(samples, -first), n_samples)
        else:
            row[:] = 0.0
    return out


def mixed(rng: Generator, clean: Float32Array, noise: Float32Array, spec: AugmentSpec) -> Float32Array:
    """`clean` (n, n_samples) with `noise` at a random signal-to-noise ratio, in `noise_share` of the rows.

    The ratio is of the rows' RMS over all of their length: rms(clean) / rms(scale * noise) = 10 ** (snr_db / 20).
    """
    n = len(clean)
    ratio = 10.0 ** (rng.uniform(*spec.snr_db, n) / 20.0)
    scale = _rms(clean) / (_rms(noise) + _LEAST_RMS) / ratio
    scale = np.where(rng.random(n) < spec.noise_share, scale, 0.0)
    return clean + noise * scale[:, None].astype(np.float32)


def drawn(rng: Generator, bounds: tuple[float, float], n: int) -> Float64Array:
    """`n` numbers drawn uniformly from between the bounds."""
    return np.asarray(rng.uniform(bounds[0], bounds[1], n))


def with_gain(rng: Generator, samples: Float32Array, gain_db: tuple[float, float]) -> Int16Array:
    """Random gain per row, saturated to int16."""
    gain = 10.0 ** (rng.uniform(*gain_db, len(samples)) / 20.0)
    return to_int16(samples * gain[:, None].astype(np.float32))


def to_int16(samples: Float32Array) -> Int16Array:
    """Nearest int16, saturated."""
    return np.clip(np.rint(samples), -32768, 32767).astype(np.int16)


def _rms(samples: Float32Array) -> Float32Array:
    return np.asarray(np.sqrt(np.mean(samples * samples, axis=1) + 1e-6), np.float32)


@dataclass(frozen=True)
class FramePlace:
    """Where `n_frames` frames to be made stand among others: frame t at `slope` * t + `offset`, `hop_ms` apart."""

    n_frames: int
    slope: float
    offset: float
    hop_ms: float


def warped_log_mel(
    rng: Generator,
    log_mel: Float32Array,
    spec: AugmentSpec,
    shift_ms: tuple[float, float],
    place: FramePlace,
    mel_step: float,
) -> Float32Array:
    """Shift, speed and a gentle tilt of log magnitudes (n, frames, n_mels) -> (n, place.n_frames, n_mels).

    `shift_ms`: drawn from, as far before its place. What lies outside becomes faint. Faster by r: output frame t reads
    t * r, output frequency f reads f / r.
    `mel_step`: mel from band to band (band b stands at 20 Hz's mel plus (b + 1) * mel_step).
    """
    # Output frame t stands where the clip's frame place.slope * t + place.offset would; read faster by `speed`, from
    # the middle outwards, and moved by `shift`:
    #
    #     output frame              0   1   2   3   4   5   6   7   8        middle 4, slope 1, no shift
    #     reads the clip's frame   -4  -2   0   2   4   6   8  10  12        speed 2: half as long, faint outside
    #
    # Faster by r is also higher by r: output band b, at `hz`, reads what the clip has at hz / r.
    n, n_frames, n_mels = log_mel.shape
    speed = drawn(rng, spec.speed, n)
    shift = drawn(rng, shift_ms, n) / place.hop_ms
    middle = (n_frames - 1) / 2
    at = place.slope * np.arange(place.n_frames) + place.offset
    frame = (at - middle) * speed[:, None] + middle + shift[:, None]
    first_mel = MELS * np.log1p(FIRST_HZ / BREAK_HZ)
    hz = BREAK_HZ * np.expm1((first_mel + mel_step * (np.arange(n_mels) + 1)) / MELS)
    band = (MELS * np.log1p(hz / speed[:, None] / BREAK_HZ) - first_mel) / mel_step - 1.0
    out = _interpolated(log_mel, frame, np.clip(band, 0, n_mels - 1))
    floor = np.where(rng.random(n) < 0.5, LOG_FLOOR, np.percentile(log_mel, FAINT_PERCENT, axis=(1, 2)))
    outside = (frame < -0.5) | (frame > n_frames - 0.5)
    out = np.where(outside[:, :, None], floor[:, None, None], out)
    tilt = rng.normal(0.0, TILT_NEPERS, (n, 1)) * np.linspace(-1.0, 1.0, n_mels)
    return np.asarray(out + tilt[:, None, :], np.float32)


def _interpolated(values: Float32Array, row: Float32Array, column: Float32Array) -> Float32Array:
    """Bilinear reading of (n, rows, columns) at fractional rows (n, r) and columns (n, c) -> (n, r, c)."""
    # r0 and c0 are the places above and to the left, at most the last but one: there the share is 1. First along rows
    # for all columns, then along columns:
    #
    #     v[r0, c0] ------- v[r0, c0 + 1]         along = v[r0] * (1 - r_share) + v[r0 + 1] * r_share   (n, r, columns)
    #         |    * row, column   |              out = along[c0] * (1 - c_share) + along[c0 + 1] * c_share
    #     v[r0 + 1, c0] --- v[r0 + 1, c0 + 1]
    n, n_rows, n_columns = values.shape
    row, column = np.clip(row, 0, n_rows - 1), np.clip(column, 0, n_columns - 1)
    r0, c0 = (np.minimum(at.astype(np.int64), size - 2) for at, size in ((row, n_rows), (column, n_columns)))
    r_share, c_share = (row - r0)[:, :, None], (column - c0)[:, None, :]
    item = np.arange(n)[:, None]
    along = values[item, r0] * (1 - r_share) + values[item, r0 + 1] * r_share  # (n, r, columns)
    left = np.take_along_axis(along, c0[:, None, :], 2)
    right = np.take_along_axis(along, c0[:, None, :] + 1, 2)
    return np.asarray(left * (1 - c_share) + right * c_share, np.float32)


def mixed_log_mel(rng: Generator, clean: Float32Array, noise: Float32Array, spec: AugmentSpec) -> Float32Array:
    """Log magnitudes (n, n_frames, n_mels) with noise at a random ratio (powers add), then a random gain.

    Log magnitudes are nepers: x dB = x * ln(10) / 20, and a power is exp(2 * value).
    """
    n = len(clean)
    clean_power, noise_power = (np.exp(2.0 * x).mean((1, 2)) + _LEAST_POWER for x in (clean, noise))
    snr = rng.uniform(*spec.snr_db, n) * np.log(10.0) / 20.0
    level = 0.5 * np.log(clean_power / noise_power) - snr
    level = np.where(rng.random(n) < spec.noise_share, level, NO_NOISE)
    both = 0.5 * np.logaddexp(2.0 * clean, 2.0 * (noise + level[:, None, None]))
    gain = rng.uniform(*spec.gain_db, n) * np.log(10.0) / 20.0
    return np.asarray(np.maximum(both + gain[:, None, None], LOG_FLOOR), np.float32)


def masked(rng: Generator, patches: Float32Array, share: float, most_frames: int) -> Float32Array:
    """Up to MASKS runs of frames replaced by the patch's mean frame, in `share` of the patches (SpecAugment, 2019)."""
    n, n_frames, _ = patches.shape
    out = patches
    for _ in range(MASKS):
        hidden = _runs(rng, n, n_frames, share, most_frames)
        out = np.where(hidden[:, :, None], patches.mean(1, keepdims=True), out)
    return np.asarray(out, np.float32)


def banded(rng: Generator, patches: Float32Array, share: float, most_bands: int) -> Float32Array:
    """A run of mel bands replaced by the patch's mean, in `share` of the patches; for features that are bands."""
    n, _, n_bands = patches.shape
    hidden = _runs(rng, n, n_bands, share, most_bands)
    return np.asarray(np.where(hidden[:, None, :], patches.mean((1, 2), keepdims=True), patches), np.float32)


def _runs(rng: Generator, n: int, length: int, share: float, most: int) -> npt.NDArray[np.bool_]:
    """Rows (n, length): in `share` of them one run of 1 ... `most` places is true."""
    #  place   0 . . . . . . . length          row i is true from first[i] on, width[i] places, within the row
    #                |width|
    width = rng.integers(1, most + 1, n)
    first = rng.integers(0, length - width + 1)
    place = np.arange(length)
    inside = (place >= first[:, None]) & (place < (first + width)[:, None])
    return np.asarray(inside & (drawn(rng, (0.0, 1.0), n) < share)[:, None], bool)
