"""The server at a glance: streams, sources, boards, the log, and other servers."""

from __future__ import annotations

from typing import Literal

from kws_serve.api.schemas import Exact
from kws_serve.api.schemas.detections import LabelSettings


class TopScore(Exact):
    """The strongest label of the last patch."""

    label: str
    score: float


class StreamItem(Exact):
    """An open stream; received = processed + dropped + buffered."""

    name: str
    epoch: str
    kind: str
    rate: int
    channels: int
    models: list[str]
    opened_at: str
    received_samples: int
    processed_samples: int
    dropped_samples: int
    buffered_samples: int
    dropped_s: float
    connected: bool
    """False while it waits for a client that has vanished."""
    level: float
    top: dict[str, TopScore]
    detection: dict[str, dict[str, LabelSettings]]
    """Model -> label -> settings in force, of the models that have settings of their own on this stream."""


class StreamList(Exact):
    """The open streams."""

    items: list[StreamItem]


class Said(Exact):
    """A word, a sound or talk."""

    label: str
    start_s: float
    end_s: float


class Demo(Exact):
    """What is really said in one round of the demo audio."""

    seconds: float
    """Of a round."""
    items: list[Said]


class ModelBackend(Exact):
    """A model and what computes it."""

    name: str
    backend: str


class BoardLayer(Exact):
    """A layer of a model on a board."""

    layer: str
    cycles: int
    operations: int


class BoardModel(Exact):
    """What one patch of a model takes, layer by layer."""

    cycle_source: str
    """Who counted: counter (the board), gvsoc, instructions (the emulator: no measure of cycles), modelled."""
    layers: list[BoardLayer]
    patch_ms: float
    """What a patch took, link included, when the model was loaded."""
    patch_hop_ms: float
    """From one patch to the next: what the board sustains."""
    model_hop_ms: float
    """The manifest's."""
    share: float
    """Of the board's time that one stream of the model takes."""


class SourceItem(Exact):
    """A source of the server's own."""

    name: str
    spec: str
    kind: str
    state: str
    detail: str
    restarts: int
    retry_in_s: float | None


class AudioSeconds(Exact):
    """Seconds of audio since the start."""

    received: float
    processed: float
    dropped: float


class BoardItem(Exact):
    """A GAP8 board, its simulator or the emulator, since it was opened."""

    name: str
    found: str
    """How it was chosen."""
    on_cpu: dict[str, str]
    """Models that run on this machine's CPU for now, and why."""
    models: dict[str, BoardModel]
    inferences: int
    frames_sent: int
    """Inferences for which only new frames went over the link."""
    reopenings: int
    resets: int
    requests: int
    repeats: int
    bad_packets: int
    stray_packets: int


class LogItem(Exact):
    """The event log."""

    durable: bool
    fault: str
    pending: int | None
    """Detections that wait for the disk."""
    bytes: int | None


class Status(Exact):
    """The server at a glance. To a token of some streams what depends on all is null, and `boards` empty."""

    name: str
    version: str
    address: str
    device: str
    user: str
    note: str
    load: float | None
    state: Literal["ON"]
    last_seen: str
    uptime_s: float
    ready: bool
    scopes: list[str]
    """What the asking token allows: listen, ingest, view, metrics, admin."""
    log_id: str
    last_id: int
    """The newest id; to a token of some streams theirs."""
    log: LogItem
    subscribers: int | None
    engine_load: float | None
    """Share of the last seconds in which the engine was busy; beyond 0.9 no further stream is taken."""
    unaccounted_samples: int | None
    """Received - processed - dropped - buffered, over all streams: always 0."""
    models: list[ModelBackend]
    verifiers: list[ModelBackend]
    """Models that look again at what others propose."""
    rejected: int | None
    """Proposals that a second model did not agree to, since the start."""
    unverified: int | None
    """Those told without it: it failed, or fell 2 s behind."""
    boards: list[BoardItem]
    sources: list[SourceItem]
    streams: list[StreamItem]
    audio_s: AudioSeconds | None
    bad_samples: int | None
    clipped_samples: int | None


class ServerRow(Exact):
    """One server, as it was when last seen."""

    name: str
    address: str
    device: str
    user: str
    note: str
    load: float | None
    streams: int | None
    state: Literal["ON", "OFF"]
    last_seen: str | None
    url: str
    """Of its page; empty: this one."""
    detail: str
    """Why it is OFF, or may soon be."""


class ServerList(Exact):
    """This server first, then those that it watches, but to a token of some streams."""

    items: list[ServerRow]


class Readiness(Exact):
    """One word."""

    status: str
