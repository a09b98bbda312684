"""Detections, and what led to one."""

from __future__ import annotations

from typing import Literal

from kws_serve.api.schemas import Exact


class DetectionMessage(Exact):
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
    start_at: str | None = None
    """Of an end: the wall time of `start_s`, as long before `at` as the sound was."""
    at: str
    """Wall time of `start_s`; of an end that of `end_s`."""
    latency_ms: float | None
    replayed: bool = False
    durable: bool
    """Whether the log had it on the disk before it was pushed."""
    verified: Literal[True] | None = None
    """Only of models with `verify`: whether a second model agreed; null: that failed or fell behind."""
    review: Literal["right", "wrong"] | None = None


class DetectionPage(Exact):
    """Detections after an id, and the id to go on from."""

    log_id: str
    reset: bool
    """Whether `after` is of another log: then these are the first of this one."""
    items: list[DetectionMessage]
    next: int


class IsolationSettings(Exact):
    """When a word stands alone: nobody talked so long before it and after it. In overrides only what was changed."""

    before_ms: float | None = None
    after_ms: float | None = None
    margin_db: float | None = None
    speech: float | None = None


class ArmingSettings(Exact):
    """Which label, decided on the same stream at most so long before, lets this one count. In overrides only what was
    changed.
    """

    model: str | None = None
    label: str | None = None
    within_s: float | None = None


class LabelSettings(Exact):
    """Detector settings of one label; of "*" only what was changed."""

    threshold: float | None = None
    off_threshold: float | None = None
    smoothing_ms: float | None = None
    k: int | None = None
    n: int | None = None
    refractory_s: float | None = None
    onset_offset_ms: float | None = None
    isolation: IsolationSettings | None = None
    armed_by: ArmingSettings | None = None


class WhyPatch(Exact):
    """The model's input that decided: rows from `first_s` to `end_s` of the stream."""

    kind: Literal["mfcc", "fbank", "raw"]
    """raw: the samples are audio and not kept; rows of the lowest and highest of 200 equal parts instead."""
    first_s: float
    end_s: float
    values: list[list[float | None]]


class WhyScores(Exact):
    """Scores of all labels around the deciding patch."""

    labels: list[str]
    end_s: list[float]
    values: list[list[float | None]]
    smoothed: list[float | None]
    """The detection's label, as compared with the thresholds; null where what came before is not kept."""


class WhySurroundings(Exact):
    """What was before a word that has to stand alone."""

    margin_db: float
    """How far the mean power before it lies below the word's loudest 60 ms."""
    speech: float
    """The model's mean score of speech there."""


class WhyVerify(Exact):
    """What a second model made of a proposal."""

    model: str
    threshold: float
    window_ms: float
    best: float | None
    """Its highest score of the label, up to where it decided; null: it failed, or fell 2 s behind."""


class WhyUntold(Exact):
    """What the model proposed in the 10 s before, and was not told."""

    label: str
    score: float
    decided_s: float
    reason: Literal["rejected", "not_armed"]
    """rejected: the second model did not agree; not_armed: the label of `armed_by` was not decided shortly before."""
    verify: WhyVerify | None


class Why(Exact):
    """What fired a detection; null: no longer kept (the last 100 are, in memory)."""

    detection: DetectionMessage
    settings: LabelSettings | None
    patch: WhyPatch | None
    scores: WhyScores | None
    surroundings: WhySurroundings | None = None
    """null: the label need not stand alone."""
    verify: WhyVerify | None = None
    """null: the model has no second one."""
    armed_s: float | None = None
    """When the label that armed it was decided; null: it needs none."""
    untold: list[WhyUntold]
    """Oldest first."""


class ReviewMark(Exact):
    """What somebody said of a detection."""

    id: int
    mark: Literal["right", "wrong"] | None
