"""`kws-models check`: a good folder passes; of a bad one every fault is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kws_models.cli import main
from kws_models.evaluation.check import check_folder
from kws_serve.manifest.folder import shipped_models_dir


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(shipped_models_dir() / "dscnn-s", tmp_path / "dscnn-s")
    return tmp_path / "dscnn-s"


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / "model.json").read_text())
    change(manifest)
    (folder / "model.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["dscnn-s", "dscnn-s-stream", "resnetse"])
def test_what_is_shipped_is_without_fault(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", str(shipped_models_dir() / name)])
    out = capsys.readouterr().out
    assert "fault" not in out and "files.onnx: runs" in out and "files.tflite: runs" in out
    assert ("files.onnx_step: frame by frame" in out) == name.endswith("-stream")


def test_every_fault_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def spoil(manifest: dict[str, Any]) -> None:
        del manifest["n_frames"]
        manifest["labels"][3] = "yes"
        manifest["front_end"]["colour"] = 1
        manifest["front_end"]["mel"]["n"] = 0
        manifest["files"]["onnx"]["sha256"] = "00"

    edit(folder, spoil)
    with pytest.raises(SystemExit) as ended:
        main(["check", str(folder)])
    out = capsys.readouterr().out
    assert ended.value.code == 2 and out.count("fault ") == 5
    for field in ("n_frames", "labels[3]", "front_end.colour", "front_end.mel.n", "files.onnx.sha256"):
        assert f"model.json: {field}: found" in out


def test_faults_across_fields_are_told_together(folder: Path) -> None:
    def spoil(manifest: dict[str, Any]) -> None:
        manifest["rest_labels"] = ["maybe"]
        manifest["patch_hop_ms"] = 30
        manifest["detection"]["*"]["off_threshold"] = 0.9
        manifest["files"]["tflite"]["path"] = "../model.int8.tflite"

    edit(folder, spoil)
    faults = check_folder(folder).faults
    assert [fault.split(":")[1].strip() for fault in faults] == [
        "rest_labels",
        "patch_hop_ms",
        "files.tflite.path",
        "detection.*.off_threshold",
    ]


def test_each_file_is_tried(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"x")
    edit(folder, lambda manifest: manifest["labels"].append("maybe"))
    faults = check_folder(folder).faults
    assert any("sha256" in fault for fault in faults) and any("labels" in fault for fault in faults)


def test_scores_that_are_none_and_missing_papers(folder: Path) -> None:
    edit(folder, lambda manifest: manifest["files"]["onnx"].update(output="sigmoid"))
    (folder / "README.md").unlink()
    (folder / "training_recordings.txt").unlink()
    edit(folder, lambda manifest: manifest["provenance"].pop("weights_licence"))
    findings = check_folder(folder)
    assert len(findings.warnings) >= 3


def test_no_folder(tmp_path: Path) -> None:
    assert "model.json: found no readable file" in check_folder(tmp_path / "no").faults[0]
