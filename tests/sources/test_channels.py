"""Channels of a file by name, and what is odd in its samples."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_serve.messages import SourceError
from kws_serve.sources.files import AudioFile
from kws_serve.sources.listening import Listening
from kws_serve.sources.spec import SourceSpec, parse_source, parse_sources, split_channel

SPEECH = np.sin(np.arange(16000) / 5) * 0.3


def write(path: Path, *channels: np.ndarray, subtype: str = "PCM_16") -> str:
    soundfile.write(path, np.stack(channels, axis=1), 16000, subtype=subtype)
    return str(path)


def warned(file: AudioFile) -> list[str]:
    found: list[str] = []
    file._warn = found.append
    for _ in file.chunks(0.1):
        pass
    file.close()
    return found


def test_a_channel_of_a_file_is_named_behind_a_colon(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", SPEECH, SPEECH, SPEECH)
    assert parse_source(f"{path}:2") == SourceSpec("a", "file", path, f"{path}:2", 2)
    assert parse_source(f"x={path}:1") == SourceSpec("x", "file", path, f"x={path}:1", 1)
    specs = parse_sources([f"tape={path}:all", f"{path}:0"])
    assert [(s.name, s.channel, s.alone) for s in specs] == [
        ("tape-0", 0, False), ("tape-1", 1, False), ("tape-2", 2, False), ("a", 0, True)
    ]  # fmt: skip
    assert split_channel("a.wav", 3) == ("a.wav", 3)
    Path(tmp_path / "b:1").write_bytes(Path(path).read_bytes())
    assert split_channel(f"{tmp_path}/b:1") == (f"{tmp_path}/b:1", 0), "the name of a file that is there"
    with pytest.raises(SourceError, match="no such file"):
        parse_sources([f"{tmp_path}/none.wav:all"])
    with pytest.raises(SourceError, match=r"found 3 channel\(s\), wanted channel 3"):
        AudioFile(Path(path), channel=3)


@pytest.mark.parametrize("n_channels", [2, 6])
def test_a_silent_channel_beside_one_that_speaks_is_told(tmp_path: Path, n_channels: int) -> None:
    silent = [SPEECH * 0.0005] * (n_channels - 1)
    path = write(tmp_path / "a.wav", *silent, SPEECH)
    (line,) = warned(AudioFile(Path(path)))
    last = n_channels - 1
    assert f"channel 0 is silent (peak -76 dB) while channel {last} is not (-10 dB)" in line
    assert line.endswith(f"{path}:{last}")
    assert warned(AudioFile(Path(path), channel=last)) == []
    assert warned(AudioFile(Path(path), alone=False)) == [], "all are listened to"


def test_silence_on_all_channels_and_a_quiet_one_are_no_cause(tmp_path: Path) -> None:
    assert warned(AudioFile(Path(write(tmp_path / "a.wav", 0 * SPEECH, 0 * SPEECH)))) == []
    assert warned(AudioFile(Path(write(tmp_path / "b.wav", 0.05 * SPEECH, SPEECH)))) == []


@pytest.mark.parametrize("full", [128, 32768, 2147483648])
def test_whole_numbers_in_floating_point_are_told_with_their_peak(tmp_path: Path, full: int) -> None:
    path = write(tmp_path / "a.wav", SPEECH * full, subtype="DOUBLE")
    (line,) = warned(AudioFile(Path(path)))
    assert f"found samples up to {np.float32(SPEECH.max() * full):.4g} in floating point, wanted -1 to 1" in line
    assert warned(AudioFile(Path(write(tmp_path / "b.wav", SPEECH * 5, subtype="FLOAT")))) == [], "a hot mix"


def test_each_is_told_once_and_the_log_gets_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = AudioFile(Path(write(tmp_path / "a.wav", SPEECH * 99, subtype="FLOAT")))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            list(file.chunks(0.3))
    assert len(caplog.records) == 1


def test_a_live_source_is_judged_once_enough_was_heard() -> None:
    listening = Listening("microphone 'USB'", 0, 2, remedy="mic:usb")
    block = np.zeros((1600, 2), np.int16)
    block[:, 1] = 9000
    for _ in range(49):
        listening.heard(block, 16000)
        assert listening.found_soon() == []
    listening.heard(block[:1600], 16000)
    listening.heard(block[:1], 16000)
    (line,) = listening.found_soon()
    assert "channel 1 is not (-11 dB); take that one with mic:usb:1" in line
    assert listening.found_soon() == []
