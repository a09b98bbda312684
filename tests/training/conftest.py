"""Little synthesised speech: what is tested is that it is there, not how much."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _little_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("data.negatives._SPEECH_HOURS", "data.negatives._NEAR_HOURS", "data.event_batches._SPEECH_HOURS"):
        monkeypatch.setattr(f"kws_models.{name}", 0.01)
