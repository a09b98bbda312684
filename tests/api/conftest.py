from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.live_server import LiveServer, live_server
from tests.support.tiny_model import write_level_model

TOKEN = "a-token-that-only-the-tests-know"


@pytest.fixture(scope="session")
def level_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_level_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(level_model: Path) -> Iterator[LiveServer]:
    with live_server([level_model]) as running:
        yield running


@pytest.fixture(scope="module")
def locked(level_model: Path) -> Iterator[LiveServer]:
    with live_server([level_model], token=TOKEN) as running:
        yield running
