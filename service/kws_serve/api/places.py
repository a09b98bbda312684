"""Who may have one of a bounded number of places: nobody so many that the next one finds none."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from kws_serve.transport.budget import network
from kws_serve.wire import WireError

MAX_VIEWERS = 64
"""At once: for each, features and scores are copied in the engine's thread and written as JSON, 50 times a second."""

MAX_SUBSCRIBERS = 1000
"""At once: the queue of each holds up to 1 MiB (sinks/subscribers.py), all of them 1 GiB at the very worst."""


class Places:
    """Places of one kind. Who has a token of a name of its own is counted by it, wherever it is used, others by their
    address. In the server's loop.

    A peer gets a further place only while it has fewer than are free: alone it may have half of them, and one that has
    none finds one until they are all taken, by six peers at least of 64 places.
    """

    def __init__(self, what: str, most: int) -> None:
        """`what` is named in refusals."""
        self.what = what
        self.most = most
        self.refused = 0
        self._taken = 0  # all of _of: a number that any thread may read
        self._of: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._taken

    @contextlib.contextmanager
    def one(self, token: str, address: str) -> Iterator[None]:
        """A place for the bearer of the token of this name (empty: of the service's own, or there is none) at this
        address, until left. Raises WireError 4429, and no place is taken.
        """
        peer, own = (f"token {token}", "your token") if token else (network(address), "your address")
        free, mine = self.most - len(self), self._of[peer]
        if mine >= free:
            self.refused += 1
            found = f"found {len(self)} of {self.most} taken, {mine} of them by {own}"
            raise WireError(4429, f"{self.what}: {found}, wanted fewer than are free; try again later")
        self._of[peer] += 1
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
            self._of[peer] -= 1
            if not self._of[peer]:
                del self._of[peer]
