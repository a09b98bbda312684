"""gvsoc, the GAP SDK's simulator of the chip: started with its UART on a loopback TCP port, always ended again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from kws_board import firmware
from kws_board.errors import BoardError
from kws_board.link import LinkError, SerialTransport

_START_S = 60.0


@dataclass(frozen=True)
class Sdk:
    """An installed GAP SDK."""

    home: Path
    gapy: str


def find_sdk() -> Sdk:
    """The SDK that GAP_SDK_HOME names. Raises BoardError saying how to get one."""
    home = os.environ.get("GAP_SDK_HOME", "")
    if not home:
        raise BoardError("board gvsoc: found no GAP SDK, wanted GAP_SDK_HOME; install it, then: source sourceme.sh")
    gapy = shutil.which("gapy") or shutil.which("gapy", path=str(Path(home) / "install" / "workspace" / "bin"))
    if gapy is None:
        raise BoardError(f"board gvsoc: found no gapy in PATH or {home}, wanted the SDK built: make gvsoc")
    return Sdk(Path(home), gapy)


def free_port() -> int:
    """A loopback TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class GvsocTransport:
    """The simulator's UART. Its process group ends with the transport, however that goes."""

    def __init__(self, sdk: Sdk) -> None:
        """Start it and connect. Raises LinkError where it does not listen within a minute."""
        self.name = "gvsoc"
        self.baud: int | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="kws-gvsoc-")
        self._serial: SerialTransport | None = None
        port = free_port()
        command = _command(sdk, firmware.built("gap8"), Path(self._folder.name), port)
        try:
            self._process = subprocess.Popen(
                command, cwd=self._folder.name, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._folder.cleanup()
            raise LinkError(f"board gvsoc: cannot be started: {error}") from error
        self._connect(port)

    def _connect(self, port: int) -> None:
        until = time.monotonic() + _START_S
        while time.monotonic() < until and self._process.poll() is None:
            try:
                self._serial = SerialTransport(f"socket://127.0.0.1:{port}")
                return
            except LinkError:
                time.sleep(0.2)
        code = self._process.poll()
        self.close()
        found = "no UART within a minute" if code is None else f"that it ended with {code}"
        raise LinkError(f"board gvsoc: found {found}, wanted it to listen")

    def write(self, data: bytes) -> None:
        """See link.Transport."""
        self._open().write(data)

    def read(self, timeout_s: float) -> bytes:
        """See link.Transport."""
        return self._open().read(timeout_s)

    def set_baud(self, baud: int) -> None:
        """See link.Transport."""

    def close(self) -> None:
        """See link.Transport."""
        if self._serial is not None:
            self._serial.close()
            self._serial = None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._folder.cleanup()

    def _open(self) -> SerialTransport:
        if self._serial is None:
            raise LinkError("board gvsoc: closed")
        return self._serial


def _command(sdk: Sdk, program: Path, folder: Path, port: int) -> list[str]:
    """gapy's command line; the UART's port goes into a configuration file of its own."""
    config = folder / "uart.json"
    uart = {"type": "tcp", "host": "127.0.0.1", "port": port, "telnet": False}
    config.write_text(json.dumps({"target": {"system_tree": {"board": {"uart": uart}}}}))
    return [
        sdk.gapy, "--target=gapuino_v3", "--platform=gvsoc", f"--work-dir={folder}", f"--config={config}",
        "run", "--image", "--flash", "--exec-prepare", "--exec", f"--binary={program}",
    ]  # fmt: skip
