"""What is asked of the log, and what it answers: a filter and rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from kws_serve.messages import Detection, Hole

Review = Literal["right", "wrong"]
REVIEWS: tuple[Review, ...] = get_args(Review)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which detections are wanted; None: all. `since` <= at < `until`, seconds since 1970."""

    stream: str | None = None
    label: str | None = None
    since: float | None = None
    until: float | None = None
    min_score: float | None = None
    streams: frozenset[str] | None = None  # what a token may hear

    def takes(self, detection: Detection) -> bool:
        """Whether `detection` is wanted."""
        d = detection
        return (
            self.stream in (None, d.stream)
            and self.label in (None, d.label)
            and (self.streams is None or d.stream in self.streams)
            and (self.since is None or d.at >= self.since)
            and (self.until is None or d.at < self.until)
            and (self.min_score is None or d.score >= self.min_score)
        )

    def takes_hole(self, hole: Hole) -> bool:
        """Whether rows of streams that may be heard can be among what is missing."""
        return self.streams is None or hole.streams is None or not self.streams.isdisjoint(hole.streams)

    def sql(self) -> tuple[str, list[object]]:
        """The same as conditions on rows, beginning with AND, and their values."""
        text = ""
        values: list[object] = []
        for condition, value in (
            ("stream = ?", self.stream),
            ("label = ?", self.label),
            ("at >= ?", self.since),
            ("at < ?", self.until),
            ("score >= ?", self.min_score),
        ):
            if value is not None:
                text, values = f"{text} AND {condition}", [*values, value]
        if self.streams is not None:
            text += f" AND stream IN ({','.join('?' * len(self.streams))})"
            values += sorted(self.streams)
        return text, values


@dataclass(frozen=True, slots=True)
class Logged:
    """A detection as the log keeps it, and whether somebody marked it right or wrong."""

    detection: Detection
    review: Review | None = None
