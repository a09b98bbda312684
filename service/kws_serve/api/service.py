"""The running parts, as the API's routes find them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kws_serve.api.ingest import Ingest
from kws_serve.api.places import MAX_SUBSCRIBERS, MAX_VIEWERS, Places
from kws_serve.api.slices import Slices
from kws_serve.backends.contract import LoadedModel
from kws_serve.engine.engine import Engine
from kws_serve.engine.runner import EngineRunner
from kws_serve.messages import JsonObject
from kws_serve.sinks.event_log import EventLog


@dataclass
class Service:
    """The running parts that the API shows."""

    engine: Engine
    runner: EngineRunner
    log: EventLog
    ingest: Ingest
    address: str = ""
    sources: Callable[[], Sequence[Any]] = lambda: ()  # SourceState of each source
    load_model: Callable[[str], list[LoadedModel]] = lambda _: []  # reads a model's folder again
    watched: Callable[[], list[JsonObject]] = list  # a row for each server that this one watches
    load_verifier: Callable[[str], LoadedModel] | None = None
    note: str = ""
    viewers: Places = field(default_factory=lambda: Places("viewers", MAX_VIEWERS))
    subscribers: Places = field(default_factory=lambda: Places("subscribers", MAX_SUBSCRIBERS))
    began_s: float = field(default_factory=time.monotonic)
    reloading: asyncio.Lock = field(default_factory=asyncio.Lock)  # one model at a time

    def __post_init__(self) -> None:
        self.slices = Slices(lambda: bool(self.engine.streams))
