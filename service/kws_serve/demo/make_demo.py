"""Make the demo audio: synthetic speech (flite, espeak-ng) and synthetic sounds on a quiet noise bed.

    python service/kws_serve/demo/make_demo.py      writes demo.opus and labels.json beside itself

Debian packages flite and espeak-ng. Seeded: the same programs give the same file. The voices below are kept out of
training; nothing here is anybody's recording.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

RATE_HZ = 16000
FLITE_VOICES = ("slt", "rms")
ESPEAK_VOICES = ("en-us",)
SCRIPT: tuple[tuple[str, str, float], ...] = (
    ("yes", "slt", 0.8),
    ("no", "rms", 0.7),
    ("stop", "slt", 0.7),
    ("go", "rms", 0.7),
    ("left", "slt", 0.7),
    ("right", "rms", 0.7),
    ("window", "slt", 0.7),
    ("up", "rms", 0.7),
    ("down", "slt", 0.7),
    ("on", "rms", 0.7),
    ("off", "slt", 0.7),
    ("glassbreak", "", 1.5),
    ("yes", "en-us", 1.5),
    ("gunshot", "", 1.5),
    ("no", "slt", 1.5),
    ("babycry", "", 1.5),
    ("stop", "rms", 1.5),
)
"""(label or word, voice or empty for a sound, pause before it in s)."""

Samples = npt.NDArray[np.float64]


def spoken(word: str, voice: str) -> Samples:
    """One word, 16 kHz, peak 0.4."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "word.wav"
        if voice in FLITE_VOICES:
            command = ["flite", "-voice", voice, "--setf", "duration_stretch=1.15", "-t", word, "-o", str(path)]
        else:
            command = ["espeak-ng", "-v", voice, "-s", "130", "-w", str(path), word]
        subprocess.run(command, check=True, capture_output=True)
        samples, rate = soundfile.read(path)
    samples = soxr.resample(samples, rate, RATE_HZ)
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    samples = samples[max(0, loud[0] - 800) : loud[-1] + 800]
    return np.asarray(0.4 * samples / np.abs(samples).max())


def shattering(rng: np.random.Generator) -> Samples:
    """Breaking glass: a burst, then a Poisson cascade of shards, each a few decaying inharmonic modes."""
    n = int(1.4 * RATE_HZ)
    t = np.arange(n) / RATE_HZ
    sound = rng.normal(0, 1, n) * np.exp(-t / 0.03)
    for at_s in np.cumsum(rng.exponential(0.012, 90)):
        at = int(at_s * RATE_HZ)
        if at >= n - 400:
            break
        for f in rng.uniform(1800, 7500, 4):
            rest = t[: n - at]
            sound[at:] += rng.uniform(0.1, 0.5) * np.exp(-at_s) * np.sin(2 * np.pi * f * rest) * np.exp(-rest / 0.025)
    return np.asarray(0.6 * sound / np.abs(sound).max())


def gunshot(rng: np.random.Generator) -> Samples:
    """A shot: an instant blast of noise, a low thump, a reverberant tail."""
    n = int(1.0 * RATE_HZ)
    t = np.arange(n) / RATE_HZ
    noise = rng.normal(0, 1, n)
    smooth = np.convolve(noise, np.ones(8) / 8, "same")
    thump = np.sin(2 * np.pi * 90 * t) * np.exp(-t / 0.05)
    sound = noise * np.exp(-t / 0.008) + 1.5 * smooth * np.exp(-t / 0.15) + thump
    return np.asarray(0.8 * sound / np.abs(sound).max())


def crying(rng: np.random.Generator) -> Samples:
    """A baby's cry: four breaths of a gliding harmonic tone with its formants."""
    parts = []
    for _ in range(4):
        n = int(rng.uniform(0.7, 0.95) * RATE_HZ)
        t = np.linspace(0, 1, n)
        f0 = 420 + 120 * np.sin(np.pi * t) - 60 * t + rng.normal(0, 1, n).cumsum() * 0.05
        phase = 2 * np.pi * np.cumsum(f0) / RATE_HZ
        voice = np.zeros(n)
        for k in range(1, 14):
            f = k * f0.mean()
            gain = np.exp(-(((f - 1100) / 600) ** 2)) + 0.6 * np.exp(-(((f - 3200) / 800) ** 2)) + 0.15
            voice += gain * np.sin(k * phase)
        parts += [voice * np.sin(np.pi * t) ** 0.4 + rng.normal(0, 0.05, n), np.zeros(int(0.25 * RATE_HZ))]
    sound = np.concatenate(parts)
    return np.asarray(0.5 * sound / np.abs(sound).max())


def main() -> None:
    """Write demo.opus and labels.json."""
    rng = np.random.default_rng(2026)
    sounds = {"glassbreak": shattering, "gunshot": gunshot, "babycry": crying}
    parts: list[Samples] = []
    labels = []
    at = 0
    for label, voice, pause_s in SCRIPT:
        sound = spoken(label, voice) if voice else sounds[label](rng)
        pause = np.zeros(int(pause_s * RATE_HZ))
        at += len(pause)
        end = at + len(sound)
        labels.append({"label": label, "start_s": round(at / RATE_HZ, 3), "end_s": round(end / RATE_HZ, 3)})
        at = end
        parts += [pause, sound]
    audio = np.concatenate([*parts, np.zeros(2 * RATE_HZ)])
    audio += np.convolve(rng.normal(0, 0.002, len(audio)), [0.3, 0.4, 0.3], "same")
    here = Path(__file__).parent
    soundfile.write(here / "demo.opus", np.clip(audio, -1, 1), RATE_HZ, format="OGG", subtype="OPUS")
    (here / "labels.json").write_text(json.dumps(labels, indent=1) + "\n")


if __name__ == "__main__":
    main()
