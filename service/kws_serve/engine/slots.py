"""Who is open: streams by name and by slot. A slot is a stream's row in every array of the engine."""

from __future__ import annotations

import threading
from collections.abc import Callable

from kws_serve.engine.admission import Load
from kws_serve.engine.stream import Stream


class Slots:
    """The open streams. Any thread opens one; only the engine's thread lets one go."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.by_name: dict[str, Stream] = {}
        self.by_slot: list[Stream | None] = []  # one that was abandoned keeps its slot until it is finished
        self.lock = threading.Lock()  # who is open, and the sums of those that were, change together
        self._free: list[int] = []
        self._joining: list[Stream] = []

    def join(self, make: Callable[[int], Stream]) -> Stream:
        """The stream that `make` makes for a free slot. With the lock held."""
        slot = self._free.pop() if self._free else len(self.by_slot)
        stream = make(slot)
        self.by_name[stream.name] = stream
        if slot == len(self.by_slot):
            self.by_slot.append(stream)
        else:
            self.by_slot[slot] = stream
        self._joining.append(stream)
        if stream.live:
            self._load.joined(stream)
        return stream

    def joined(self) -> tuple[list[Stream], int]:
        """Those that have come since the last call, and how many slots there are."""
        with self.lock:
            joining, self._joining = self._joining, []
            return joining, len(self.by_slot)

    def everyone(self) -> list[Stream]:
        """Those that have a slot. With the lock held, where it has to fit other figures."""
        return [stream for stream in self.by_slot if stream is not None]

    def at(self, slot: int) -> Stream:
        """The stream in a slot that is taken."""
        stream = self.by_slot[slot]
        assert stream is not None
        return stream

    def free_name(self, stream: Stream) -> None:
        """Another may have its name. Any thread."""
        with self.lock:
            if self.by_name.get(stream.name) is stream:
                del self.by_name[stream.name]
            if stream.live:
                self._load.left(stream)

    def leave(self, stream: Stream) -> None:
        """Another may have its slot. With the lock held."""
        self.by_slot[stream.slot] = None
        self._free.append(stream.slot)
