"""A signal ends the wait wherever it comes: between any two lines that the waiting thread runs."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os, signal, sys
from kws_serve.host.stop_signal import StopSignal

def signalled(at):
    # SIGTERM before the line of that number that the waiting runs; exits 0 where the wait ends by it, 3 where the
    # waiting has no line of that number, and by SIGALRM where it never ends.
    stop, lines = StopSignal(), 0
    stop.install()
    def trace(frame, event, argument):
        nonlocal lines
        if event == "line":
            if lines == at:
                signal.raise_signal(signal.SIGTERM)
            lines += 1
        return trace
    signal.alarm(10)
    sys.settrace(trace)
    came = stop.wait(0.01)
    came = stop.wait(0.01) or came
    sys.settrace(None)
    if lines <= at:
        os._exit(3)
    came = came or stop.wait(10)
    os._exit(0 if came and stop.came and stop.wait(0) else 1)

at = 0
while True:
    child = os.fork()
    if child == 0:
        signalled(at)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 3:
        break
    if status != 0:
        sys.exit(f"at line {at}: exit {status}")
    at += 1
print(at)
"""


def test_a_signal_between_any_two_lines_of_the_wait_ends_it():
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 5
