"""Speech by free synthesisers, run as programs: espeak-ng and flite (Debian packages of those names; no MBROLA).

A voice is text: `espeak-ng ACCENT+VARIANT` or `flite NAME`. The same programs and seed give the same samples.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import dataclass

import numpy as np
import soundfile
from numpy.random import Generator

from kws_models.data.audio_cache import at_rate
from kws_serve.messages import Int16Array, KwsError

ESPEAK, FLITE = "espeak-ng", "flite"
_LEAST_BYTES = 1000  # of a wav in which something is said: a header and 20 to 30 ms


@dataclass(frozen=True)
class Piece:
    """About a minute of one voice."""

    voice: str
    samples: Int16Array  # (n,), 16 kHz


def installed(*programs: str) -> bool:
    """Whether one of the `programs` is there; without a name, any synthesiser."""
    return any(shutil.which(program) for program in programs or (ESPEAK, FLITE))


def versions() -> str:
    """The synthesisers and their versions, for the record."""
    found = []
    for command in ((ESPEAK, "--version"), (FLITE, "--version")):
        if installed(command[0]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            found.append((done.stdout + done.stderr).strip().splitlines()[0].split("Data at")[0].strip())
    return "; ".join(found)


def spoken(rng: Generator, voice: str, text: str) -> Int16Array:
    """`text` at 16 kHz by a voice as `espeak-ng ACCENT+VARIANT` or `flite NAME`. Raises KwsError if it says nothing."""
    engine, name = voice.split(" ", 1)
    if engine == FLITE:
        stretch = f"duration_stretch={rng.uniform(0.85, 1.25):.2f}"
        command = [FLITE, "-voice", name, "--setf", stretch, "-t", text, "-o", "/dev/stdout"]
    else:
        rate, pitch = str(int(rng.integers(120, 210))), str(int(rng.integers(25, 75)))
        command = [ESPEAK, "-v", name, "-s", rate, "-p", pitch, "--stdout", text]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode or len(done.stdout) < _LEAST_BYTES:
        raise KwsError(f"{' '.join(command[:3])}: {done.stderr.decode(errors='replace').strip() or 'gave no audio'}")
    samples, rate_hz = soundfile.read(io.BytesIO(_with_length(done.stdout)), dtype="int16")
    return at_rate(np.asarray(samples, np.int16), rate_hz, 16_000)


def _with_length(wav: bytes) -> bytes:
    """A wav written to a pipe says it is empty or endless: the length put in.

    ... b"data" | 4 bytes: length of what follows, little-endian | samples to the end
                ^ at
    """
    at = wav.find(b"data") + 4
    return wav[:at] + (len(wav) - at - 4).to_bytes(4, "little") + wav[at + 4 :]
