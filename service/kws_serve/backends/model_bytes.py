"""Model files as bytes: read once, capped, digest checked; a runtime is given these bytes and never a path."""

from __future__ import annotations

import hashlib

from kws_serve.manifest.regular_file import read_regular
from kws_serve.manifest.spec import FileSpec, ModelSpec
from kws_serve.messages import BackendError

MAX_MODEL_BYTES = 64 * 1024 * 1024


def file_of(spec: ModelSpec, kind: str) -> FileSpec:
    """The manifest's file for backend `kind`. Raises BackendError where it has none."""
    file = spec.files.get(kind)
    if file is None:
        found = ", ".join(spec.files) or "none"
        raise BackendError(f"backend {kind}: model {spec.name}: files: found {found}, wanted {kind}")
    return file


def read_model(file: FileSpec) -> bytes:
    """The file's bytes, whose SHA-256 is the manifest's. Raises BackendError."""
    name = file.path.name
    try:
        data = read_regular(file.path, MAX_MODEL_BYTES + 1)
    except OSError as error:
        raise BackendError(f"{name}: found no readable file ({error.strerror}), wanted {file.path}") from error
    if len(data) > MAX_MODEL_BYTES:
        raise BackendError(f"{name}: found more than {MAX_MODEL_BYTES} bytes, wanted at most that")
    digest = hashlib.sha256(data).hexdigest()
    if digest != file.sha256:
        raise BackendError(f"{name}: sha256: found {digest}, wanted {file.sha256} (model.json)")
    return data


def one_line(error: BaseException) -> str:
    """What a runtime said, as one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 240 else text[:240] + "…"
