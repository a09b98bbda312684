"""What one who follows the log is told of rows and holes: to a token of some streams, nothing that is of others'."""

from __future__ import annotations

from collections.abc import Iterable

from kws_serve.messages import Hole
from kws_serve.sinks.filter import Filter
from kws_serve.wire import dumps, hole_json


class Telling:
    """One thread at a time.

    ```text
    the log             a1  b2 [3 4]  b5 [6 7]  a8      [3 4] was a3 and b4; whose [6 7] were is not known
    who may hear all    a1  b2 [3 4]  b5 [6 7]  a8
    stream a            a1 [2 3]         [4 7]  a8      from the id after its last one to its own, or to the next row
    stream b                b2 [3 4]  b5                and [6 7] as soon as there is a b9: [6 8]  b9
    ```
    """

    def __init__(self, wanted: Filter, after: int) -> None:
        """`after`: the id up to which all is told already."""
        self.told_id = after
        self._streams = wanted.streams
        self._may_be = ""  # why some may be missing after `told_id` that may be of these streams; empty: nothing is

    def tell(self, items: Iterable[tuple[int, str] | Hole]) -> list[str]:
        """The messages about the next rows (id, text) and holes, in the order of ids."""
        found: list[str | Hole] = []
        for item in items:
            if isinstance(item, Hole):
                self._add(item, found)
                continue
            id_, text = item
            if self._may_be:
                self._gap(id_ - 1, self._may_be, found)
            self.told_id = id_
            found.append(text)
        return [dumps(hole_json(one)) if isinstance(one, Hole) else one for one in found]

    def _add(self, hole: Hole, found: list[str | Hole]) -> None:
        if self._streams is None:
            self.told_id = hole.last
            found.append(hole)
        elif hole.streams is None:
            self._may_be = self._may_be or hole.reason
        else:
            last = max((id_ for stream, id_ in hole.streams.items() if stream in self._streams), default=0)
            if last > self.told_id:
                self._gap(last, self._may_be or hole.reason, found)

    def _gap(self, last: int, reason: str, found: list[str | Hole]) -> None:
        """Tell ids up to `last`. Two gaps with no row of one's own in between are one: what parts them is others'."""
        self._may_be = ""
        before = found[-1] if found else ""
        if isinstance(before, Hole) and before.reason == reason:
            found[-1] = Hole(before.first, last, reason)
        else:
            found.append(Hole(self.told_id + 1, last, reason))
        self.told_id = last
