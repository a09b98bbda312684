"""Nothing the link or the board does loses an answer or makes a wrong one: retried, or reported, and counted."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kws_board import boards
from kws_board.board import Board
from kws_board.compiler import compile_file
from kws_board.errors import BoardError
from kws_board.image import BoardImage
from kws_board.integer_ops import run
from kws_board.link import LinkError, ProcessTransport, SerialTransport
from kws_board.link_rate import BAUDS
from kws_board.protocol import Request
from kws_board.slots import new_values
from kws_serve.manifest.folder import shipped_models_dir
from tests.board.fake_gvsoc import sdk_programs, write_gapy, write_launcher
from tests.board.faulty import Faulty, Resetting, Silent, on_a_pty
from tests.board.test_firmware import image_of
from tests.board.test_integer_reference import random_patches
from tests.campaigns.proof import count, record


def dscnn() -> BoardImage:
    return compile_file(shipped_models_dir() / "dscnn-s" / "model.int8.tflite")


def sliding(image: BoardImage, n: int, seed: int = 0) -> np.ndarray:
    """Patches of a stream, each one frame on."""
    frame, size = image.model.frame_size, image.model.input.size
    stream = random_patches(size + n * frame, 1, seed)[0]
    return np.stack([stream[i * frame : i * frame + size] for i in range(n)])


@pytest.mark.parametrize("rate", [0.0002, 0.001])
def test_a_bad_link_loses_nothing(host: list[str], rate: float) -> None:
    image, rng = dscnn(), random.Random(1)
    links: list[Faulty] = []

    def open_transport() -> Faulty:
        links.append(Faulty(ProcessTransport("host", host), rate, rng))
        return links[-1]

    board = Board(open_transport, slow_factor=0.02, heartbeat_s=0)
    patches = sliding(image, 40)
    try:
        for _ in range(20):
            try:
                board.open()
                break
            except LinkError:
                continue
        scores = []
        for patch in patches:
            for _ in range(50):  # what is refused is reported: the caller asks again
                try:
                    scores.append(board.infer(image, patch).scores)
                    break
                except BoardError:
                    continue
        np.testing.assert_array_equal(np.stack(scores), run(image.model, patches))
        counts = board.all_counts()
        assert sum(link.faults for link in links) > 5 and counts.bad_packets + counts.repeats > 0
    finally:
        board.close()


def test_one_damaged_byte_costs_one_repeat(host: list[str]) -> None:
    """Anywhere in request or answer: the next packet is right again."""
    image = image_of(1)
    patch = random_patches(image.model.input.size, 1)[0]

    class Once(Faulty):
        at = -1

        def damage(self, data: bytes) -> bytes:
            out = bytearray(data)
            for i in range(len(out)):
                if self.at == 0:
                    out[i] ^= 0x10
                self.at -= 1
            return bytes(out)

    inner = Once(ProcessTransport("host", host), 0, random.Random(0))
    board = Board(lambda: inner, slow_factor=0.05, heartbeat_s=0)
    board.open()
    wanted = run(image.model, patch[None])[0]
    board.infer(image, patch)
    for place in range(0, 160, 3):
        before = board.all_counts()
        inner.at = place
        np.testing.assert_array_equal(board.infer(image, patch).scores, wanted)
        after = board.all_counts()
        assert after.reopenings == before.reopenings == 0
        assert after.repeats - before.repeats <= 2
    board.close()


def test_frames_alone_go_over_the_link(host_board: Board) -> None:
    image = dscnn()
    patches = sliding(image, 30)
    scores = np.stack([host_board.infer(image, patch).scores for patch in patches])
    np.testing.assert_array_equal(scores, run(image.model, patches))
    assert host_board.counts.frames_sent == 29


def test_another_programs_patch_on_the_board_is_noticed(host_board: Board) -> None:
    """The board's ring holds another patch than the host believes: told by its checksum, the patch is sent whole."""
    image = dscnn()
    patches = sliding(image, 3)
    host_board.infer(image, patches[0])
    link = host_board._link
    assert link is not None
    link.ask(Request.INFER, bytes((0, 0)) + random_patches(490, 1, 9).tobytes())
    np.testing.assert_array_equal(host_board.infer(image, patches[1]).scores, run(image.model, patches[1:2])[0])
    assert host_board.counts.frames_sent == 0
    host_board.infer(image, patches[2])
    assert host_board.counts.frames_sent == 1


def test_new_values() -> None:
    patch = np.arange(20, dtype=np.int8)
    assert new_values(None, patch, 4) == 20
    assert new_values(patch, patch, 4) == 0
    assert new_values(np.arange(-4, 16, dtype=np.int8), patch, 4) == 4
    assert new_values(np.arange(-12, 8, dtype=np.int8), patch, 4) == 12
    assert new_values(patch[::-1].copy(), patch, 4) == 20
    zeros = np.zeros(20, np.int8)
    assert new_values(zeros, zeros, 4) == 0


