"""The firmware's sources and what is built of them: once for each version of them, kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from kws_board.errors import BoardError
from kws_serve.manifest.package_data import data_path

TARGETS = {
    "host": "kws_host",
    "sanitized": "kws_host_sanitized",
    "threads": "kws_host_threads",
    "qemu_virt": "kws_qemu_virt.elf",
    "gap8": "kws_gap8.elf",
    "fuzz": "kws_fuzz",
    "fuzz_stdin": "kws_fuzz_stdin",
}
_TOOLS = {
    "host": "cc",
    "sanitized": "cc",
    "threads": "cc",
    "qemu_virt": "riscv64-unknown-elf-gcc",
    "gap8": "riscv64-unknown-elf-gcc",
    "fuzz": "clang",
    "fuzz_stdin": "cc",
}
_PACKAGES = {"cc": "gcc libc6-dev", "clang": "clang", "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf"}


def sources() -> Path:
    """The folder with the firmware's Makefile."""
    installed = data_path("firmware")
    return installed if installed.is_dir() else Path(__file__).resolve().parents[1] / "firmware"


def cache_dir() -> Path:
    """Where builds are kept: the user's cache folder; without a home, among the temporary files."""
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "kws-serve"
    try:
        return Path.home() / ".cache" / "kws-serve"
    except RuntimeError:  # neither HOME nor an entry in passwd
        return Path(tempfile.gettempdir()) / "kws-serve"


def sources_digest() -> str:
    """Of every source file: another build for other sources."""
    digest = hashlib.sha256()
    root = sources()
    for path in sorted(p for p in root.rglob("*") if p.suffix in (".c", ".h", ".S", ".ld") or p.name == "Makefile"):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def built(target: str) -> Path:
    """The program for `target` (a key of TARGETS), built where it is not yet.

    Raises BoardError: a missing tool, with the line that installs it, or the compiler's first complaint.
    """
    folder = cache_dir() / "firmware" / sources_digest()
    program = folder / TARGETS[target]
    if program.is_file():
        return program
    require("make", "make")
    require(_TOOLS[target], _PACKAGES[_TOOLS[target]])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as part:
            wanted = Path(part) / TARGETS[target]
            done = subprocess.run(
                ["make", "-s", "-C", str(sources()), f"OUT={part}", str(wanted)],
                capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
            if done.returncode:
                lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or [done.stderr.strip()]
                raise BoardError(f"firmware: {target}: cannot be built: {lines[0][:300]}")
            folder.mkdir(exist_ok=True)
            wanted.replace(program)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BoardError(f"firmware: {target}: cannot be built: {error}") from error
    return program


def require(program: str, packages: str) -> str:
    """The program's path. Raises BoardError with the line that installs it."""
    found = shutil.which(program)
    if found is None:
        raise BoardError(f"found no {program}, wanted: sudo apt-get install --no-install-recommends {packages}")
    return found
