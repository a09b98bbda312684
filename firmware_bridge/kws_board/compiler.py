"""int8 TFLite -> board image, kept in the cache by the file's digest."""

from __future__ import annotations

from pathlib import Path

from kws_board.errors import BoardError
from kws_board.image import BoardImage, make_image
from kws_board.tflite_reader import read_tflite


def compile_tflite(content: bytes, name: str) -> BoardImage:
    """Raises ModelUnsupported with every reason, BoardError where the file is damaged."""
    return make_image(read_tflite(content, name))


def compile_file(path: Path) -> BoardImage:
    """The image of a file. Raises BoardError where it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BoardError(f"{path}: cannot be read: {error.strerror}, wanted an int8 TFLite file") from error
    return compile_tflite(content, path.name)
