"""Backends: what turns patches into scores. A new one is a module with `open(spec)`, a line here and an extra.

Modules are imported when first opened, so a service without TFLite never loads it.
"""

from __future__ import annotations

from importlib import import_module

from kws_serve.backends.contract import Backend
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import BackendError

BACKENDS: dict[str, str] = {
    "onnx": "kws_serve.backends.onnx",
    "tflite": "kws_serve.backends.tflite",
    "gap8": "kws_serve.backends.gap8",
}
"""Backend name -> module with `open(spec, *, threads) -> Backend`."""


def open_backend(kind: str, spec: ModelSpec, *, threads: int = 1, board: str | None = None) -> Backend:
    """Open `spec`'s file on backend `kind`, self-tested; `board`: which one a backend of boards uses (default auto).

    Raises BackendError in one line: what, found, wanted.
    """
    module_name = BACKENDS.get(kind)
    if module_name is None:
        raise BackendError(f"backend: found {kind[:80]!r}, wanted one of {', '.join(BACKENDS)}")
    if threads < 1:
        raise BackendError(f"backend {kind}: threads: found {threads}, wanted an integer >= 1")
    backend: Backend = import_module(module_name).open(spec, threads=threads, board=board or "auto")
    return backend
