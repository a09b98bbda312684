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


class ModelItem(Exact):
    """A loaded model. To a token of some streams `on_trial`, `disagreements`, `failed_patches` and `error` are null:
    they depend on the patches of all.
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
    detection: dict[str, LabelSettings]
    overrides: dict[str, LabelSettings]
    accuracy: dict[str, Any]
    curve: list[CurvePoint]
    """Measured when the model was made: one threshold for all labels, thresholds rising; empty where nobody did."""


class ModelList(Exact):
    """The loaded models."""

    items: list[ModelItem]
