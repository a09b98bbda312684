"""What must not leave the process: core dumps, which hold audio and credentials, and variables that hold a token."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def forbid_dumps() -> None:
    """No core dump from now on; on Linux nobody but root can read the memory or attach a debugger either."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def wipe_variable(name: str) -> None:
    """Take a variable out of the environment, and its value out of the memory in which the kernel handed it over."""
    c = ctypes.CDLL(None)
    c.getenv.restype = ctypes.c_void_p
    if address := c.getenv(name.encode()):
        ctypes.memset(address, 0, len(ctypes.string_at(address)))
    os.environ.pop(name, None)


def wipe(text: bytearray) -> None:
    """Overwrite what was read."""
    text[:] = bytes(len(text))
