"""Files that soundfile alone reads short, garbled or not at all, and pipes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_serve.audio import Decoder
from kws_serve.audio.decoder import STDIN
from kws_serve.messages import SourceError

RATE_HZ = 8000
SAMPLES = np.random.default_rng(0).normal(0, 0.1, 5 * RATE_HZ)


@pytest.mark.parametrize(("kind", "subtype"), [
    ("WAV", "GSM610"), ("AU", "G721_32"), ("AU", "G723_24"), ("WAV", "NMS_ADPCM_16"), ("WAV", "NMS_ADPCM_32"),
    ("WAV", "IMA_ADPCM"), ("WAV", "MS_ADPCM"), ("WAV", "G721_32"), ("VOC", "ULAW"),
    ("CAF", "ALAC_16"), ("AIFF", "DWVW_16"),
])  # fmt: skip
def test_codecs_that_cannot_seek_are_read_whole_and_twice(tmp_path: Path, kind: str, subtype: str) -> None:
    path = tmp_path / "x"
    soundfile.write(path, SAMPLES, RATE_HZ, format=kind, subtype=subtype)
    decoder = Decoder(path)
    first, again = (np.concatenate(list(decoder.parts(777))) for _ in range(2))
    assert len(SAMPLES) <= len(first) <= len(SAMPLES) + 1000, "but for the codec's last block"
    np.testing.assert_array_equal(first, again)
    assert np.corrcoef(first[: len(SAMPLES), 0], SAMPLES)[0, 1] > 0.5, "of noise"


def without_xing(data: bytes) -> bytes:
    """An MP3 without the frame that says how long it is."""
    from kws_serve.audio.containers import mpeg_frame_bytes

    return data[mpeg_frame_bytes(data) :] if b"Xing" in data[:200] or b"Info" in data[:200] else data


def mp3(path: Path) -> bytes:
    """Variable bit rate: noise, then next to nothing."""
    samples = np.concatenate([SAMPLES, SAMPLES * 0.001])
    soundfile.write(path, samples, RATE_HZ, format="MP3", bitrate_mode="VARIABLE", compression_level=0.3)
    return path.read_bytes()


def test_an_mp3_of_variable_bit_rate_is_read_whole_with_and_without_its_length(tmp_path: Path) -> None:
    data = mp3(tmp_path / "a.mp3")
    (tmp_path / "b.mp3").write_bytes(without_xing(data))
    tag = b"ID3\4\0\0" + bytes([0, 4, 0, 0])  # of 64 KiB: a picture
    (tmp_path / "c.mp3").write_bytes(tag + bytes(1 << 16) + without_xing(data))
    lengths = [Decoder(tmp_path / name).seconds() for name in ("a.mp3", "b.mp3", "c.mp3")]
    assert all(2 * len(SAMPLES) / RATE_HZ <= length_s <= 2 * len(SAMPLES) / RATE_HZ + 0.3 for length_s in lengths), (
        lengths
    )
    whole = [Decoder(tmp_path / name).pcm16() for name in ("b.mp3", "c.mp3")]
    np.testing.assert_array_equal(*whole)


def test_mp3s_one_after_the_other_are_read_to_the_last(tmp_path: Path) -> None:
    data = without_xing(mp3(tmp_path / "a.mp3"))
    (tmp_path / "b.mp3").write_bytes(data + data)
    assert Decoder(tmp_path / "b.mp3").seconds() == pytest.approx(2 * Decoder(tmp_path / "a.mp3").seconds(), abs=0.5), (
        "but for the coder's delays"
    )


def test_reading_that_is_given_up_leaves_no_thread(tmp_path: Path) -> None:
    mp3(tmp_path / "a.mp3")
    before = threading.active_count()
    for _ in range(20):
        next(Decoder(tmp_path / "a.mp3").parts(100))
    for thread in threading.enumerate():
        if thread.name.startswith("reading"):
            thread.join(10)
    assert threading.active_count() <= before


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "CAF", "W64", "AU"])
def test_a_pipe_gives_what_the_file_gives(tmp_path: Path, kind: str) -> None:
    soundfile.write(tmp_path / "x", SAMPLES, RATE_HZ, format=kind)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes((tmp_path / "x").read_bytes()))
    writer.start()
    decoder = Decoder(fifo)
    writer.join()
    assert decoder.is_copy
    np.testing.assert_array_equal(decoder.pcm16(), Decoder(tmp_path / "x").pcm16())


def test_an_empty_pipe_is_told(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(b""))
    writer.start()
    with pytest.raises(SourceError, match="empty pipe"):
        Decoder(fifo)
    writer.join()


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("kind", ["WAV", "AIFF", "CAF", "AU"])
def test_floating_point_becomes_the_pcm_that_the_service_hears(tmp_path: Path, kind: str, subtype: str) -> None:
    pcm = np.random.default_rng(1).integers(-32768, 32768, 1000).astype(np.int16)
    soundfile.write(tmp_path / "x", pcm / 32768, RATE_HZ, format=kind, subtype=subtype)
    np.testing.assert_array_equal(Decoder(tmp_path / "x").pcm16(), pcm)
    odd = np.array([0.5, np.nan, np.inf, -np.inf, 1.5, -7.0, 0.25 / 32768, 0.75 / 32768])
    soundfile.write(tmp_path / "odd", odd, RATE_HZ, format=kind, subtype=subtype)
    found = Decoder(tmp_path / "odd").pcm16()
    assert list(found[:6]) == [16384, 0, 32767, -32768, 32767, -32768]
    assert abs(found[6] - 0.25) < 1.5 and abs(found[7] - 0.75) < 1.5, "dithered"


@pytest.mark.parametrize("subtype", ["PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_what_is_quieter_than_16_bits_is_kept_as_dither_keeps_it(tmp_path: Path, subtype: str) -> None:
    tone = 0.4 / 32768 * np.sin(np.arange(40000) / 5)
    soundfile.write(tmp_path / "x.wav", tone, RATE_HZ, subtype=subtype)
    pcm = Decoder(tmp_path / "x.wav").pcm16()
    assert set(pcm) <= {-1, 0, 1}
    assert abs((pcm * tone).sum() / (tone * tone).sum() / 32768 - 1.0) < 0.1
    parts = np.concatenate(list(Decoder(tmp_path / "x.wav").parts(777)))
    np.testing.assert_array_equal(np.rint(parts[:, 0] * 32768), pcm, "however it is cut")


@pytest.mark.parametrize(("data", "says"), [
    (b"\0\0\0\x20ftypM4A " + bytes(500), "an MP4 file.*ffmpeg"),
    (b"#!AMR\n" + bytes(500), "an AMR file.*ffmpeg"),
    (b"RIFF\x24\0\0\0WAVEfmt ", "not an audio file that libsndfile reads .begins as a WAV"),
])  # fmt: skip
def test_what_is_not_read_is_named(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(SourceError, match=says) as refused:
        Decoder(tmp_path / "x")
    assert "\n" not in str(refused.value)


def test_a_name_that_is_no_utf8_is_read(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.wav"))
    soundfile.write(tmp_path / "x.wav", SAMPLES, RATE_HZ)
    (tmp_path / "x.wav").rename(path)
    assert Decoder(path).seconds() == 5.0
    headerless = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.gsm"))
    soundfile.write(tmp_path / "x.gsm", SAMPLES, RATE_HZ, format="RAW", subtype="GSM610")
    (tmp_path / "x.gsm").rename(headerless)
    assert Decoder(headerless).seconds() == pytest.approx(5.0, abs=0.05)


def test_standard_input_may_be_a_file_or_raw_samples(tmp_path: Path) -> None:
    pcm = np.random.default_rng(1).integers(-9000, 9000, 16000).astype("<i2")
    soundfile.write(tmp_path / "x.wav", pcm, 16000)
    for data in ((tmp_path / "x.wav").read_bytes(), pcm.tobytes()):
        (tmp_path / "in").write_bytes(data)
        kept = os.dup(0)
        with (tmp_path / "in").open("rb") as file:
            os.dup2(file.fileno(), 0)
        try:
            np.testing.assert_array_equal(Decoder(STDIN).pcm16(), pcm)
        finally:
            os.dup2(kept, 0)
            os.close(kept)
