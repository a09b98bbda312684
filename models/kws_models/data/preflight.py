"""Before hours are spent: what would stop a training later, told at once and all together."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import soundfile

from kws_models.data.recordings import DataError, Recording

LEAST_S = 0.1
LEAST_RATE_HZ = 8_000
_SHOWN = 8
_PCM_BYTES_A_SECOND = 2 * 16_000
_CHECKPOINT_BYTES = 50 << 20


def check_recordings(recordings: Sequence[Recording]) -> float:
    """Open every file's header; seconds in all. Raises DataError listing those that cannot be learnt from."""
    faults, seconds = [], 0.0
    for recording in recordings:
        try:
            info = soundfile.info(str(recording.path))
            fault = _fault(info)
            seconds += info.frames / info.samplerate
        except (soundfile.LibsndfileError, OSError, ValueError) as error:
            fault = f"found {error}, wanted readable audio"
        if fault:
            faults.append(f"{recording.path}: {fault}")
    if faults:
        more = f"\n... and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        lines = "\n".join(faults[:_SHOWN])
        raise DataError(f"data: found {len(faults)} files that cannot be learnt from; mend or remove:\n{lines}{more}")
    return seconds


def _fault(info: Any) -> str:
    if info.samplerate < LEAST_RATE_HZ:
        return f"found {info.samplerate} Hz, wanted at least {LEAST_RATE_HZ} Hz"
    if info.frames < LEAST_S * info.samplerate:
        return f"found {info.frames / info.samplerate:.3f} s, wanted at least {LEAST_S:g} s"
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
