"""Kinds of files by their first bytes; raw samples are none of them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from kws_serve.audio.containers import SURE_BYTES, may_be_frames, mpeg_frame_bytes, recognised

BEGINNINGS = {
    b"RIFF\x24\0\0\0WAVEfmt ": ("WAV", True),
    b"RIFX\x24\0\0\0WAVE": ("WAV", True),
    b"RF64\xff\xff\xff\xffWAVE": ("RF64", True),
    b"FORM\0\0\0\0AIFFCOMM": ("AIFF", True),
    b"FORM\0\0\0\0AIFC": ("AIFF-C", True),
    b"riff\x2e\x91\xcf\x11": ("Wave64", True),
    b".snd\0\0\0\x20": ("AU", True),
    b"caff\0\1": ("CAF", True),
    b"fLaC\0": ("FLAC", True),
    b"OggS\0": ("Ogg", True),
    b"ID3\4\0\0": ("MP3", True),
    b"\0\0\0\x20ftypM4A ": ("MP4", False),
    b"\0\0\0\x18ftypmp42": ("MP4", False),
    b"#!AMR\n": ("AMR", False),
    b"#!AMR-WB\n": ("AMR", False),
    b"\x1a\x45\xdf\xa3\x01": ("Matroska or WebM", False),
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": ("WMA", False),
    b"RIFF\0\0\0\0AVI LIST": ("AVI", False),
    b"wvpk\0": ("WavPack", False),
}


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_a_kind_is_told_by_its_first_bytes(beginning: bytes) -> None:
    found = recognised(beginning + bytes(100))
    assert found is not None
    assert (found.name, found.readable) == BEGINNINGS[beginning]


@pytest.mark.parametrize("rate_hz", [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000])
def test_bare_mpeg_frames_are_told_by_two_in_a_row(rate_hz: int) -> None:
    out = io.BytesIO()
    soundfile.write(out, np.random.default_rng(0).normal(0, 0.1, rate_hz), rate_hz, format="MP3")
    data = out.getvalue()
    n = mpeg_frame_bytes(data)
    assert n > 0 and mpeg_frame_bytes(data[n:]) > 0
    found = recognised(data[:SURE_BYTES])
    assert found is not None and found.name == "MP3"
    assert may_be_frames(data[:2]) and recognised(data[:64]) is None, "one header could be a sample"


@pytest.mark.parametrize("level", [1, 30, 1000, 20000])
def test_samples_are_of_no_kind(level: int) -> None:
    for seed in range(200):
        samples = np.random.default_rng(seed).normal(0, level, SURE_BYTES // 2)
        assert recognised(np.clip(samples, -32768, 32767).astype("<i2").tobytes()) is None
    for value in range(-1100, 1100):  # also where each sample looks like the beginning of a frame
        assert recognised(np.full(SURE_BYTES // 2, value, "<i2").tobytes()) is None


@given(st.binary(max_size=400))
def test_any_bytes_are_looked_at_without_a_fault(data: bytes) -> None:
    recognised(data)
