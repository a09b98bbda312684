"""The GAP8 board or its simulator: its place in the table; the bridge that fills it does not exist yet."""

from __future__ import annotations

from typing import NoReturn

from kws_serve.manifest import ModelSpec
from kws_serve.messages import BackendError


def open(spec: ModelSpec, *, threads: int = 1) -> NoReturn:
    """Refuse. Raises BackendError."""
    raise BackendError(f"backend gap8: not available in this version (model {spec.name}), wanted one of onnx, tflite")
