"""Weights and page are found beside the sources, and inside an installed wheel."""

from __future__ import annotations

from pathlib import Path

import pytest

from kws_serve import package_data
from kws_serve.model_folder import shipped_models_dir

ROOT = Path(__file__).resolve().parents[1]


def test_in_a_source_tree() -> None:
    assert shipped_models_dir() == ROOT / "models"
    assert package_data.data_path("frontend") == ROOT / "frontend"


def test_in_an_installed_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_data" / "models").mkdir(parents=True)
    monkeypatch.setattr(package_data, "_PACKAGE", tmp_path)
    assert shipped_models_dir() == tmp_path / "_data" / "models"
