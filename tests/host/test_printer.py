"""The printer on real pipes and ptys: in order, bounded, what is dropped is counted at its place, and nobody waits."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import threading
import tty
from functools import partial
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_serve.host import printer as printer_module
from kws_serve.host.printer import Printer
from tests.support.blocked_output import BlockedOutput


def opened(fd: int) -> TextIO:
    return os.fdopen(fd, "w", closefd=False)


def everything(fd: int) -> bytes:
    """What there is to read now."""
    found = b""
    while select.select([fd], [], [], 0)[0]:
        found += os.read(fd, 65536)
    return found


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.integers(0, 4), max_size=60),
    most=st.integers(1, 12),
    most_bytes=st.integers(1, 200),
    reads=st.sets(st.integers(0, 60)),
)
def test_what_is_printed_and_what_is_dropped_are_all_in_order(texts, most, most_bytes, reads):
    """Texts of some lines each, into a pipe that is read only after some of them; 0: one line that is made later."""
    out = BlockedOutput("pipe")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(printer_module, "QUEUE_TEXTS", most)
        patch.setattr(printer_module, "QUEUE_BYTES", most_bytes)
        patch.setattr(printer_module, "LATER_BYTES", 8)
        printer = Printer(opened(out.theirs))
        out.block()
        said, text = 0, b""
        for i, lines in enumerate(texts):
            lines_now = "".join(f"line {said + k}\n" for k in range(lines or 1))
            printer.put(lines_now if lines else partial(str, lines_now))
            said += lines or 1
            assert len(printer._texts) <= most
            assert printer._bytes <= most_bytes or len(printer._texts) == 1
            if i in reads:
                text += everything(out.ours)
        closing = threading.Thread(target=printer.close, args=(30,))
        closing.start()
        while closing.is_alive():
            text += everything(out.ours)
        text += everything(out.ours)
    out.close()
    reached = 0
    for line in text.decode().lstrip(".").splitlines():
        if dropped := re.search(r"(\d+) lines were dropped", line):
            reached += int(dropped[1])
        else:
            assert line == f"line {reached}"
            reached += 1
    assert reached == said


def test_the_live_line_is_rewritten_in_place_below_the_lines():
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    printer = Printer(opened(theirs))
    assert printer.tty
    seen = b""
    for do, text, wanted in (
        (printer.live, "10 dB", b"\r\x1b[2K10 dB"),
        (printer.live, "20 dB", b"\r\x1b[2K20 dB"),
        (printer.put, "loud\n", b"\r\x1b[2Kloud\n"),
        (printer.put, "quiet\n", b"quiet\n"),
        (printer.live, "30 dB", b"\r\x1b[2K30 dB"),
        (printer.live, "", b"\r\x1b[2K"),
        (printer.put, "end\n", b"end\n"),
    ):
        do(text)
        while len(seen) < len(wanted):
            seen += os.read(ours, 1024)
        assert seen == wanted
        seen = b""
    printer.close(10)
    os.close(ours)
    os.close(theirs)


def test_a_line_that_cannot_be_made_is_told_and_the_next_ones_come(tmp_path):
    with (tmp_path / "out").open("w") as out:
        printer = Printer(out)
        printer.put("one\n")
        printer.put(lambda: f"{1 / 0}\n")
        printer.put(lambda: "three\n")
        printer.close(30)
    made = "  note    a line could not be made: ZeroDivisionError('division by zero')\n"
    assert (tmp_path / "out").read_text() == f"one\n{made}three\n"


def test_of_live_lines_only_the_newest_waits():
    out = BlockedOutput("pty")
    printer = Printer(opened(out.theirs))
    out.block()
    printer.put("first\n")
    for i in range(10_000):
        printer.live(f"{i} dB")
    out.read_until("9999 dB")
    assert out.text.count("dB") <= 2
    printer.close(10)
    out.close()


@pytest.mark.parametrize("what", ["closed", "nobody reads", "full disk", "gone terminal", "not blocking"])
def test_an_output_that_is_broken_harms_nobody(what):
    ours, theirs = pty.openpty() if what == "gone terminal" else os.pipe()
    if what == "full disk":
        os.dup2(os.open("/dev/full", os.O_WRONLY), theirs)
    if what in ("nobody reads", "gone terminal"):
        os.close(ours)
    os.set_blocking(theirs, what != "not blocking")
    printer = Printer(None if what == "closed" else opened(theirs))
    for _ in range(2000):
        printer.put("x" * 100 + "\n")
        printer.live("live")
    if what == "not blocking":
        closing = threading.Thread(target=printer.close, args=(30,))
        closing.start()
        text = b""
        while closing.is_alive():
            text += everything(ours)
        text += everything(ours)
        lost = sum(int(n) for n in re.findall(rb"(\d+) lines were dropped", text))
        assert text.count(b"x" * 100) + lost == 2000
    else:
        printer.close(10)
    assert not printer._thread.is_alive()


SCRIPT = """
import logging, sys, threading, warnings
from kws_serve.host import log_format
from kws_serve.host.printer import printers
with printers():
    log_format.set_up()
    for i in range(300):
        print("print", i)
        logging.warning(f"log {i}")  # each of a kind of its own: of one kind few are let through
        print("error", i, file=sys.stderr)
        warnings.warn(f"warning {i}")
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
"""


@pytest.mark.parametrize("which", ["stdout", "stderr", "both"])
def test_nothing_that_writes_to_them_waits_and_the_process_ends(which, tmp_path):
    out = BlockedOutput("pipe")
    out.block()
    with (tmp_path / "file").open("w+") as file:
        stdout, stderr = (file if which == "stderr" else out.theirs), (file if which == "stdout" else out.theirs)
        run = subprocess.run([sys.executable, "-c", SCRIPT], stdout=stdout, stderr=stderr, timeout=60)
    assert run.returncode == 0
    text = (tmp_path / "file").read_text()
    if which == "stderr":
        assert text == "".join(f"print {i}\n" for i in range(300))
    if which == "stdout":
        assert text.count('"log ') == text.count("error ") == text.count("ZeroDivisionError: ") == 300
    out.close()


def test_stdout_and_stderr_of_one_file_keep_their_order(tmp_path):
    with (tmp_path / "file").open("w") as file:
        subprocess.run([sys.executable, "-c", SCRIPT], stdout=file, stderr=file, timeout=60, check=True)
    lines = Path(tmp_path / "file").read_text().splitlines()
    found = [re.sub(r"^.*(log \d+).*$", r"\1", line) for line in lines if re.search(r"^print|^error|log \d", line)]
    assert found == [f"{word} {i}" for i in range(300) for word in ("print", "log", "error")]
