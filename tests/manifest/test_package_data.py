"""Weights and page are found beside the sources, and inside an installed wheel."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from kws_board import firmware
from kws_serve.manifest import package_data
from kws_serve.manifest.folder import shipped_models_dir

ROOT = Path(__file__).resolve().parents[2]


def test_in_a_source_tree() -> None:
    assert shipped_models_dir() == ROOT / "models"
    assert package_data.data_path("frontend") == ROOT / "frontend"


def test_in_an_installed_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_data" / "models").mkdir(parents=True)
    monkeypatch.setattr(package_data, "_PACKAGE", tmp_path)
    assert shipped_models_dir() == tmp_path / "_data" / "models"
    (tmp_path / "_data" / "firmware").mkdir()
    assert firmware.sources() == tmp_path / "_data" / "firmware"


def test_the_wheel_has_what_a_board_and_an_evaluation_need(tmp_path: Path) -> None:
    """Every source of the firmware, so that an installed service builds the emulator's; all keys of recordings."""
    spec = importlib.util.spec_from_file_location("build_hook", ROOT / "service" / "build_hook.py")
    assert spec is not None and spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    data: dict[str, dict[str, str]] = {"force_include": {}}
    made = hook.DataHook.__new__(hook.DataHook)
    made._BuildHookInterface__root = str(ROOT)
    made.initialize("standard", data)
    packed = set(data["force_include"].values())
    sources = [p for p in firmware.sources().rglob("*") if p.is_file()]
    assert {f"kws_serve/_data/firmware/{p.relative_to(firmware.sources()).as_posix()}" for p in sources} <= packed
    assert "kws_serve/_data/models/dscnn-s/model.int8.tflite" in packed
    lists = (ROOT / "models").glob("*/training_recordings.txt")
    keys = {line.split()[0] for path in lists for line in path.read_text().splitlines() if line[0] != "#"}
    assert keys and {f"kws_serve/_data/models/recordings/{name}" for name in keys} <= packed
