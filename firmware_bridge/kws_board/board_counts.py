"""What happened since a board was opened."""

from __future__ import annotations

from dataclasses import dataclass

from kws_board.link import LinkCounts


@dataclass
class BoardCounts:
    """Of a board and of every link to it that was opened."""

    inferences: int = 0
    frames_sent: int = 0  # inferences for which only new frames went over the link
    reopenings: int = 0
    resets: int = 0  # the board had lost its models
    requests: int = 0
    repeats: int = 0
    bad_packets: int = 0
    stray_packets: int = 0

    def add_link(self, link: LinkCounts) -> None:
        """Take in what a link has counted."""
        self.requests += link.requests
        self.repeats += link.repeats
        self.bad_packets += link.bad_packets
        self.stray_packets += link.stray_packets
