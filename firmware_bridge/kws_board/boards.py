"""Boards by name: `auto`, `serial:PORT`, `emulator`, `gvsoc`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from kws_board import firmware, gvsoc
from kws_board.board import Board
from kws_board.errors import BoardError
from kws_board.link import LinkError, ProcessTransport, SerialTransport, Transport

GAPUINO = (0x0403, 0x6010)  # USB ids of its FTDI chip, whose second port is the UART
WANTED = "auto, serial:PORT, emulator or gvsoc"


@dataclass(frozen=True)
class Port:
    """A serial port of this machine."""

    device: str
    description: str
    gapuino: bool  # whether it may be a GAPuino's UART


def list_ports() -> list[Port]:
    """Every serial port. Raises BoardError where pyserial is missing."""
    try:
        from serial.tools.list_ports import comports
    except ImportError as error:
        raise BoardError('found no pyserial, wanted: pip install "kws-serve[gap8]"') from error
    found = sorted(comports(), key=lambda p: str(p.device))
    boards = [p.device for p in found if (p.vid, p.pid) == GAPUINO]
    return [Port(p.device, str(p.description or ""), p.device in boards[1::2]) for p in found]


def open_board(name: str, gvsoc_log: Path | None = None) -> tuple[Board, str]:
    """The board called so, opened, and how it was found. `gvsoc_log`: where gvsoc's trace goes when it is closed.

    Raises BoardError with what is missing.
    """
    if name == "auto":
        return _open_first()
    kind, _, port = name.partition(":")
    if kind == "serial" and port:
        board, how = Board(lambda: SerialTransport(port)), f"serial board at {port}"
    elif name == "emulator":
        emulator()  # what is missing is told now
        board, how = Board(_start_emulator, slow_factor=3.0), "emulator (qemu-system-riscv32)"
    elif name == "gvsoc":
        sdk = gvsoc.find_sdk()
        board = Board(lambda: gvsoc.GvsocTransport(sdk, gvsoc_log), slow_factor=20.0, heartbeat_s=10.0)
        how = f"gvsoc ({sdk.home})"
    else:
        raise BoardError(f"board: found {name[:80]!r}, wanted {WANTED}")
    try:
        board.open()
    except BoardError:
        board.close()
        raise
    return board, how


def _open_first() -> tuple[Board, str]:
    """A serial board, else gvsoc, else the emulator."""
    tried = []
    try:
        names = [f"serial:{port.device}" for port in list_ports() if port.gapuino]
    except BoardError as error:
        names, tried = [], [str(error)]
    if not names:
        tried.append("no GAPuino on USB (0403:6010)")
    if os.environ.get("GAP_SDK_HOME"):
        names.append("gvsoc")
    else:
        tried.append("no gvsoc (GAP_SDK_HOME is not set)")
    for name in [*names, "emulator"]:
        try:
            board, how = open_board(name)
            return board, f"{how}; {'; '.join(tried)}" if tried else how
        except BoardError as error:
            tried.append(f"{name}: {error}")
    raise BoardError(f"board: found none: {'; '.join(tried)}")


def emulator() -> list[str]:
    """The command that starts the emulator. Raises BoardError where it, or what builds its firmware, is missing."""
    qemu = firmware.require("qemu-system-riscv32", "qemu-system-misc")
    program = firmware.built("qemu_virt")
    # -icount: instructions are counted, and the same inference takes the same number each time
    machine = ["-M", "virt", "-m", "32M", "-bios", "none", "-display", "none", "-monitor", "none", "-icount", "shift=0"]
    # its standard input and output are the link, which the firmware reads and writes by semihosting
    link = ["-serial", "none", "-semihosting-config", "enable=on,target=native"]
    return [qemu, *machine, *link, "-kernel", str(program)]


def _start_emulator() -> Transport:
    try:
        return ProcessTransport("emulator", emulator())
    except LinkError:
        raise
    except BoardError as error:  # uninstalled meanwhile: reopening will not help, but the caller counts tries
        raise LinkError(str(error)) from error
