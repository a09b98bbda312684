"""The firmware on images and packets that somebody made up, under sanitizers: by libFuzzer where clang is there."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from pathlib import Path

from kws_board import firmware
from kws_board.image import HEADER_WORDS, LAYER_WORDS
from tests.board.conftest import needs
from tests.board.test_firmware import image_of
from tests.campaigns.proof import count, record

N_INPUTS = 40_000
"""Of the full proof, 100 a second; libFuzzer has 10 minutes beside it."""


def seeds() -> list[bytes]:
    """An image for each size of near memory, and packets of every kind."""
    images = [bytes([1 | seed % 4 << 1]) + image_of(seed).content for seed in range(8)]
    packets = b"".join(bytes([kind, 8, 0]) + bytes(8) for kind in range(11)) + bytes([8]) + struct.pack("<H", 8224)
    return [*images, b"\0" + packets + bytes(8224)]


def changed(data: bytes, rng: random.Random) -> bytes:
    """With some words of the head, or some bytes, as they should not be."""
    content = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if content[0] & 1 and rng.random() < 0.8:
            words = HEADER_WORDS + LAYER_WORDS * min(160, struct.unpack_from("<I", data, 17)[0])
            value = rng.choice(
                [0, 1, 3, 4, 255, 256, 1 << 12, 1 << 15, 1 << 16, 1 << 31, 2**32 - 1, rng.getrandbits(32)]
            )
            struct.pack_into("<I", content, 1 + 4 * rng.randrange(4, words), value)
        else:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def test_s9_made_up_images_and_packets_stay_inside(tmp_path: Path) -> None:
    needs("cc", "make")
    n, rng, first = count(N_INPUTS), random.Random(19), seeds()
    inputs = [*first, *(changed(rng.choice(first), rng) for _ in range(n))]
    stream = b"".join(struct.pack("<I", len(data)) + data for data in inputs)
    done = subprocess.run([firmware.built("fuzz_stdin")], input=stream, capture_output=True, timeout=3600)
    assert done.returncode == 0, done.stderr[-3000:]
    how = f"{len(inputs):,} inputs of our own"
    if shutil.which("clang"):
        corpus = tmp_path / "corpus"
        corpus.mkdir()
        for i, data in enumerate(first):
            (corpus / f"{i}").write_bytes(data)
        budget = f"-max_total_time={count(600, 20)}"
        done = subprocess.run(
            [firmware.built("fuzz"), budget, "-timeout=60", "-max_len=65536", corpus], capture_output=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr[-3000:]
        how += f" and libFuzzer for {count(600, 20)} s"
    record("S9 images", how, "none outside the board's memory")
