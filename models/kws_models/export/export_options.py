"""What the command line says of an export beside the architecture's name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ExportOptions:
    """Each as its argument in `kws-models export --help`."""

    data: Path
    cache: Path
    weights: Path
    out: Path
    fold: int | None = None
    model_version: str = "1.0.0"
    batch_norm: bool | None = None
    float_tflite: bool = False
    qdq: bool = False
    step: bool = False
