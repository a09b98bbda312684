"""`training_recordings.txt`: what a model learnt from, recognised again by the digest of the PCM.

A line is `<SHA-1 of the 16-bit PCM> <path>`; a recording whose file is lossy has two, of the original and of what the
file decodes to. `features <word>/<speaker>_nohash_<n>` names a clip of which only published features were used: it is
recognised by that name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kws_models.data.audio_cache import read_pcm
from kws_models.data.recordings import Recording
from kws_serve.messages import Int16Array, KwsError

FILE = "training_recordings.txt"
_FEATURES = "features"


@dataclass(frozen=True)
class TrainingList:
    """Digests and names of what was trained on."""

    digests: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()

    def has(self, recording: Recording, samples: Int16Array) -> bool:
        """True if this recording, whose file decodes to `samples` at the file's own rate, was trained on."""
        digest = pcm_digest(samples)
        name = f"{recording.folder}/{recording.path.stem}"
        return digest in self.digests or recording.sha1_pcm in self.digests or name in self.names


def pcm_digest(samples: Int16Array) -> str:
    """SHA-1 (hex) of little-endian 16-bit PCM."""
    return hashlib.sha1(samples.astype("<i2").tobytes()).hexdigest()


def read_training_list(path: Path) -> TrainingList:
    """The list; empty where there is none. Raises KwsError for a line that is none of ours."""
    digests, names = set(), set()
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        first, _, rest = line.partition(" ")
        if first == _FEATURES and rest:
            names.add(rest)
        elif len(first) == 40 and set(first) <= set("0123456789abcdef"):
            digests.add(first)
        else:
            raise KwsError(f"{path}:{number}: found {line[:60]!r}, wanted a SHA-1 and a path, or features and a name")
    return TrainingList(frozenset(digests), frozenset(names))


def training_lines(recordings: Iterable[Recording], feature_clips: Iterable[str], root: Path) -> bytes:
    """The file's content for recordings under `root` and clips known by features only."""
    lines = ["# SHA-1 of 16-bit PCM (of the original; for lossy files also as decoded), path"]
    for recording in recordings:
        path = recording.path.relative_to(root).as_posix()
        decoded = pcm_digest(read_pcm(recording.path)[0])
        lines += [f"{digest} {path}" for digest in dict.fromkeys((recording.sha1_pcm or decoded, decoded))]
    lines += [f"{_FEATURES} {name}" for name in sorted(feature_clips)]
    return ("\n".join(lines) + "\n").encode()
