"""A backend with a thread of its own, which alone calls it, and closes it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

from kws_serve.backends.contract import LoadedModel


class BackendThread(ABC):
    """What hands work to the thread and what does it are the heirs'; they wait and notify on `_changed`."""

    def __init__(self, loaded: LoadedModel, what: str) -> None:
        """Starts the thread, so an heir calls it last. `what`: the thread's name, before the model's."""
        self.loaded = loaded
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"{what} {loaded.spec.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Have the thread end, and close the backend once it is out of it. Does not wait."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread to end after `close`, at most this long."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        self._work()
        self.loaded.backend.close()

    @abstractmethod
    def _work(self) -> None:
        """In the thread: what was handed over, until `_closing`."""
