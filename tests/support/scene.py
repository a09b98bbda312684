"""Audio scenes for tests and benchmarks, laid out from recordings: known words and events on a noise bed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

RATE_HZ = 16000


@dataclass(frozen=True)
class Placed:
    """A clip in a scene."""

    label: str
    start_s: float
    end_s: float


def load(path: Path) -> np.ndarray:
    """Its first channel as int16 at 16 kHz."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples[:, 0] if rate == RATE_HZ else soxr.resample(samples[:, 0], rate, RATE_HZ)
    return np.clip(np.round(mono * 32768), -32768, 32767).astype(np.int16)


def validation_clips(data: Path, words: set[str] | None = None) -> list[Path]:
    """Clips of the validation speakers, in a fixed random order."""
    listed = (data / "speech_commands" / "validation_list.txt").read_text().split()
    root = data / "speech_commands"
    paths = [root / name for name in sorted(listed) if words is None or name.split("/")[0] in words]
    paths = [p for p in paths if p.exists()]
    random.Random(0).shuffle(paths)
    return paths


def noise_bed(data: Path) -> np.ndarray:
    """A long background recording."""
    return load(sorted((data / "speech_commands" / "_background_noise_").iterdir())[0])


def lay(
    clips: list[tuple[str, np.ndarray]], noise: np.ndarray, seconds: int, seed: int
) -> tuple[np.ndarray, list[Placed]]:
    """Clips (label, samples) drawn at random on a noise bed 18 dB down, 0.5-1.5 s apart: half of it speech."""
    rng = random.Random(seed)
    n = seconds * RATE_HZ
    at = rng.randrange(max(1, len(noise) - n))
    audio = np.resize(noise[at:], n).astype(np.int32) // 8
    placed = []
    position = rng.randrange(RATE_HZ // 2, RATE_HZ)
    while True:
        label, clip = clips[rng.randrange(len(clips))]
        if position + len(clip) + RATE_HZ // 2 > n:
            break
        audio[position : position + len(clip)] += clip
        placed.append(Placed(label, position / RATE_HZ, (position + len(clip)) / RATE_HZ))
        position += len(clip) + rng.randrange(RATE_HZ // 2, RATE_HZ * 3 // 2)
    return np.clip(audio, -32768, 32767).astype(np.int16), placed
