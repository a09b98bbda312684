"""Runs a program for as long as the process that wanted it lives. A script for `guarded.Guarded`; stdlib only.

    python -I -S guardian.py SOCKET FOLDER COMMAND...

SOCKET: number of a stream socket, whose other end that process alone holds, so that its end closes it however it ends.
This side tells lines: "pid N" or "error TEXT", then "exit N". The other side tells a byte: k, kill the program; q, kill
it and go. When it closes without a q, the program is killed and FOLDER (empty: none) removed.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1  # Linux: prctl(2)
_GROUP_GONE_S = 5.0


def _end_with_guardian() -> None:
    """Where even this process is killed, the kernel ends the program: Linux only. This process has one thread then."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _kill(program: "subprocess.Popen[bytes]") -> None:
    """Kill the program and what it has started: all of its process group."""
    with contextlib.suppress(OSError):  # all have ended
        os.killpg(program.pid, signal.SIGKILL)


def _group_ends(group: int) -> None:
    """Wait until no process of the group is left that could still write."""
    until = time.monotonic() + _GROUP_GONE_S
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except OSError:
            return
        time.sleep(0.01)


def _told(ours: socket.socket, text: str) -> None:
    with contextlib.suppress(OSError):  # nobody is there any more
        ours.sendall(text.encode("utf-8", "replace") + b"\n")


def _heard(ours: socket.socket) -> bytes:
    try:
        return ours.recv(1)
    except OSError:  # closed with lines of ours unread
        return b""


def main(number: int, folder: str, command: list[str]) -> None:
    """Wait until the parent's end of socket `number` closes; then end `command` and remove `folder`."""
    # a handler of ours, for what is ignored stays so in the program
    for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, lambda *_: None)
    ours = socket.socket(fileno=number)
    leave: list[bool] = []  # [True]: the folder stays
    program = None
    try:
        program = subprocess.Popen(command, start_new_session=True, preexec_fn=_end_with_guardian)
        _told(ours, f"pid {program.pid}")
    except OSError as error:
        _told(ours, f"error {error}")

    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # the program's alone: its end ends them
        os.dup2(nothing, stream)

    def obey() -> None:
        while (said := _heard(ours)) == b"k":
            if program is not None:
                _kill(program)
        leave.append(said == b"q")
        if program is not None:
            _kill(program)

    obeying = threading.Thread(target=obey)
    obeying.start()
    if program is not None:
        _told(ours, f"exit {program.wait()}")
    obeying.join()
    if program is not None:
        _group_ends(program.pid)
    if folder and leave == [False]:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
