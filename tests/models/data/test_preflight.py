"""What would stop a training later is said before it begins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_models.data.preflight import check_recordings, check_room
from kws_models.data.recordings import DataError, Recording


def recording(path: Path, seconds: float = 1.0, rate_hz: int = 16_000) -> Recording:
    soundfile.write(path, np.zeros(round(seconds * rate_hz), np.int16), rate_hz)
    return Recording(path, path.parent.name, path.stem)


def test_all_bad_files_are_told_together(tmp_path: Path) -> None:
    (tmp_path / "torn.flac").write_bytes(b"fLaC\0\0\0")
    bad = [
        recording(tmp_path / "short.wav", 0.02),
        recording(tmp_path / "slow.wav", rate_hz=4_000),
        Recording(tmp_path / "torn.flac", "yes", "torn"),
        Recording(tmp_path / "gone.wav", "yes", "gone"),
    ]
    with pytest.raises(DataError, match="found 4 files") as refused:
        check_recordings([recording(tmp_path / "good.wav"), *bad])
    said = str(refused.value)
    assert "good.wav" not in said and all(r.path.name in said for r in bad)
    assert "0.020 s, wanted at least 0.1 s" in said and "4000 Hz, wanted at least 8000 Hz" in said


def test_many_are_counted_and_some_shown(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found 30 files[\s\S]*and 22 more"):
        check_recordings([recording(tmp_path / f"{i}.wav", 0.01) for i in range(30)])


def test_good_ones_are_added_up(tmp_path: Path) -> None:
    assert check_recordings([recording(tmp_path / f"{i}.wav", 0.5) for i in range(4)]) == pytest.approx(2.0)


def test_a_folder_without_room_or_rights(tmp_path: Path) -> None:
    check_room(tmp_path / "run", tmp_path / "cache", 10.0)
    with pytest.raises(DataError, match=r"cache: found \d+ MB of room, wanted \d+ MB"):
        check_room(tmp_path / "run", tmp_path / "cache", 1e12)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="wanted a folder to write to"):
        check_room(tmp_path / "file", tmp_path / "cache", 10.0)
