"""PCM through a real pipe."""

from __future__ import annotations

import itertools
import os
import pty
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_serve.audio.containers import recognised
from kws_serve.engine.stream import MAX_AHEAD_S
from kws_serve.messages import SourceError
from kws_serve.sources.stdin import Stdin, check_pcm
from tests.sources.recording_stream import RecordingStream


def read(parts: list[bytes]) -> tuple[RecordingStream, Stdin]:
    """What a pipe that is written in these parts gives."""
    ours, theirs = os.pipe()

    def write() -> None:
        with os.fdopen(theirs, "wb", buffering=0) as pipe:
            for part in parts:
                pipe.write(part)

    writer = threading.Thread(target=write)
    writer.start()
    stream, source = RecordingStream(16000), Stdin(ours)
    try:
        source.run(stream, threading.Event())
    finally:
        os.close(ours)  # a writer that is not read any more must not wait for ever
        writer.join()
    return stream, source


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(i, len(data)) for i in at), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=400).map(lambda data: b"\x00\xff" + data), st.lists(st.integers(0, 402), max_size=8))
def test_any_cut_gives_the_same_samples_and_an_odd_byte_is_told(data: bytes, at: list[int]) -> None:
    stream, source = read(cut(data, at))
    whole = data[: len(data) // 2 * 2]
    np.testing.assert_array_equal(stream.samples, np.frombuffer(whole, "<i2"))
    assert source.odd_bytes == len(data) % 2
    assert ("odd byte" in source.detail) == bool(len(data) % 2)


def test_a_pipe_that_is_faster_than_time_waits_and_loses_nothing() -> None:
    samples = np.random.default_rng(0).integers(-9000, 9000, 16000 * 3).astype("<i2")
    stream, _ = read([samples.tobytes()])
    np.testing.assert_array_equal(stream.samples, samples)
    assert max(stream.ahead) <= MAX_AHEAD_S + 0.21


def test_an_empty_pipe_is_an_empty_stream() -> None:
    assert read([])[0].received_samples == 0


@pytest.mark.parametrize(("beginning", "says"), [
    (b"RIFF\x24\0\0\0WAVEfmt " + bytes(60), "a WAV header"),
    (b"OggS" + bytes(80), "an Ogg header"),
    (b"fLaC" + bytes(80), "a FLAC header"),
    (b"ID3" + bytes(80), "an MP3 header"),
    (b"FORM\0\0\0\0AIFFCOMM" + bytes(80), "an AIFF header"),
    (b".snd" + bytes(80), "an AU header"),
    (b"caff\0\1\0\0desc" + bytes(80), "a CAF header"),
    (b"RF64\xff\xff\xff\xffWAVEds64" + bytes(80), "an? RF64 header"),
    (b"riff\x2e\x91\xcf\x11\xa5\xd6" + bytes(80), "a Wave64 header"),
    (b"\0\0\0\x20ftypM4A " + bytes(80), "an MP4 header"),
    (b"#!AMR\n" + bytes(80), "an AMR header"),
    (b"\xff\xfb\x90\x00".ljust(417, b"\0") * 9, "an MP3 header"),
    (b"the quick brown fox jumps over the lazy dog and then it jumps again\n", "text"),
    (b"hello\n", "text"),
])  # fmt: skip
def test_what_is_plainly_no_pcm_is_refused_in_one_line(beginning: bytes, says: str) -> None:
    with pytest.raises(SourceError, match=says) as refused:
        read(cut(beginning, [1, 3]))
    assert "\n" not in str(refused.value)


@given(st.binary(min_size=1, max_size=200))
def test_only_text_and_known_headers_are_refused(data: bytes) -> None:
    try:
        check_pcm(data)
    except SourceError:
        assert recognised(data) or all(b < 127 for b in data[:64])


def test_a_terminal_is_refused() -> None:
    ours, theirs = pty.openpty()
    try:
        with pytest.raises(SourceError, match="terminal"):
            Stdin(theirs)
    finally:
        os.close(ours)
        os.close(theirs)
