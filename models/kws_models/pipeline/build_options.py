"""What the command line says of a build beside the architecture's name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kws_models.evaluation.calibrate_command import Bounds
from kws_models.training.train_options import TrainOptions

TWIN_FOLD = 0  # held out by the twin of a model that learns from all recordings


@dataclass(frozen=True)
class BuildOptions:
    """Each as its argument in `kws-models build --help`."""

    data: Path
    out: Path
    training: TrainOptions
    fold: int | None = None
    weights: Path | None = None
    twin: Path | None = None
    keep_settings: bool = False
    speech: tuple[Path, ...] = ()
    bounds: Bounds = field(default_factory=Bounds)
    model_version: str = "1.0.0"
    step: bool = False

    @property
    def work(self) -> Path:
        """Where the training, the twin and the record of steps lie: beside the model's folder."""
        return self.out.with_name(f"{self.out.name}.build")
