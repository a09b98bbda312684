"""The firmware built for this machine and for the emulator; skipped aloud where the tools are missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kws_board import boards, firmware
from kws_board.board import Board
from kws_board.link import ProcessTransport
from kws_models.export.tflite_file import TfliteModel

os.environ.setdefault("XDG_CACHE_HOME", str(Path(__file__).parents[2] / "build" / "cache"))


def needs(*programs: str) -> None:
    missing = [p for p in programs if shutil.which(p) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: sudo apt-get install gcc-riscv64-unknown-elf qemu-system-misc make")


@pytest.fixture(scope="session")
def sanitized() -> list[str]:
    """Command of the host build under address and undefined-behaviour sanitizers."""
    needs("cc", "make")
    return [str(firmware.built("sanitized"))]


@pytest.fixture(scope="session")
def host() -> list[str]:
    needs("cc", "make")
    return [str(firmware.built("host"))]


@pytest.fixture(scope="session")
def emulator() -> list[str]:
    needs("riscv64-unknown-elf-gcc", "qemu-system-riscv32", "make")
    return boards.emulator()


def board_of(command: list[str], heartbeat_s: float = 0.0, slow_factor: float = 3.0) -> Board:
    return Board(lambda: ProcessTransport("test", command), slow_factor=slow_factor, heartbeat_s=heartbeat_s)


@pytest.fixture
def host_board(sanitized: list[str]) -> Iterator[Board]:
    board = board_of(sanitized)
    board.open()
    yield board
    board.close()


def tiny_tflite(seed: int = 0) -> bytes:
    """A small int8 model with every kind of layer but those of ResNetSE."""
    from tests.support.random_tflite import keyword_like

    model: TfliteModel
    model, inputs, outputs = keyword_like(seed)
    return model.to_bytes(inputs, outputs)