@pytest.mark.parametrize("n", [int(os.environ.get("BOARD_RESETS", str(count(1000))))])
def test_resets_lose_no_result(host: list[str], n: int) -> None:
    """A board that restarts every 25 packets: models are sent again, every patch has its own scores."""
    images = [image_of(1), image_of(2)]
    opened: list[Resetting] = []

    def open_transport() -> Resetting:
        opened.append(Resetting(host, every=25))
        return opened[-1]

    board = Board(open_transport, slow_factor=0.2, heartbeat_s=0)
    board.open()
    try:
        done = 0
        while sum(link.resets for link in opened) < n:
            image = images[done % 2]
            patch = random_patches(image.model.input.size, 1, done)[0]
            np.testing.assert_array_equal(board.infer(image, patch).scores, run(image.model, patch[None])[0])
            done += 1
        assert board.counts.resets > n / 2 and board.counts.inferences == done
        record("board reset", f"{n} resets", f"{done} inferences, no result lost or wrong")
    finally:
        board.close()


def test_an_emulator_that_dies_is_started_again(emulator: list[str]) -> None:
    image = dscnn()
    started: list[ProcessTransport] = []

    def open_transport() -> ProcessTransport:
        started.append(ProcessTransport("emulator", emulator))
        return started[-1]

    board = Board(open_transport, slow_factor=3.0)
    board.open()
    try:
        patches = sliding(image, 6)
        wanted = run(image.model, patches)
        for i, patch in enumerate(patches):
            if i in (2, 4):
                os.kill(started[-1].process.pid, signal.SIGKILL)
            np.testing.assert_array_equal(board.infer(image, patch).scores, wanted[i])
        assert len(started) == 3 and board.counts.reopenings == 2 and len(board.resets_at) == 2
    finally:
        board.close()
    assert all(t.process.poll() is not None for t in started)


def test_packets_of_any_length_reach_the_emulator_and_come_back(emulator: list[str]) -> None:
    """At once: not one is sent twice, though the machine sleeps between them."""
    board = Board(lambda: ProcessTransport("emulator", emulator), slow_factor=30.0, heartbeat_s=0)
    board.open()
    try:
        for n in (0, 1, 511, 512, 513, 1024, 4096, 8192) * 3:
            board.ping(bytes(i % 255 for i in range(n)))
        counts = board.all_counts()
        assert (counts.repeats, counts.bad_packets, counts.stray_packets) == (0, 0, 0)
    finally:
        board.close()


