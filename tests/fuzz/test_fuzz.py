"""S16: every parser of bytes from outside, fuzzed by coverage: 5 s each here, 10^6 inputs each in `make proof`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.campaigns.proof import FULL, record
from tests.fuzz.targets import ROOT, TARGETS

pytest.importorskip("atheris", reason="atheris has no wheel for this platform", exc_type=ImportError)


def fuzzed(name: str) -> subprocess.CompletedProcess[str]:
    limit = ["--runs", "1000000"] if FULL else ["--seconds", "5"]
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", name, *limit], capture_output=True, text=True, cwd=ROOT
    )


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """The parsers whose tests were asked for, two at a time."""
    asked = [item.callspec.params["name"] for item in request.session.items if "no_hang" in item.name]
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(fuzzed, name) for name in asked}


@pytest.mark.parametrize("name", TARGETS)
def test_s16_no_uncaught_exception_no_hang(name, runs):
    run = runs[name].result()
    assert run.returncode == 0, run.stderr[-4000:]
    executed = re.search(r"number_of_executed_units: (\d+)", run.stderr) or re.search(r"Done (\d+) runs", run.stderr)
    assert executed, run.stderr[-2000:]
    record(f"S16 {name}", f"{int(executed[1]):,} inputs", "0 uncaught exceptions, 0 hangs")


@pytest.mark.parametrize("name", TARGETS)
def test_s16_the_seeds_are_taken_or_refused(name):
    target = TARGETS[name]()
    taken = 0
    for seed in target.seeds:
        try:
            target.run(seed)
            taken += 1
        except target.refusals:
            pass
    assert taken or name in ("tflite", "onnx", "websocket")
