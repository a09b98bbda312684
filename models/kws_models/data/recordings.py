"""Recordings on disk: which there are, who speaks or where they come from, on which side of a split they belong."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kws_models.data.csv_table import read_table
from kws_models.data.errors import DataError as DataError

N_FOLDS = 5  # a fold holds one speaker in five out: enough of each word to judge, and most are left to learn from
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".opus", ".ogg", ".aif", ".aiff", ".aifc"})
NOISE_FOLDER = "_background_noise_"  # beside the words: long recordings of noise, no label
HARD = "background_hard"  # beside the events: sounds that are easily taken for one, judged as background

_SPEAKER = re.compile(r"^(.+?)_nohash_\d+$")


@dataclass(frozen=True, slots=True)
class Recording:
    """One audio file."""

    path: Path
    folder: str  # the word or event folder it lies in
    source: str  # speaker or recording: what a split must not cut through
    sha1_pcm: str = ""  # of the original 16-bit PCM, where a manifest says it
    licence: str = ""
    repository: str = ""
    provenance: str = ""  # original, claimed

    @property
    def fold(self) -> int:
        """Fold 0 ... N_FOLDS - 1, the same for all recordings of one source."""
        return fold_of(self.source)


def fold_of(source: str) -> int:
    """The fold of a speaker or recording: SHA-1 of its name modulo N_FOLDS, fixed for ever."""
    return int(hashlib.sha1(source.encode()).hexdigest(), 16) % N_FOLDS


def keyword_root(data: Path) -> Path:
    """The folder of the word folders: `data`/speech_commands where it exists, else `data` itself."""
    return data / "speech_commands" if (data / "speech_commands").is_dir() else data


def event_root(data: Path) -> Path:
    """The folder of the event folders: `data`/events where it exists, else `data` itself."""
    return data / "events" if (data / "events").is_dir() else data


def find_recordings(root: Path) -> dict[str, list[Recording]]:
    """Recordings of each folder under `root`, folders and paths sorted. Raises DataError where there are none.

    Facts come from the MANIFEST.csv in `root` or its parent; without one the source is the part of the file's name
    before `_nohash_`, else the whole name.
    """
    if not root.is_dir():
        raise DataError(f"data: found no folder {root}, wanted one with a folder for each label")
    facts = read_manifest(root)
    found: dict[str, list[Recording]] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in AUDIO_SUFFIXES)
        if paths:
            found[folder.name] = [described(path, facts) for path in paths]
    if not found:
        raise DataError(f"data: found no recordings under {root}, wanted <label>/<name>.wav|flac|opus|ogg|aiff")
    return found


def require_folders(found: dict[str, list[Recording]], wanted: tuple[str, ...], root: Path) -> None:
    """Raise DataError naming the folders of `wanted` that are missing or empty."""
    missing = [name for name in wanted if not found.get(name)]
    if missing:
        raise DataError(f"data: found no recordings in {', '.join(missing)} under {root}, wanted some in each")


def described(path: Path, facts: dict[Path, dict[str, str]]) -> Recording:
    """The recording at `path` with what `read_manifest` found about it."""
    row = facts.get(path.resolve(), {})
    match = _SPEAKER.match(path.stem)
    return Recording(
        path=path,
        folder=path.parent.name,
        source=row.get("speaker_or_recording") or (match[1] if match else path.stem),
        sha1_pcm=row.get("sha1_pcm16", ""),
        licence=row.get("licence", ""),
        repository=row.get("source_repo", ""),
        provenance=row.get("provenance", ""),
    )


def read_manifest(root: Path) -> dict[Path, dict[str, str]]:
    """Rows of the MANIFEST.csv in `root` or its parent by absolute path of the file; none without one."""
    for folder in (root, root.parent):
        if (folder / "MANIFEST.csv").is_file():
            base = folder.resolve()
            return {base / row["path"]: row for row in read_table(folder / "MANIFEST.csv", ("path",))}
    return {}


def without_fold(recordings: list[Recording], fold: int | None) -> list[Recording]:
    """Those to train on: all but the held-out fold's."""
    return [r for r in recordings if fold is None or r.fold != fold]


def only_fold(recordings: list[Recording], fold: int) -> list[Recording]:
    """The held-out fold's."""
    return [r for r in recordings if r.fold == fold]


def flatten(found: dict[str, list[Recording]]) -> Iterator[Recording]:
    """All recordings, folder by folder."""
    for recordings in found.values():
        yield from recordings
