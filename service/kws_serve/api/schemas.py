"""The shapes of the HTTP answers, for the OpenAPI document; tests hold the real answers against them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, RootModel


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ErrorMessage(_Exact):
    """What was found and what was wanted."""

    type: Literal["error"]
    code: int
    message: str


class DetectionMessage(_Exact):
    """A label that fired. Sample counts at the source's rate; times in s since the epoch began."""

    type: Literal["detection"]
    id: int
    uid: str
    stream: str
    epoch: str
    model: str
    version: str
    digest: str
    """First 16 hex digits of the SHA-256 of the model's file."""
    backend: str
    label: str
    score: float
    phase: Literal["once", "start", "end"]
    start_sample: int
    start_s: float
    decided_s: float
    start_id: int | None = None
    end_s: float | None = None
    at: str
    latency_ms: float | None
    replayed: bool = False
    durable: bool
    """Whether the log had it on the disk before it was pushed."""
    review: Literal["right", "wrong"] | None = None


class DetectionPage(_Exact):
    """Detections after an id, and the id to go on from."""

    items: list[DetectionMessage]
    next: int


class LabelSettings(BaseModel):
    """Detector settings of one label; of "*" only what was changed."""

    model_config = ConfigDict(extra="forbid")
    threshold: float | None = None
    off_threshold: float | None = None
    smoothing_ms: float | None = None
    k: int | None = None
    n: int | None = None
    refractory_s: float | None = None
    onset_offset_ms: float | None = None


class WhyPatch(_Exact):
    """The model's input that decided: rows from `first_s` to `end_s` of the stream."""

    kind: Literal["mfcc", "fbank", "raw"]
    """raw: the samples are audio and not kept; rows of the lowest and highest of 200 equal parts instead."""
    first_s: float
    end_s: float
    values: list[list[float | None]]


class WhyScores(_Exact):
    """Scores of all labels around the deciding patch."""

    labels: list[str]
    end_s: list[float]
    values: list[list[float | None]]
    smoothed: list[float | None]
    """The detection's label, as compared with the thresholds; null where what came before is not kept."""


class Why(_Exact):
    """What fired a detection; null: no longer kept (the last 100 are, in memory)."""

    detection: DetectionMessage
    settings: LabelSettings | None
    patch: WhyPatch | None
    scores: WhyScores | None


class ReviewMark(_Exact):
    """What somebody said of a detection."""

    id: int
    mark: Literal["right", "wrong"] | None


class TopScore(_Exact):
    """The strongest label of the last patch."""

    label: str
    score: float


class StreamItem(_Exact):
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


class StreamList(_Exact):
    """The open streams."""

    items: list[StreamItem]


class DetectionSettings(RootModel[dict[str, LabelSettings]]):
    """The settings in force per label."""


class Disagreement(_Exact):
    """Patches in which a second backend's top label differed."""

    patches: int
    of: int


class ModelItem(_Exact):
    """A loaded model."""

    name: str
    version: str
    digest: str
    on_trial: bool
    """Just reloaded: its first patches decide whether it stays."""
    task: Literal["keyword", "event"]
    labels: list[str]
    rest_labels: list[str]
    experimental_labels: list[str]
    backend: str
    backends: list[str]
    disagreements: dict[str, Disagreement]
    failed_patches: int
    error: str | None
    front_end: dict[str, Any]
    n_frames: int
    patch_hop_ms: float
    detection: dict[str, LabelSettings]
    overrides: dict[str, LabelSettings]
    accuracy: dict[str, Any]


class ModelList(_Exact):
    """The loaded models."""

    items: list[ModelItem]


class ModelBackend(_Exact):
    """A model and what computes it."""

    name: str
    backend: str


class BoardLayer(_Exact):
    """A layer of a model on a board."""

    layer: str
    cycles: int
    operations: int


class BoardModel(_Exact):
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


class SourceItem(_Exact):
    """A source of the server's own."""

    name: str
    spec: str
    kind: str
    state: str
    detail: str
    restarts: int
    retry_in_s: float | None


class AudioSeconds(_Exact):
    """Seconds of audio since the start."""

    received: float
    processed: float
    dropped: float


class BoardItem(_Exact):
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


class LogItem(_Exact):
    """The event log."""

    durable: bool
    fault: str
    pending: int
    """Detections that wait for the disk."""
    bytes: int


class Status(_Exact):
    """The server at a glance."""

    name: str
    version: str
    address: str
    device: str
    user: str
    note: str
    load: float
    state: Literal["ON"]
    last_seen: str
    uptime_s: float
    ready: bool
    scopes: list[str]
    """What the asking token allows: listen, ingest, admin."""
    log_id: str
    last_id: int
    log: LogItem
    subscribers: int
    engine_load: float
    """Share of the last seconds in which the engine was busy; beyond 0.9 no further stream is taken."""
    unaccounted_samples: int
    """Received - processed - dropped - buffered, over all streams: always 0."""
    models: list[ModelBackend]
    boards: list[BoardItem]
    sources: list[SourceItem]
    streams: list[StreamItem]
    audio_s: AudioSeconds
    bad_samples: int
    clipped_samples: int


class ServerRow(_Exact):
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


class ServerList(_Exact):
    """This server first, then those that it watches."""

    items: list[ServerRow]


class Readiness(_Exact):
    """One word."""

    status: str
