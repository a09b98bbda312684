"""Small machines: what a service with one model imports and keeps in memory before the first stream."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

HEAVY = {"scipy", "soundfile", "sounddevice", "onnx", "torch", "matplotlib", "pandas", "numpy.random", "numpy.f2py"}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], float]:
    """Modules that `kws-serve` with one model has imported once it answers, and its memory in MB."""
    folder = tmp_path_factory.mktemp("small")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-X", "importtime", "-m", "kws_serve", "--source", "none", "--port", str(port)]
    command += ["--model", "dscnn-s-stream", "--data-dir", str(folder)]
    imports = folder / "imports.txt"
    with imports.open("w") as out, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=out) as process:
        try:
            for _ in range(200):
                try:
                    if httpx.get(f"http://127.0.0.1:{port}/readyz").is_success:
                        break
                except httpx.TransportError:
                    time.sleep(0.05)
            status = Path(f"/proc/{process.pid}/statm").read_text().split()
        finally:
            process.terminate()
    lines = [line.split("|") for line in imports.read_text().splitlines() if line.startswith("import time:")]
    return {parts[2].strip() for parts in lines[1:]}, int(status[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_nothing_heavy_is_imported(started):
    imported, _ = started
    assert "kws_serve.commands.running" in imported
    assert not {name for name in imported if name in HEAVY or name.split(".")[0] in HEAVY}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_before_the_first_stream(started):
    assert started[1] < 120, "MB resident, with the model that looks again; docs/measurements.md says what takes it"
