"""Feature patches as PGM images, like the reference's sample generation, and back.

A binary PGM: `P5`, width (coefficients) and height (frames), `255`, then the int8 values of the model's own input
scale as bytes, row after row.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from kws_board.errors import BoardError
from kws_board.integer_model import Int8Array, Map
from kws_serve.messages import Float32Array

_HEADER = re.compile(rb"P5\s+(\d{1,5})\s+(\d{1,5})\s+255\s", re.ASCII)


def quantised(patch: Float32Array, target: Map) -> Int8Array:
    """Features (n_frames, n_coeffs) as the model's int8 input: floor(x / scale + 0.5) + zero point."""
    q = np.floor(np.asarray(patch, np.float64) / target.scale + 0.5) + target.zero_point
    return np.asarray(np.clip(q, -128, 127), np.int8)


def write_pgm(path: Path, patch: Int8Array) -> None:
    """Write an int8 patch (n_frames, n_coeffs). Raises BoardError where the file cannot be written."""
    height, width = patch.shape
    try:
        path.write_bytes(b"P5\n%d %d\n255\n" % (width, height) + patch.astype(np.int8).tobytes())
    except OSError as error:
        raise BoardError(f"{path}: cannot be written: {error.strerror}") from error


def read_pgm(path: Path) -> Int8Array:
    """An int8 patch (n_frames, n_coeffs). Raises BoardError where the file is no such image."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BoardError(f"{path}: cannot be read: {error.strerror}, wanted a PGM image") from error
    header = _HEADER.match(content)
    if header is None:
        raise BoardError(f"{path}: found no binary PGM of depth 255, wanted one")
    width, height = int(header[1]), int(header[2])
    values = content[header.end() :]
    if len(values) != width * height or not values:
        raise BoardError(f"{path}: found {len(values)} values, wanted {width} x {height}")
    return np.frombuffer(values, np.int8).reshape(height, width).copy()
