"""What flows through the service: frozen values, checked once, named as in the field.

Data flow: source -samples-> ring -windows-> front end -frames-> Scorer -scores-> Detector -Detection-> sinks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Float32Array: TypeAlias = npt.NDArray[np.float32]
Float64Array: TypeAlias = npt.NDArray[np.float64]
Int16Array: TypeAlias = npt.NDArray[np.int16]
Int64Array: TypeAlias = npt.NDArray[np.int64]

Phase = Literal["once", "start", "end"]

NAME_PATTERN = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
_NAME = re.compile(NAME_PATTERN)


def check_name(what: str, name: str) -> str:
    """`name` itself where it is a valid stream or model name; else ValueError saying what, found and wanted."""
    if not _NAME.fullmatch(name):  # fullmatch: `$` alone would let a trailing newline pass
        raise ValueError(f"{what}: found {name[:80]!r}, wanted a name matching {NAME_PATTERN}")
    return name


class KwsError(Exception):
    """A fault to tell the user about in one line, without a traceback."""


class SourceError(KwsError):
    """A source (device, file, pipe) that cannot be opened or broke."""


class BackendError(KwsError):
    """A runtime, model file, board or link that cannot be opened or broke."""


class ManifestError(KwsError, ValueError):
    """A `model.json` that is wrong: names the field, the value found and the value wanted.

    The message is the first fault's; `faults` has a line for each that was found.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__(faults[0])
        self.faults = faults


class StreamRefused(KwsError):
    """A stream the engine will not open: `code` is the WebSocket close code (4400, 4409, 4429)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Detection:
    """A label that fired. Sample counts are at the source's rate; times are seconds since the epoch began."""

    stream: str
    epoch: str
    model: str
    version: str
    backend: str
    label: str
    score: float  # the smoothed score that decided, in [0, 1]
    phase: Phase
    start_sample: int
    start_s: float
    decided_s: float  # end of the last sample of the deciding patch
    at: float  # wall time of start_s, of phase "end" of end_s; seconds since 1970
    latency_ms: float | None = None  # given by the log; None where nobody waited (files, replay)
    digest: str = ""  # first 16 hex digits of the model file's SHA-256
    arrived_s: float | None = field(default=None, compare=False)  # time.monotonic() of the deciding sample's arrival
    id: int = 0  # given by the log; 0 before
    start_id: int | None = None  # phase "end": id of its start
    end_s: float | None = None  # phase "end"
    durable: bool = False
    verified: bool | None = None  # by a second model; False: which failed; None: its model has none

    @property
    def start_at(self) -> float:
        """Wall time of `start_s`, seconds since 1970; of phase "end" as long before `at` as the sound was."""
        return self.at - (self.end_s - self.start_s) if self.phase == "end" and self.end_s is not None else self.at

    @property
    def uid(self) -> str:
        """SHA-256 over what makes this detection itself, so that a retry or another backend gives the same uid."""
        parts = (
            self.stream,
            self.epoch,
            self.model,
            self.version,
            self.label,
            str(self.start_sample),
            self.phase,
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ScoresRow:
    """One patch's scores of one model on one stream."""

    stream: str
    model: str
    end_sample: int  # at the source's rate
    end_s: float
    values: Float32Array  # (n_classes,) in [0, 1]
    epoch: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Gap:
    """Samples that were lost, exactly: `[first_sample, first_sample + n)` at the source's rate."""

    stream: str
    first_sample: int
    n: int
    reason: str  # overload, device, source, client, restart
    epoch: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Hole:
    """Ids [first, last] that the log does not have, and why: retention, not_durable, damaged or restored.

    On the wire: `log_gap`.
    """

    first: int
    last: int
    reason: str
    streams: Mapping[str, int] | None = field(default=None, hash=False)
    """Those whose rows these ids were -> the last one of each; None: nobody knows."""


@dataclass(frozen=True, slots=True)
class StreamDone:
    """The stream has ended: all `samples` were processed and no further event follows."""

    stream: str
    samples: int
    epoch: str = field(default="", compare=False)
    rate_hz: int = field(default=16000, compare=False)

    @property
    def seconds(self) -> float:
        """Length of the stream."""
        return self.samples / self.rate_hz


class Position(NamedTuple):
    """How far a stream that a client feeds was processed, and whose it is."""

    stream: str
    epoch: str
    sample: int  # the next to process, at the source's rate
    owner: str = ""  # SHA-256 of the name of its client's token


@dataclass(frozen=True, slots=True)
class Features:
    """New frames of a stream, evenly from `first_s` to `end_s`; of raw samples their envelope, for those are audio."""

    stream: str
    first_s: float
    end_s: float
    values: Float32Array  # (m, frame_width); raw: (m, 2) lowest and highest


@dataclass(frozen=True, slots=True)
class Level:
    """A stream's peak, falling by half in 0.1 s."""

    stream: str
    peak: float  # in [0, 1]


@dataclass(frozen=True, slots=True)
class StreamState:
    """Whether a stream of this name is open; where it is, which."""

    stream: str
    epoch: str = ""  # empty: none is open
    rate_hz: int = 0
    kind: str = ""


View: TypeAlias = "Features | Level | StreamState | ScoresRow | Gap"

Event: TypeAlias = Detection | ScoresRow | Gap | StreamDone

JsonObject: TypeAlias = dict[str, Any]