def test_an_emulator_ends_with_a_service_that_is_killed(emulator: list[str]) -> None:
    code = f"""
from kws_board.link import ProcessTransport
import time
t = ProcessTransport("emulator", {emulator!r})
print(t.process.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        child = int(service.stdout.readline())
        service.kill()
    until = time.monotonic() + 10
    while Path(f"/proc/{child}/cmdline").exists() and time.monotonic() < until:
        if not Path(f"/proc/{child}/cmdline").read_bytes():  # ended, and waiting for its parent's parent
            break
        time.sleep(0.02)
    assert time.monotonic() < until


def test_a_silent_or_noisy_port_is_an_error_not_a_hang() -> None:
    for noise in (None, random.Random(0)):
        board = Board(lambda noise=noise: Silent(noise), slow_factor=0.02, heartbeat_s=0)
        with pytest.raises(LinkError, match="no answer to hello"):
            board.open()
        board.close()
        with pytest.raises(BoardError, match="closed"):
            board.ping()


def test_heartbeat_reopens_a_port_that_fell_silent(host: list[str]) -> None:
    opened: list[ProcessTransport] = []

    def open_transport() -> ProcessTransport:
        opened.append(ProcessTransport("host", host))
        return opened[-1]

    board = Board(open_transport, slow_factor=0.05, heartbeat_s=0.05)
    board.open()
    os.kill(opened[0].process.pid, signal.SIGSTOP)
    until = time.monotonic() + 20
    while len(opened) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    assert len(opened) == 2 and board.counts.reopenings == 1
    assert board.ping(b"there") < 5
    board.close()


def test_a_pty_at_921600_baud_carries_a_patch_every_20_ms(host: list[str]) -> None:
    """490-byte patches, whole: at that pace the wire is busy for 5.8 ms of each 20."""
    image = dscnn()
    patches = random_patches(image.model.input.size, 50)
    with on_a_pty(host, bytes_a_second=92_160) as (port, _):
        board = Board(lambda: SerialTransport(port), slow_factor=3.0)
        board.open()
        try:
            assert board.carry(image, 20.0, image.model.input_shape[1]) == 460_800
            scores = np.stack([board.infer(image, patch).scores for patch in patches])
            np.testing.assert_array_equal(scores, run(image.model, patches))
            counts = board.all_counts()
            assert (counts.bad_packets, counts.repeats, counts.reopenings) == (0, 0, 0)
        finally:
            board.close()


def test_the_rate_is_chosen_by_need(host: list[str]) -> None:
    image = dscnn()
    with on_a_pty(host) as (port, _):
        board, how = boards.open_board(f"serial:{port}")
        try:
            assert how == f"serial board at {port}"
            assert board.carry(image, 20.0, 1) == BAUDS[0]  # frames alone fit any rate
            assert board.carry(image, 50.0, 49) == BAUDS[1]
            with pytest.raises(BoardError, match=r"patch hop of 2 ms, which needs \d+ baud, wanted at most 921600"):
                board.carry(image, 2.0, 49)
        finally:
            board.close()


def test_a_port_that_another_program_has(host: list[str]) -> None:
    with on_a_pty(host) as (port, _):
        first = SerialTransport(port)
        with pytest.raises(LinkError, match="another program has it"):
            boards.open_board(f"serial:{port}")
        first.close()
        boards.open_board(f"serial:{port}")[0].close()


def test_a_cable_pulled_in_mid_result(host: list[str]) -> None:
    image = dscnn()
    with on_a_pty(host, bytes_a_second=20_000) as (port, process):
        board = Board(lambda: SerialTransport(port), slow_factor=0.2, heartbeat_s=0)
        board.open()
        board.infer(image, random_patches(490, 1, 1)[0])
        process.kill()
        with pytest.raises(BoardError, match="no answer"):
            board.infer(image, random_patches(490, 1)[0])
        board.close()


@pytest.mark.parametrize("name, says", [
    ("nope", "wanted auto, serial:PORT, emulator or gvsoc"), ("serial:", "wanted auto"),
    ("serial:/dev/nope", "cannot be opened"), ("serial:socket://127.0.0.1:9", "cannot be opened"),
])  # fmt: skip
def test_boards_that_are_none(name: str, says: str) -> None:
    with pytest.raises(BoardError, match=says) as refused:
        boards.open_board(name)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("missing, says", [
    ("qemu-system-riscv32", "sudo apt-get install --no-install-recommends qemu-system-misc"),
    ("riscv64-unknown-elf-gcc", "sudo apt-get install --no-install-recommends gcc-riscv64-unknown-elf"),
    ("make", "sudo apt-get install --no-install-recommends make"),
])  # fmt: skip
def test_a_missing_tool_has_a_line_that_installs_it(
    missing: str, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, emulator: list[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in {"qemu-system-riscv32", "riscv64-unknown-elf-gcc", "make"} - {missing}:
        (tools / name).symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(BoardError, match=says):
        boards.open_board("emulator")


def test_auto_says_what_it_took_and_why(emulator: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GAP_SDK_HOME", raising=False)
    board, how = boards.open_board("auto")
    board.close()
    assert how.startswith("emulator") and "no GAPuino on USB" in how and "no gvsoc" in how


def test_gvsoc_is_started_on_loopback_and_always_ended(
    host: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, emulator: list[str]
) -> None:
    """A stand-in for the SDK's launcher: the same command line, the firmware behind the UART's TCP port."""
    monkeypatch.delenv("GAP_SDK_HOME", raising=False)
    with pytest.raises(BoardError, match="GAP_SDK_HOME"):
        boards.open_board("gvsoc")
    gapy, launcher = sdk_programs(tmp_path)
    monkeypatch.setenv("GAP_SDK_HOME", str(tmp_path))
    with pytest.raises(BoardError, match="no gapy"):
        boards.open_board("gvsoc")
    write_gapy(gapy)
    with pytest.raises(BoardError, match="no gvsoc_launcher"):
        boards.open_board("gvsoc")
    write_launcher(launcher, host, tmp_path / "pid")
    image = image_of(1)
    patch = random_patches(image.model.input.size, 1)[0]
    board, how = boards.open_board("gvsoc")
    np.testing.assert_array_equal(board.infer(image, patch).scores, run(image.model, patch[None])[0])
    assert how.startswith("gvsoc")
    board.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    launcher.rename(launcher.with_name("gvsoc_launcher_debug"))
    launcher.write_text("#!/bin/sh\nexit 3\n")
    launcher.chmod(0o755)
    board, _ = boards.open_board("gvsoc", tmp_path / "log")
    board.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 4 and all(re.match(r"\d+: \d+: \[/sys\S+/cluster/timer/trace +\] ", line) for line in lines)
    with pytest.raises(LinkError, match="ended with 3"):
        boards.open_board("gvsoc")
    gapy.write_text("#!/bin/sh\necho no such target >&2\nexit 4\n")
    with pytest.raises(LinkError, match="exit status 4, saying 'no such target'"):
        boards.open_board("gvsoc")
