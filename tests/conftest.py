"""Fixtures of all tests: the recordings, a free port, and the rule that nothing is skipped in CI."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["KWS_DATA_DIR"] = tempfile.mkdtemp(prefix="kws-tests-")  # no test writes to a home folder

IN_CI = os.environ.get("KWS_CI") == "1"


ONE_BY_ONE = ("board/test_b", "commands", "integration/test_three", "reliability", "sources", "transport")
"""Where tests begin that start many processes, or boards, or sound cards, beneath `tests`. With pytest-xdist one worker
runs them, while the others run the rest, which computes or waits. What fills the machine is marked `alone`."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """The largest scope is handed out first: what runs one by one."""
    from xdist.scheduler import LoadScopeScheduling

    class Spread(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "one by one" if nodeid.removeprefix("tests/").startswith(ONE_BY_ONE) else nodeid

    return Spread(config, log)


@pytest.fixture(autouse=True)
def own_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Services that a test starts keep their log in a folder of its own."""
    monkeypatch.setenv("KWS_DATA_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture(autouse=True)
def own_log_handlers() -> Iterator[None]:
    """A command that a test runs within itself logs to a stderr that is the test's: not after it."""
    before = set(logging.root.handlers)
    yield
    for handler in set(logging.root.handlers) - before:
        if type(handler) is logging.StreamHandler:
            logging.root.removeHandler(handler)


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of real recordings that KWS_DATA names; skipped aloud without it."""
    folder = os.environ.get("KWS_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real recordings: set KWS_DATA to their folder")
    return Path(folder).resolve()


@pytest.fixture
def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """In CI a skip for a missing part is a failure."""
    outcome = yield
    report = outcome.get_result()
    if IN_CI and report.skipped and not hasattr(report, "wasxfail") and not item.get_closest_marker("optional"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where nothing may be missing: {call.excinfo.value if call.excinfo else ''}"
