"""Audio files as sources: real files written by soundfile."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_serve.messages import SourceError
from kws_serve.sources.files import CHUNK_S, AudioFile
from tests.sources.recording_stream import RecordingStream


def noise(n: int, channels: int = 1) -> np.ndarray:
    samples = np.random.default_rng(0).integers(-20000, 20000, (n, channels))
    return samples.astype(np.int16)


@pytest.mark.parametrize(("suffix", "subtype"), [
    ("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT"), ("flac", "PCM_16"), ("aiff", "PCM_16"), ("au", "PCM_16"),
])  # fmt: skip
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_one_channel_is_read_exactly_whatever_the_format(
    tmp_path: Path, suffix: str, subtype: str, channel: int
) -> None:
    written = noise(44100, 3)
    soundfile.write(tmp_path / f"x.{suffix}", written / 32768, 44100, subtype=subtype)
    file = AudioFile(tmp_path / f"x.{suffix}", channel=channel)
    assert (file.rate_hz, file.channels) == (44100, 3)
    got = np.concatenate(list(file.chunks(0.07)))
    np.testing.assert_array_equal(got, (written[:, channel] / 32768).astype(np.float32))


@pytest.mark.parametrize(("suffix", "subtype"), [("ogg", "VORBIS"), ("opus", "OPUS"), ("mp3", "MPEG_LAYER_III")])
def test_compressed_files_are_read(tmp_path: Path, suffix: str, subtype: str) -> None:
    file_format = {"opus": "OGG"}.get(suffix, suffix.upper())
    soundfile.write(tmp_path / f"x.{suffix}", noise(48000), 48000, format=file_format, subtype=subtype)
    assert sum(map(len, AudioFile(tmp_path / f"x.{suffix}").chunks(0.1))) >= 48000


def test_a_loop_goes_on_without_a_seam_and_never_ahead_of_time(tmp_path: Path) -> None:
    written = noise(2500)
    soundfile.write(tmp_path / "x.wav", written, 16000)
    stopping = threading.Event()
    stream = RecordingStream(16000, lambda: stopping.set() if stream.received_samples >= 9000 else None)
    AudioFile(tmp_path / "x.wav", loop=True).run(stream, stopping)
    n = stream.received_samples
    assert n >= 9000
    np.testing.assert_array_equal(stream.samples, np.tile(written[:, 0], 5)[:n] / np.float32(32768))
    assert max(stream.ahead) <= CHUNK_S, "read no faster than it would be heard"


def test_a_file_ends_by_itself(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", noise(1600), 8000)
    stream = RecordingStream(8000)
    AudioFile(tmp_path / "x.wav").run(stream, threading.Event())
    assert stream.received_samples == 1600


def test_samples_that_are_no_numbers_are_counted_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples = np.full(16000, 0.25, np.float32)
    samples[[10, 11, 9000]] = np.nan
    samples[[12, 9001]] = np.inf, -np.inf
    soundfile.write(tmp_path / "x.wav", samples, 16000, subtype="FLOAT")
    file = AudioFile(tmp_path / "x.wav")
    with caplog.at_level(logging.WARNING):
        got = np.concatenate(list(file.chunks(0.1)))
    assert np.isfinite(got).all()
    assert list(got[[9, 10, 11, 12, 9000, 9001]]) == [0.25, 0.0, 0.0, 1.0, 0.0, -1.0]
    assert file.bad_samples == 5
    assert "5 samples not a number" in file.detail
    assert len(caplog.records) == 1


def whole_wav(folder: Path) -> bytes:
    soundfile.write(folder / "good.wav", noise(16000), 16000)
    return (folder / "good.wav").read_bytes()


@pytest.mark.parametrize(("make", "says"), [
    (lambda folder: b"", "empty file"),
    (lambda folder: whole_wav(folder)[:30], "not an audio file"),
    (lambda folder: whole_wav(folder)[:44], "no samples"),
    (lambda folder: b"text, not audio\n" * 100, "not an audio file"),
    (lambda folder: bytes(1000), "not an audio file"),
])  # fmt: skip
def test_what_is_no_audio_is_refused_in_one_line(tmp_path: Path, make, says: str) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(make(tmp_path))
    with pytest.raises(SourceError, match=says) as refused:
        AudioFile(path)
    assert "\n" not in str(refused.value) and str(path) in str(refused.value)


def test_a_missing_file_a_folder_a_wrong_rate_and_a_wrong_channel_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "slow.wav", noise(100), 2000)
    soundfile.write(tmp_path / "mono.wav", noise(100), 16000)
    with pytest.raises(SourceError, match="no such file"):
        AudioFile(tmp_path / "nope.wav")
    with pytest.raises(SourceError, match="folder"):
        AudioFile(tmp_path)
    with pytest.raises(SourceError, match="rate: found 2000, wanted 4000 to 384000 Hz"):
        AudioFile(tmp_path / "slow.wav")
    with pytest.raises(SourceError, match="wanted channel 1"):
        AudioFile(tmp_path / "mono.wav", channel=1)


def test_a_file_cut_off_in_its_data_gives_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(whole_wav(tmp_path)[: 44 + 2000])
    assert sum(map(len, AudioFile(tmp_path / "x.wav").chunks(0.1))) == 1000
