"""Real people talking (`DATA/speech_running`): `_unknown_` as it comes, where nobody says a command word.

A folder `speech_running` holds recordings in any folders below it; a `transcripts.csv` (`path,text`, paths from its own
folder) beside them says what is spoken. A sentence whose text has a command word is left out. Speaker and licence
come from the data's MANIFEST.csv; without one, each folder counts as one speaker.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kws_models.data.audio_cache import Audio, joined, load_audio
from kws_models.data.csv_table import read_table
from kws_models.data.recordings import AUDIO_SUFFIXES, DataError, Recording, described, read_manifest
from kws_serve.messages import Int16Array

FOLDER = "speech_running"
TRANSCRIPTS = "transcripts.csv"
PAUSE_S = (0.2, 0.6)  # of silence between sentences
_SUFFIXES = AUDIO_SUFFIXES | {".mp3"}
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")  # letters of any language, an apostrophe only between two
_FREE = re.compile(r"CC0|CC[ -]BY(?!-)|public domain", re.IGNORECASE)  # no share-alike, no non-commercial


@dataclass(frozen=True, slots=True)
class Sentence:
    """A recording and what is said in it; None where nobody wrote it down."""

    recording: Recording
    text: str | None = None


@dataclass(frozen=True)
class Talk:
    """Sentences joined, one piece for each speaker."""

    speakers: tuple[str, ...]
    transcribed: tuple[bool, ...]  # whether somebody wrote down all that speakers[i] says
    recordings: tuple[Recording, ...]
    audio: Audio  # piece i is of speakers[i]


def find_sentences(data: Path) -> list[Sentence]:
    """All recordings under `data`/speech_running, sorted by path; none where there is no such folder.

    Raises DataError for a transcript of a recording that is not there.
    """
    root = data / FOLDER
    return sentences_in(root) if root.is_dir() else []


def talk_in(folder: Path) -> list[Sentence]:
    """What `--speech` names: all of `folder`/speech_running, or where there is none of `folder`. Raises DataError."""
    root = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    if not root.is_dir():
        raise DataError(f"--speech: found no folder {folder}, wanted one with recordings of people talking")
    sentences = sentences_in(root)
    if not sentences:
        raise DataError(f"--speech: found no recordings under {root}, wanted some of people talking")
    return sentences


def sentences_in(root: Path) -> list[Sentence]:
    """All recordings under `root`, sorted by path. Raises DataError for a text of a recording that is not there."""
    facts, texts = read_manifest(root), _transcripts(root)
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES)
    missing = sorted(set(texts) - set(paths))
    if missing:
        raise DataError(f"{root}: found no {missing[0]}, wanted the recording that {TRANSCRIPTS} gives a text for")
    return [Sentence(_recording(path, facts), texts.get(path)) for path in paths]


def _transcripts(root: Path) -> dict[Path, str]:
    texts: dict[Path, str] = {}
    for path in sorted(root.rglob(TRANSCRIPTS)):
        for row in read_table(path, ("path", "text")):
            if not row["path"]:
                raise DataError(f"{path}: found {dict(row)}, wanted a path and a text")
            texts[path.parent / row["path"]] = row["text"]
    return texts


def _recording(path: Path, facts: dict[Path, dict[str, str]]) -> Recording:
    known = described(path, facts)
    source = known.source if path.resolve() in facts else path.parent.name
    return replace(known, folder=FOLDER, source=source)


def without_words(sentences: Iterable[Sentence], words: Iterable[str]) -> list[Sentence]:
    """Those in whose text none of `words` stands; one without a text stays.

    `turn_on` stands where "turn on" does; a name like `_unknown_` is no word.
    """
    unwanted = [spoken(word) for word in words if not word.startswith("_") and spoken(word)]
    return [s for s in sentences if not any(said in spoken(s.text or "") for said in unwanted)]


def spoken(text: str) -> str:
    """Its words in lower case, a blank before and after each: what is found in it are whole words; empty of none."""
    words = _WORD.findall(text.lower().replace("\u2019", "'"))
    return f" {' '.join(words)} " if words else ""


def may_be_learnt(sentences: Iterable[Sentence]) -> list[Sentence]:
    """Those under CC0, CC BY, in the public domain, or of no known licence (the user's own); others are said aloud."""
    sentences = list(sentences)
    kept = [s for s in sentences if not s.recording.licence or _FREE.match(s.recording.licence)]
    left_out = len(sentences) - len(kept)
    if left_out:
        print(f"left out: {left_out} recordings of {FOLDER} that are not under CC0, CC BY or in the public domain")
    return kept


def load_talk(sentences: Sequence[Sentence], rate_hz: int, cache: Path, seed: int, opus_twins: bool = False) -> Talk:
    """Every speaker's sentences in order, with pauses of PAUSE_S of silence; one seed gives the same pauses."""
    recordings = [s.recording for s in sentences]
    audio = load_audio(recordings, rate_hz, cache, opus_twins)
    rng = np.random.default_rng([seed, 13])
    speakers = tuple(sorted({r.source for r in recordings}))
    parts: dict[str, list[Int16Array]] = {speaker: [] for speaker in speakers}
    for i, recording in enumerate(recordings):
        pause = np.zeros(round(rng.uniform(*PAUSE_S) * rate_hz), np.int16)
        parts[recording.source] += [audio.clip(i), pause]
    unknown = {s.recording.source for s in sentences if s.text is None}
    transcribed = tuple(speaker not in unknown for speaker in speakers)
    return Talk(speakers, transcribed, tuple(recordings), joined([np.concatenate(parts[s]) for s in speakers]))
