"""Who listens on a TCP port of this machine (Linux)."""

from __future__ import annotations

from pathlib import Path

_LISTEN = "0A"


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
