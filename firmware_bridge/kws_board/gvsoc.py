"""gvsoc, the GAP SDK's simulator of the chip: started with its UART on a loopback TCP port, always ended again."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kws_board import firmware
from kws_board.errors import BoardError
from kws_board.guarded import Guarded
from kws_board.link import LinkError, SerialTransport

_START_S, _END_S = 60.0, 10.0
TIMER = "cluster/timer"  # whose trace tells when the firmware read its cycle counter


@dataclass(frozen=True)
class Sdk:
    """An installed GAP SDK with gvsoc built."""

    home: Path
    gapy: str
    launcher: str


def find_sdk() -> Sdk:
    """The SDK that GAP_SDK_HOME names. Raises BoardError saying how to get one."""
    home = os.environ.get("GAP_SDK_HOME", "")
    if not home:
        raise BoardError("board gvsoc: found no GAP SDK, wanted GAP_SDK_HOME; install it, then: source sourceme.sh")
    installed = Path(home) / "install"
    gapy = _program("gapy", installed / "workspace" / "bin", Path(home) / "utils" / "gapy")
    launcher = _program("gvsoc_launcher", installed / "workspace" / "bin", installed / "workstation" / "bin")
    for name, found in (("gapy", gapy), ("gvsoc_launcher", launcher)):
        if found is None:
            raise BoardError(f"board gvsoc: found no {name} in PATH or {home}, wanted the SDK built: make gvsoc")
    assert gapy is not None and launcher is not None
    return Sdk(Path(home), gapy, launcher)


def _program(name: str, *folders: Path) -> str | None:
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, folders)))


def free_port() -> int:
    """A loopback TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class GvsocTransport:
    """The simulator's UART. Its process group ends with the transport, however that goes."""

    def __init__(self, sdk: Sdk, log: Path | None = None) -> None:
        """Start it and connect. `log`: where the simulator's trace of the cluster's timer goes when it ends.

        Raises LinkError where it cannot be prepared or does not listen within a minute.
        """
        self.name = "gvsoc"
        self.baud: int | None = None
        self._log = log
        self._serial: SerialTransport | None = None
        program = firmware.built("gap8")  # which may take a while: no folder yet that could stay behind
        port, self._folder = free_port(), Path(tempfile.mkdtemp(prefix="kws-gvsoc-"))
        try:
            with contextlib.ExitStack() as stack:  # the folder has a guardian at all times
                config = _prepared(sdk, program, self._folder, port, traced=log is not None, stack=stack)
                launcher = sdk.launcher + ("_debug" if log is not None else "")
                with (self._folder / "output").open("wb") as output:
                    self._process = Guarded(
                        [launcher, f"--config={config}"], cwd=self._folder, folder=self._folder, stdout=output,
                        stderr=output, env=os.environ | {"PULP_CONFIG_FILE": str(config)},
                    )  # fmt: skip
        except (OSError, ValueError) as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise LinkError(f"board gvsoc: cannot be started: {error}") from error
        except LinkError:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
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
        """Bytes to the simulated board, which is started first where it does not run."""
        self._open().write(data)

    def read(self, timeout_s: float) -> bytes:
        """What it has sent, after `timeout_s` at most; empty: nothing."""
        return self._open().read(timeout_s)

    def set_baud(self, baud: int) -> None:
        """Nothing: a simulated line has no rate."""

    def close(self) -> None:
        """End the simulator."""
        if self._serial is not None:
            self._serial.close()
            self._serial = None
        self._process.kill()
        self._process.wait(_END_S)
        output = self._folder / "output"
        if self._log is not None and output.exists():
            lines = _COLOUR.sub("", output.read_text(errors="replace")).splitlines(keepends=True)
            with contextlib.suppress(OSError):
                self._log.write_text("".join(line for line in lines if f"{TIMER}/trace" in line))
        self._process.close()

    def _open(self) -> SerialTransport:
        if self._serial is None:
            raise LinkError("board gvsoc: closed")
        return self._serial


_COLOUR = re.compile("\x1b\\[[0-9;]*m")


def _prepared(sdk: Sdk, program: Path, folder: Path, port: int, traced: bool, stack: contextlib.ExitStack) -> Path:
    """The simulator's configuration in `folder`, with the flash image that boots `program` and the UART on `port`.

    `stack` closes what guards the folder meanwhile.
    """
    command = [
        sdk.gapy, "--target=gapuino_v3", "--platform=gvsoc", f"--work-dir={folder}",
        "run", "--image", "--flash", "--exec-prepare", f"--binary={program}",
        *([f"--trace={TIMER}"] if traced else []),
    ]  # fmt: skip
    with (folder / "gapy").open("wb") as output:
        gapy = Guarded(command, cwd=folder, folder=folder, stdout=output, stderr=output)
    stack.callback(gapy.close, remove=False)
    code = gapy.wait(_START_S)
    path = folder / "gvsoc_config.json"
    if code != 0 or not path.exists():
        said = (folder / "gapy").read_text(errors="replace").strip().splitlines() or ["nothing"]
        found = f"it running after {_START_S:g} s" if code is None else f"exit status {code}, saying {said[-1]!r}"
        raise LinkError(f"board gvsoc: gapy: found {found}, wanted {path.name}")
    config = json.loads(path.read_text())
    uarts = [uart for uart in _dictionaries(config) if "telnet" in uart]
    if not uarts:
        raise LinkError(f"board gvsoc: {path.name}: found no UART, wanted one with 'telnet'")
    for uart in uarts:
        uart.update(telnet=True, telnet_port=port, stdout=False, tx_file="")
    path.write_text(json.dumps(config))
    return path


def _dictionaries(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _dictionaries(child)
