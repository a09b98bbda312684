"""Why a port cannot be had: who listens on it (Linux), and the command line with another one."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Sequence
from pathlib import Path

_LISTEN = "0A"


def port_fault(error: OSError, host: str, port: int, words: Sequence[str]) -> str:
    """Why the address can't be had; for a port in use, its owner and the command (`words`) with another port."""
    if error.errno != errno.EADDRINUSE:
        return f"cannot listen on {host}:{port}: {error.strerror or error}"
    owner = port_owner(port)
    by = f" by {owner}" if owner else ""
    again = shlex.join(["kws-serve", *with_port(words, port % 65535 + 1)])
    return f"port {port} is in use{by}; try: {again}"


def with_port(words: Sequence[str], port: int) -> list[str]:
    """The command line again with another port, and without tokens that others could read over a shoulder."""
    left_out = ("--port", "--token", "--watch-token")
    kept: list[str] = []
    skip = False
    for word in words:
        flag, equals, _ = word.partition("=")
        if not skip and flag not in left_out:
            kept.append(word)
        skip = not skip and flag in left_out and not equals
    return [*kept, "--port", str(port)]


def port_owner(port: int) -> str:
    """`NAME (process PID)` of the listener on `port`; empty where it is not known."""
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listening(Path("/proc/net") / table, port)}
    if not inodes:
        return ""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if any(fd.readlink().name in inodes for fd in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:  # another user's process, or one that has just ended
            continue
    return ""


def _listening(table: Path, port: int) -> list[str]:
    """`socket:[INODE]` of the sockets that listen on `port`."""
    try:
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return []
    return [f"socket:[{r[9]}]" for r in rows if r[3] == _LISTEN and int(r[1].rpartition(":")[2], 16) == port]
