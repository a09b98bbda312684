"""Before hours are spent: what would stop a training later, told at once and all together."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from kws_models.data.real_speech import find_sentences
from kws_models.data.recordings import (
    NOISE_FOLDER,
    DataError,
    Recording,
    event_root,
    find_recordings,
    flatten,
    keyword_root,
    require_folders,
)
from kws_models.zoo.architectures import Architecture
from kws_models.zoo.labels import SILENCE, UNKNOWN
from kws_serve.audio import Decoder
from kws_serve.messages import SourceError

LEAST_S = 0.1  # a shorter file is damaged or empty: no word and no event is as short
LEAST_RATE_HZ = 8_000  # what the slowest front ends take; a lower rate has lost what they look at
_SHOWN = 8  # faulty files that are named: all of them would fill screens
_PCM_BYTES_A_SECOND = 2 * 16_000  # of decoded audio: 16 bits at 16 kHz
_CHECKPOINT_BYTES = 50 << 20  # four phases of dscnn-l, 6.6 MB each (weights, average, two moments), doubled


def wanted_recordings(architecture: Architecture, data: Path) -> list[Recording]:
    """All that a training will read under the task's folder, missing and empty classes refused. Raises DataError."""
    root = event_root(data) if architecture.task == "event" else keyword_root(data)
    found = find_recordings(root)
    words = tuple(label for label in architecture.labels if label not in (UNKNOWN, SILENCE))
    require_folders(found, words if architecture.task == "event" else (*words, NOISE_FOLDER), root)
    others = [name for name in found if name not in words and (name == UNKNOWN or not name.startswith("_"))]
    if UNKNOWN in architecture.labels and not others:
        raise DataError(f"data: found no recordings of words that are no command under {root}, wanted some")
    talk = [s.recording for s in find_sentences(data)] if UNKNOWN in architecture.labels else []
    return [*flatten(found), *talk]


def check_recordings(recordings: Sequence[Recording]) -> float:
    """Open every file's header; seconds in all. Raises DataError listing those that cannot be learnt from."""
    faults, seconds = [], 0.0
    for recording in recordings:
        try:
            with contextlib.closing(Decoder(recording.path)) as decoder:
                stated_s = decoder.stated_s
                length_s = decoder.seconds() if stated_s is None else stated_s
                fault = _fault(decoder.rate_hz, length_s)
                seconds += length_s
        except SourceError as error:
            faults.append(str(error))
            continue
        if fault:
            faults.append(f"{recording.path}: {fault}")
    if faults:
        more = f"\n... and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        lines = "\n".join(faults[:_SHOWN])
        raise DataError(f"data: found {len(faults)} files that cannot be learnt from; mend or remove:\n{lines}{more}")
    return seconds


def _fault(rate_hz: int, length_s: float) -> str:
    if rate_hz < LEAST_RATE_HZ:
        return f"found {rate_hz} Hz, wanted at least {LEAST_RATE_HZ} Hz"
    if length_s < LEAST_S:
        return f"found {length_s:.3f} s, wanted at least {LEAST_S:g} s"
    return ""


def check_room(out: Path, cache: Path, seconds: float) -> None:
    """The folders can be written to and have room for checkpoints and decoded audio. Raises DataError naming one."""
    for folder, wanted in ((out, _CHECKPOINT_BYTES), (cache, int(2 * seconds * _PCM_BYTES_A_SECOND))):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: {error.strerror}; wanted a folder to write to") from error
        if not os.access(folder, os.W_OK):
            raise DataError(f"{folder}: found a folder that cannot be written to, wanted one that can")
        free = shutil.disk_usage(folder).free
        if free < wanted:
            raise DataError(f"{folder}: found {free >> 20} MB of room, wanted {wanted >> 20} MB")
