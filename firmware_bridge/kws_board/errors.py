"""What can go wrong on the way to a board, told in one line."""

from __future__ import annotations

from kws_serve.messages import BackendError


class BoardError(BackendError):
    """A model, image, link, board or tool that cannot be used: what was found and what was wanted."""


class ModelUnsupported(BoardError):
    """A TFLite file that the board cannot run; `faults` has a line for each reason."""

    def __init__(self, what: str, faults: list[str]) -> None:
        super().__init__(f"{what}: {faults[0]}" + (f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""))
        self.faults = faults
