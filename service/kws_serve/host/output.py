"""The output of a command that ends: no character stops it, and one that cannot be written is told in one line."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from collections.abc import Callable

from kws_serve.host.log_format import printable
from kws_serve.messages import KwsError

_ERRORS = "kws-any-text"
_FIRST, _LAST = 0xDC80, 0xDCFF  # what Python makes of bytes of a file's name that are no UTF-8 (PEP 383)


def guarded(run: Callable[[], int | None], *mendable: type[Exception]) -> int:
    """Run a command: its exit status, or 2 after one line on stderr for what is the user's to mend: KwsError,
    `mendable`, and output that cannot be written. 0 where the reader has gone, as `head` does.
    """
    take_any_text()
    try:
        try:
            return run() or 0
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except KwsError as e:
        _complain(str(e))
        return 2
    except mendable as e:
        _complain(str(e))
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _give_up_stdout()
        return 0
    except OSError as e:
        if e.filename is not None:
            raise
        _give_up_stdout()
        _complain(f"standard output: cannot write ({e.strerror})")
        return 2


def take_any_text() -> None:
    """From now on stdout and stderr take each character: bytes of file names as they were, others that the encoding
    lacks as escapes.
    """
    codecs.register_error(_ERRORS, _escaped)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # None, closed, or no text stream
            stream.reconfigure(errors=_ERRORS)  # type: ignore[union-attr]


def _escaped(error: UnicodeError) -> tuple[bytes | str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if _FIRST <= ord(character) <= _LAST:
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return character.encode("ascii", "backslashreplace"), error.start + 1


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):  # stderr is full, too
        print("error: " + "\n".join(map(printable, text.split("\n"))), file=sys.stderr, flush=True)


def _give_up_stdout() -> None:
    """What is still buffered goes nowhere: Python would try again at exit, and complain."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
