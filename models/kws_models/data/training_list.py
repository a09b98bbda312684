"""`training_recordings.txt`: what a model learnt from, recognised again by digests.

A line names one file of keys: `<SHA-256 of the file>.bin <fold> <recordings> <clips known by features>`, a file for
each fold, or several: models that learnt from the same recordings share their files, and one that learnt from more
names theirs and one of the rest. Such a file lies in the model's folder, or in the folder `recordings` beside the
shipped models. It holds keys (key_file.py), which are the beginnings of digests:

- the SHA-1 of a recording's first channel as 16-bit PCM at its own rate, as Decoder.pcm16 gives it: floating point and
  what is finer than 16 bits scaled by 32768 and rounded, all else as libsndfile decodes it to 16 bits; a recording
  whose file is lossy has two, of the original and of what the file decodes to;
- the SHA-1 of `<word>/<speaker>_nohash_<n>`, the name of a clip of which only published features were used.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from kws_models.data.audio_cache import read_pcm
from kws_models.data.key_file import key_of, pack_keys, unpack_keys
from kws_models.data.recordings import Recording, described, fold_of
from kws_serve.manifest.folder import shipped_models_dir
from kws_serve.messages import Int16Array, KwsError

FILE = "training_recordings.txt"
SHARED = "recordings"  # beside the shipped models
# A line may name nothing but a file of this shape, so that it cannot lead out of the two folders.
_LINE = re.compile(r"([0-9a-f]{64})\.bin ([0-9]{1,4}) ([0-9]{1,9}) ([0-9]{1,9})", re.ASCII)
_HEAD = "# file of the keys, fold, recordings, clips of which only published features were used"
_MADE_BY = "kws-models export writes it"


@dataclass(frozen=True)
class TrainingList:
    """Keys of what was trained on, and how many recordings and clips known by features they stand for."""

    keys: frozenset[int] = frozenset()
    n_recordings: int = 0
    n_features: int = 0

    def has(self, recording: Recording, samples: Int16Array) -> bool:
        """True if this recording, whose file decodes to `samples` at the file's own rate, was trained on.

        Raises KwsError for a digest in its manifest that is none.
        """
        decoded = pcm_digest(samples)
        name = _name_digest(f"{recording.folder}/{recording.path.stem}")
        return any(key_of(digest) in self.keys for digest in (decoded, _original_digest(recording) or decoded, name))


@dataclass(frozen=True)
class ListFiles:
    """What is to be written: the content of FILE, and of the files of keys by name."""

    listed: bytes
    keys: dict[str, bytes]


def pcm_digest(samples: Int16Array) -> str:
    """SHA-1 (hex) of little-endian 16-bit PCM, one channel at the file's own rate."""
    return hashlib.sha1(samples.astype("<i2").tobytes()).hexdigest()


def read_training_list(folder: Path) -> TrainingList:
    """The list of the model in `folder`; empty where it has none.

    Raises KwsError for a line that is none of ours, and for a file of keys that is missing or not the named one.
    """
    path = folder / FILE
    keys: set[int] = set()
    n_recordings = n_features = 0
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            wanted = "<SHA-256>.bin <fold> <recordings> <clips known by features>"
            raise KwsError(f"{path}:{number}: found {line[:60]!r}, wanted {wanted}; {_MADE_BY}")
        keys.update(_read_keys(path, found[1]))
        n_recordings += int(found[3])
        n_features += int(found[4])
    return TrainingList(frozenset(keys), n_recordings, n_features)


def _read_keys(path: Path, digest: str) -> Collection[int]:
    """The keys in the file of this SHA-256, beside the list at `path` or shared. Raises KwsError."""
    places = (path.parent, shipped_models_dir() / SHARED)
    files = [place / f"{digest}.bin" for place in places]
    file = next((f for f in files if f.is_file()), None)
    if file is None:
        where = " or ".join(map(str, places))
        raise KwsError(f"{path}: found no {digest}.bin, wanted it in {where}; {_MADE_BY}")
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise KwsError(f"{file}: found SHA-256 {found}, wanted {digest} as {path} says; {_MADE_BY}")
    try:
        return unpack_keys(content)
    except ValueError as error:
        raise KwsError(f"{file}: {error}; {_MADE_BY}") from error


def training_list(recordings: Iterable[Recording], feature_clips: Iterable[str]) -> ListFiles:
    """The files for recordings and clips known by features only (`<word>/<stem>`). Raises KwsError."""
    heard: dict[int, list[Recording]] = {}
    named: dict[int, list[str]] = {}
    for recording in recordings:
        heard.setdefault(recording.fold, []).append(recording)
    for clip in feature_clips:
        named.setdefault(fold_of(described(Path(clip), {}).source), []).append(clip)
    lines, files = [_HEAD], {}
    for fold in sorted({*heard, *named}):
        mine, names = heard.get(fold, []), named.get(fold, [])
        digests = {digest for recording in mine for digest in _pcm_digests(recording)} | set(map(_name_digest, names))
        content = pack_keys(map(key_of, digests))
        name = f"{hashlib.sha256(content).hexdigest()}.bin"
        files[name] = content
        lines.append(f"{name} {fold} {len(mine)} {len(names)}")
    return ListFiles(("\n".join(lines) + "\n").encode(), files)


def keys_folder(out: Path) -> Path:
    """Where the files of keys of a model folder `out` go: shared among the shipped models, else `out` itself."""
    shipped = shipped_models_dir()
    return shipped / SHARED if out.resolve().parent == shipped.resolve() else out


def _pcm_digests(recording: Recording) -> set[str]:
    decoded = pcm_digest(read_pcm(recording.path)[0])
    return {_original_digest(recording) or decoded, decoded}


def _original_digest(recording: Recording) -> str:
    """What its manifest says that a lossy file was made from; empty where it says nothing. Raises KwsError."""
    digest = recording.sha1_pcm
    if digest and not re.fullmatch("[0-9a-f]{40}", digest):
        raise KwsError(f"{recording.path}: found sha1_pcm16 {digest!r} in its manifest, wanted a SHA-1 in hexadecimal")
    return digest


def _name_digest(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()
