"""Ids: the next one for each new detection, none for one that the log has already; an end is told its start's."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from kws_serve.messages import Detection, StreamDone
from kws_serve.sinks.store import Store
from kws_serve.sinks.waiting import Waiting


class Numbering:
    """In the log's thread."""

    def __init__(self, store: Store, waiting: Waiting) -> None:
        self._store = store
        self._waiting = waiting
        self._on: dict[tuple[str, str, str, str], int] = {}
        """Sounds that go on, (stream, epoch, model, label) -> id of their start. Where the service was restarted in
        between, the file knows it.
        """

    def numbered(self, events: Sequence[Detection | StreamDone], last_id: int) -> list[Detection | StreamDone]:
        """The events with ids from `last_id` + 1 on, less the detections that the log has already."""
        result: list[Detection | StreamDone] = []
        seen = {d.uid for d in self._waiting.read()[0]}
        for event in events:
            if not isinstance(event, Detection):
                result.append(event)
                continue
            uid = event.uid
            if uid in seen or self._known(uid):
                continue
            seen.add(uid)
            last_id += 1
            result.append(replace(event, id=last_id, start_id=self._start_id(event, last_id)))
        return result

    def _start_id(self, d: Detection, id_: int) -> int | None:
        """Of an end: the id of its start, where there is one. A start's own `id_` is kept for its end."""
        key = (d.stream, d.epoch, d.model, d.label)
        if d.phase == "end":
            return self._on.pop(key, None) or self._open_start(d)
        if d.phase == "start":
            self._on[key] = id_
        return None

    def _known(self, uid: str) -> bool:
        try:
            return self._store.knows(uid)
        except sqlite3.Error:  # a disk that cannot be read: better twice than never
            return False

    def _open_start(self, d: Detection) -> int | None:
        try:
            return self._store.open_start(d)
        except sqlite3.Error:
            return None
