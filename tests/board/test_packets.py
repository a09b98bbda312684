"""The wire: any cut gives the same packets, nothing that is damaged passes, and C and Python write the same bytes."""

from __future__ import annotations

import itertools
import json
import os
import random
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from cobs import cobs
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_board.packets import BadPacket, Packet, PacketReader, encode_packet
from kws_board.protocol import ANSWER, Request
from tests.campaigns.proof import count, record

PACKETS = st.builds(Packet, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=600))
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "board_packets.json").read_text())


@given(packets=st.lists(PACKETS, max_size=6), cuts=st.lists(st.integers(0, 4000)))
def test_any_cut_gives_the_same_packets(packets: list[Packet], cuts: list[int]) -> None:
    wire = b"".join(encode_packet(p) for p in packets)
    edges = [0, *sorted(c % (len(wire) + 1) for c in cuts), len(wire)]
    reader = PacketReader()
    found = [p for a, b in itertools.pairwise(edges) for p in reader.feed(wire[a:b])]
    assert found == packets


@settings(max_examples=300)
@given(packet=PACKETS, place=st.integers(0), change=st.integers(1, 255), lose=st.booleans())
def test_one_damaged_or_lost_byte_costs_one_packet(packet: Packet, place: int, change: int, lose: bool) -> None:
    wire = bytearray(encode_packet(packet))
    place %= len(wire)
    ended = place == len(wire) - 1  # the closing zero itself: then it runs into the next packet
    if lose:
        del wire[place]
    else:
        wire[place] ^= change
    after = Packet(8, 1, b"still here")
    found = PacketReader().feed(bytes(wire) + (b"\0" if ended else b"") + encode_packet(after))
    assert packet not in found[:-1] or (lose and ended)
    assert found[-1] == after
    assert all(isinstance(p, BadPacket) or p == packet for p in found[:-1])


@given(noise=st.binary(max_size=30_000))
def test_noise_never_passes_and_never_stays(noise: bytes) -> None:
    reader = PacketReader()
    assert all(isinstance(p, BadPacket) for p in reader.feed(noise))
    assert reader.feed(b"\0" + encode_packet(Packet(1, 2)))[-1] == Packet(1, 2)


def test_what_is_too_long_is_one_bad_packet_and_bounded() -> None:
    reader = PacketReader()
    for _ in range(100):
        assert reader.feed(b"\x11" * 1000) == []
        assert len(reader._rest) < 9000
    assert reader.feed(b"\0") == [BadPacket("too long", b"")]


@pytest.mark.parametrize("case", GOLDEN["packets"], ids=lambda c: c["name"])
def test_golden_bytes(case: dict[str, object]) -> None:
    packet = Packet(int(case["type"]), int(case["sequence"]), bytes.fromhex(case["payload"]))  # type: ignore[call-overload, arg-type]
    assert encode_packet(packet).hex() == case["wire"]
    assert PacketReader().feed(bytes.fromhex(str(case["wire"]))) == [packet]


def test_c_reads_and_writes_the_golden_bytes(sanitized: list[str]) -> None:
    """Each golden payload as a ping: the answer is the same payload, byte for byte as the golden answer says."""
    asked = b"".join(bytes.fromhex(c["ping"]) for c in GOLDEN["packets"])
    done = subprocess.run(sanitized, input=asked, capture_output=True, timeout=60, check=True)
    assert done.stdout.hex() == "".join(c["pong"] for c in GOLDEN["packets"])


def test_ten_thousand_random_requests_are_answered_once_each(sanitized: list[str]) -> None:
    """Every readable packet, sense or not, has one answer of its own number; the board never ends."""
    rng = random.Random(0)
    packets = [
        Packet(rng.choice([*range(1, 10), rng.randrange(256)]), i % 255 + 1, rng.randbytes(rng.randrange(40)))
        for i in range(10_000)
    ]
    done = subprocess.run(
        sanitized, input=b"".join(map(encode_packet, packets)), capture_output=True, timeout=120, check=True
    )
    answers = PacketReader().feed(done.stdout)
    assert len(answers) == len(packets)
    for asked, answer in zip(packets, answers, strict=True):
        assert isinstance(answer, Packet) and answer.sequence == asked.sequence
        assert answer.type in (asked.type | ANSWER, Request.ERROR)


def test_random_bytes_do_not_confuse_the_board(sanitized: list[str]) -> None:
    """BOARD_NOISE: how many; 10,000,000 for the proof."""
    noise = random.Random(1).randbytes(int(os.environ.get("BOARD_NOISE", str(count(10_000_000)))))
    done = subprocess.run(
        sanitized, input=noise + b"\0" + encode_packet(Packet(Request.PING, 7, b"alive")),
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    assert PacketReader().feed(done.stdout)[-1] == Packet(Request.PING | ANSWER, 7, b"alive")
    record("S9", f"{len(noise):,} random bytes", "the next valid packet is answered")


@pytest.mark.parametrize("n", [8192, 8193, 8200, 8224])
def test_a_payload_beyond_the_largest_is_refused(n: int, sanitized: list[str]) -> None:
    """Zeros take hardly more room encoded than decoded: more of them than a payload has fit the board's buffer."""
    body = bytes([Request.PING, 7]) + bytes(n)  # longer than Packet takes
    body += struct.pack("<I", zlib.crc32(body))
    asked = cobs.encode(body) + b"\0" + encode_packet(Packet(Request.PING, 8, b"alive"))
    done = subprocess.run(sanitized, input=asked, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    first, last = PacketReader().feed(done.stdout)
    assert isinstance(first, Packet) and first.type == (Request.PING | ANSWER if n <= 8192 else Request.ERROR)
    assert last == Packet(Request.PING | ANSWER, 8, b"alive")
