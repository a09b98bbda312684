"""The loaded models and their settings."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import RootModel

from kws_serve.api.schemas import Exact
from kws_serve.api.schemas.detections import LabelSettings


class DetectionSettings(RootModel[dict[str, LabelSettings]]):
    """The settings in force per label."""


class Disagreement(Exact):
    """Patches in which a second backend's top label differed, and those not compared: it was behind, or failed."""

    patches: int
    of: int
    left_out: int


class CurvePoint(Exact):
    """At `threshold`: the share of words or events that was found, false accepts an hour of real people talking."""

    threshold: float
    found_share: float
    per_hour: float


class VerifySettings(Exact):
    """Which model looks again at what this one proposes."""

    model: str
    threshold: float
    window_ms: float


class Proposed(Exact):
    """What became of what a model proposed, since the start."""

    verified: int
    waited: int
    """Of these, decided after their deciding patch."""
    rejected: int
    unverified: int
    """Told all the same, with `verified` null: the second model failed, or fell 2 s behind."""
    not_armed: int
    """Not told: the label of `armed_by` was not told shortly before."""


class ModelItem(Exact):
    """A loaded model. To a token of some streams `on_trial`, `disagreements`, `failed_patches`, `error` and `proposed`
    are null: they depend on the patches of all.
    """

    name: str
    version: str
    digest: str
    on_trial: bool | None
    """Just reloaded: its first patches decide whether it stays."""
    task: Literal["keyword", "event"]
    labels: list[str]
    rest_labels: list[str]
    experimental_labels: list[str]
    backend: str
    backends: list[str]
    disagreements: dict[str, Disagreement] | None
    failed_patches: int | None
    error: str | None
    front_end: dict[str, Any]
    n_frames: int
    patch_hop_ms: float
    verify: VerifySettings | None
    proposed: Proposed | None
    detection: dict[str, LabelSettings]
    overrides: dict[str, LabelSettings]
    """What was changed for all streams."""
    stream_overrides: dict[str, dict[str, LabelSettings]]
    """What was changed for single ones, by name, open or not; to a token of some streams its own."""
    accuracy: dict[str, Any]
    curve: list[CurvePoint]
    """Measured when the model was made: one threshold for all labels, thresholds rising; empty where nobody did."""


class VerifierItem(Exact):
    """A model that looks again at what others propose; alone it tells nothing. To a token of some streams `patches` and
    `error` are null.
    """

    name: str
    version: str
    digest: str
    backend: str
    labels: list[str]
    verifies: list[str]
    """The models that propose."""
    patches: int | None
    """Scored since it was loaded."""
    error: str | None
    """Why it last failed."""


class ModelList(Exact):
    """The loaded models, and those that look again at what they propose."""

    items: list[ModelItem]
    verifiers: list[VerifierItem]
