"""Puts weights, page and firmware sources into the wheel (kws_serve/_data); an editable install reads them in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = (".c", ".h", ".S", ".ld")
MODEL_FILES = ("model.json", "*.onnx", "*.tflite", "README.md", "card.json", "training_recordings.txt")


class DataHook(BuildHookInterface):  # type: ignore[misc]
    """Adds to a wheel what the service reads beside its code."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files; `version` is "standard" or "editable"."""
        if version != "standard":
            return
        root = Path(self.root)
        files = [f for m in (root / "models").glob("*/model.json") for p in MODEL_FILES for f in m.parent.glob(p)]
        files += (root / "models" / "recordings").glob("*.bin")  # of the training_recordings.txt of all models
        files += [f for f in (root / "frontend").rglob("*") if f.is_file()]
        for file in files:
            build_data["force_include"][str(file)] = f"kws_serve/_data/{file.relative_to(root).as_posix()}"
        firmware = root / "firmware_bridge"
        for file in (f for f in (firmware / "firmware").rglob("*") if f.suffix in SOURCES or f.name == "Makefile"):
            build_data["force_include"][str(file)] = f"kws_serve/_data/{file.relative_to(firmware).as_posix()}"
