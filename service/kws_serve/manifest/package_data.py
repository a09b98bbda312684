"""Where the weights and the page are: inside an installed wheel, or beside the sources."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]  # kws_serve


def data_path(name: str) -> Path:
    """Folder `name` ("models", "frontend") of a wheel (kws_serve/_data), else of the source tree."""
    installed = _PACKAGE / "_data" / name
    return installed if installed.is_dir() else _PACKAGE.parents[1] / name


def demo_audio() -> Path:
    """The synthetic demo audio."""
    return _PACKAGE / "demo" / "demo.opus"
