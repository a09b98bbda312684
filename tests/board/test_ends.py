"""However the program that started it ends, an emulator or simulator ends too, and its folder is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kws_board import boards, firmware
from kws_board.board import Board
from kws_board.link import LinkError, ProcessTransport
from tests.board.fake_gvsoc import sdk_programs, write_gapy, write_launcher

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

ENDS = [signal.SIGTERM, signal.SIGKILL]


def until(what: Callable[[], object], within_s: float = 60.0) -> None:
    """Wait for what another process does."""
    deadline_s = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.02)


def state(pid: int) -> tuple[str, int]:
    """State and parent of a process; Z where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "Z", 0
    return fields[0], int(fields[1])


def running_below(pid: int) -> list[tuple[int, str]]:
    """(process id, command line) of every process that descends from `pid` and has not ended."""
    parents = {int(p.name): state(int(p.name)) for p in Path("/proc").iterdir() if p.name.isdigit()}
    below = {pid}
    while more := {p for p, (_, parent) in parents.items() if parent in below} - below:
        below |= more
    return [(p, command_line(p)) for p in below - {pid} if state(p)[0] != "Z"]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def all_gone(pids: list[tuple[int, str]]) -> Callable[[], bool]:
    return lambda: all(state(pid)[0] == "Z" or command_line(pid) != line for pid, line in pids)


def start(arguments: list[str], temporary: Path, **variables: str) -> subprocess.Popen[str]:
    """A command of the package; its temporary folders go to `temporary`."""
    temporary.mkdir(exist_ok=True)
    environment = os.environ | {"TMPDIR": str(temporary)} | variables
    return subprocess.Popen(
        [sys.executable, "-m", *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Signal it; wait for it and for all that it had started."""
    below = running_below(process.pid)
    assert below
    process.send_signal(number)
    process.wait(60)
    until(all_gone(below))


@pytest.mark.parametrize("number", ENDS)
@pytest.mark.parametrize("during", ["gapy", "inference"])
def test_gvsoc_ends_with_kws_board(number: signal.Signals, during: str, host: list[str], tmp_path: Path) -> None:
    firmware.built("gap8")
    gapy, launcher = sdk_programs(tmp_path)
    write_gapy(gapy, waits_s=3600.0 if during == "gapy" else 0.0)
    write_launcher(launcher, ["sleep", "3600"] if during == "inference" else host, tmp_path / "pid")
    arguments = ["kws_board.cli", "profile", "dscnn-s", "--board", "gvsoc"]
    process = start(arguments, tmp_path / "tmp", GAP_SDK_HOME=str(tmp_path))
    name = "gapy" if during == "gapy" else "sleep 3600"
    until(lambda: any(name in line for _, line in running_below(process.pid)))
    assert list((tmp_path / "tmp").iterdir())
    end(process, number)
    until(lambda: not list((tmp_path / "tmp").iterdir()))


@pytest.mark.parametrize("number", ENDS)
def test_the_emulator_ends_with_kws_board_emulate(number: signal.Signals, emulator: list[str], tmp_path: Path) -> None:
    process = start(["kws_board.cli", "emulate"], tmp_path / "tmp")
    assert process.stdout is not None
    assert "emulator at /dev/pts/" in process.stdout.readline()
    end(process, number)


@pytest.mark.parametrize("number", ENDS)
def test_the_emulator_ends_with_the_service(
    number: signal.Signals, emulator: list[str], tmp_path: Path, free_port: int
) -> None:
    """While models are loaded, too: no handler of the service's is in place yet."""
    flags = ["--backend", "gap8", "--board", "emulator", "--model", "dscnn-s", "--source", "none"]
    process = start(["kws_serve", *flags, "--port", str(free_port), "--data-dir", str(tmp_path)], tmp_path / "tmp")
    until(lambda: any("qemu-system-riscv32" in line for _, line in running_below(process.pid)))
    end(process, number)


def test_an_emulator_outlives_the_thread_that_started_it(emulator: list[str]) -> None:
    """A board is opened anew by whichever thread meets the fault; that thread may end before the board is closed."""
    board = Board(lambda: ProcessTransport("emulator", emulator), slow_factor=3.0, heartbeat_s=0)
    opener = threading.Thread(target=board.open)
    opener.start()
    opener.join()
    for _ in range(5):
        board.ping()
    board.close()
    assert board.counts.reopenings == 0


def test_a_program_that_cannot_be_started_is_an_error() -> None:
    with pytest.raises(LinkError, match=r"cannot be started: .*No such file"):
        ProcessTransport("none", ["/nonexistent/program"])


def test_a_program_that_ends_says_its_last_words() -> None:
    transport = ProcessTransport("brief", ["sh", "-c", "echo no such machine >&2; exit 3"])
    with pytest.raises(LinkError, match=r"it has ended .no such machine."):
        transport.read(30.0)
    assert transport.process.poll() == 3
    transport.close()


def test_boards_that_are_closed_leave_no_process(emulator: list[str]) -> None:
    before = running_below(os.getpid())
    board, _ = boards.open_board("emulator")
    assert len(running_below(os.getpid())) > len(before)
    board.close()
    assert running_below(os.getpid()) == before
