"""Headers that do not know how long their file is, as programs that write to a pipe leave them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from kws_serve.audio import Decoder
from kws_serve.audio.lengths import endless, mended

RATE_HZ, N = 16000, 4000
SAMPLES = np.random.default_rng(0).integers(-20000, 20000, N).astype(np.int16)

FORMATS = {"wav": "WAV", "aiff": "AIFF", "au": "AU", "caf": "CAF", "w64": "W64", "rf64": "RF64"}


def written(folder: Path, kind: str) -> bytes:
    path = folder / f"whole.{kind}"
    soundfile.write(path, SAMPLES, RATE_HZ, format=FORMATS[kind], subtype="PCM_16")
    return path.read_bytes()


def size_field(data: bytes, kind: str) -> tuple[int, int]:
    """Where the size of the samples stands, and in how many bytes."""
    if kind == "au":
        return 8, 4
    if kind == "rf64":
        return data.index(b"ds64") + 16, 8
    at = data.index(b"SSND" if kind == "aiff" else b"data")
    return {"w64": (at + 16, 8), "caf": (at + 4, 8)}.get(kind, (at + 4, 4))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", ["zero", "highest", "more than there is"])
def test_samples_are_read_to_the_end_of_the_file_whatever_size_is_stated(tmp_path: Path, kind: str, size: str) -> None:
    data = bytearray(written(tmp_path, kind))
    at, n = size_field(data, kind)
    order = "little" if kind in ("wav", "w64", "rf64") else "big"
    stated = {"zero": bytes(n), "highest": b"\xff" * n, "more than there is": (len(data) * 3).to_bytes(n, order)}[size]
    data[at : at + n] = stated
    path = tmp_path / f"x.{kind}"
    path.write_bytes(data)
    decoder = Decoder(path)
    np.testing.assert_array_equal(decoder.pcm16(), SAMPLES)
    assert decoder.seconds() == N / RATE_HZ


@pytest.mark.parametrize("kind", FORMATS)
def test_a_header_that_is_right_is_left_alone(tmp_path: Path, kind: str) -> None:
    data = written(tmp_path, kind)
    assert mended(lambda at, n: data[at : at + n], len(data)) == {}


def test_chunks_behind_an_empty_chunk_of_samples_are_no_samples(tmp_path: Path) -> None:
    data = written(tmp_path, "wav")
    at = data.index(b"data")
    listed = data[: at + 4] + bytes(4) + b"LIST" + (8).to_bytes(4, "little") + b"INFOISFT"
    assert mended(lambda at, n: listed[at : at + n], len(listed)) == {}


@pytest.mark.parametrize("stated", [0, 1000, N, 3 * N])
def test_all_of_a_flac_is_decoded_however_many_samples_its_header_says(tmp_path: Path, stated: int) -> None:
    path = tmp_path / "x.flac"
    soundfile.write(path, SAMPLES, RATE_HZ)
    data = bytearray(path.read_bytes())
    data[22:26] = stated.to_bytes(4, "big")
    path.write_bytes(data)
    decoder = Decoder(path)
    np.testing.assert_array_equal(decoder.pcm16(), SAMPLES)
    assert decoder.seconds() == N / RATE_HZ


def test_what_follows_a_flac_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.flac"
    soundfile.write(path, SAMPLES, RATE_HZ)
    with path.open("ab") as f:
        f.write(b"TAG" + bytes(125))
    np.testing.assert_array_equal(Decoder(path).pcm16(), SAMPLES)


@pytest.mark.parametrize(("subtype", "tag"), [("FLOAT", 3), ("DOUBLE", 3), ("ALAW", 6), ("ULAW", 7)])
def test_wave64_of_the_extensible_format_is_what_its_last_field_says(tmp_path: Path, subtype: str, tag: int) -> None:
    """As ffmpeg writes it for more than one channel or 16 bits; libsndfile takes it for whole numbers."""
    path = tmp_path / "x.w64"
    soundfile.write(path, SAMPLES / 32768, RATE_HZ, format="W64", subtype=subtype)
    wanted = Decoder(path).pcm16()
    data = path.read_bytes()
    at = data.index(b"fmt ") + 24
    size = int.from_bytes(data[at - 8 : at], "little")
    guid = tag.to_bytes(2, "little") + bytes.fromhex("000000001000800000aa00389b71")
    extensible = b"\xfe\xff" + data[at + 2 : at + 16] + (22).to_bytes(2, "little") + bytes(6) + guid
    rest = data[at - 24 + size + -size % 8 :]
    whole = data[: at - 8] + (24 + len(extensible)).to_bytes(8, "little") + extensible + rest
    path.write_bytes(whole[:16] + len(whole).to_bytes(8, "little") + whole[24:])
    decoder = Decoder(path)
    assert decoder.subtype == subtype
    np.testing.assert_array_equal(decoder.pcm16(), wanted)


HEADS = [
    b"RIFF\0\0\0\0WAVE",
    b"RF64\0\0\0\0WAVEds64",
    b"FORM\0\0\0\0AIFF",
    b"riff\x2e\x91\xcf\x11",
    b"caff\0\1\0\0",
    b".snd",
    b"fLaC",
]


@given(st.sampled_from(HEADS), st.binary(max_size=300), st.integers(0, 1 << 40))
def test_no_header_however_broken_does_more_than_be_left_alone(head: bytes, rest: bytes, more: int) -> None:
    data = head + rest
    for patches in (
        mended(lambda at, n: data[at : at + n], len(data) + more),
        endless(lambda at, n: data[at : at + n]),
    ):
        assert all(at >= 0 and patch for at, patch in patches.items())
