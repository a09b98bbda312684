"""kws-models' commands as a user types them: what is wrong is one line on standard error and exit 2."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from kws_models.cli import COMMANDS, main
from kws_serve.manifest.folder import shipped_models_dir

SHIPPED = shipped_models_dir()


def error_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says before it exits with 2."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["describe", "dscnn-xl"], "model: found 'dscnn-xl', wanted one of"),
        (["describe", "dscnn-s", "--batch-norm"], "--batch-norm: found dscnn-s, wanted a model of the 1D-CNN family"),
        (["evaluate", "dscnn-xl", "--data", "."], "model: found no dscnn-xl, wanted one of"),
        (["filters", "dscnn-xl"], "model: found no dscnn-xl, wanted one of"),
        (["compare", "dscnn-s", "resnetse", "--data", "."], "compare: found labels"),
        (["compare", "dscnn-s", "dscnn-s"], "compare: found no --data"),
        (["evaluate", "dscnn-s", "--data", "no-such-folder", "--stream"], "--data: found no folder no-such-folder"),
        (
            ["evaluate", "dscnn-s", "--data", ".", "--backend", "tf"],
            "--backend: found 'tf', wanted one of onnx, tflite",
        ),
        (["evaluate", "dscnn-s", "--data", ".", "--split", "x"], "--split: found 'x', wanted one of all, validation"),
        (["train", "m1", "--data", ".", "--dropout", "1"], "--dropout: found '1', wanted 0 <= P < 1"),
        (["train", "m1", "--data", ".", "--steps", "0"], "--steps: found '0', wanted a whole number >= 1"),
        (
            ["train", "m1", "--data", ".", "--silence", "nan"],
            "--silence: found 'nan', wanted a percentage from 0 to 100",
        ),
        (["export", "m1", "--data", ".", "--out", "x", "--fold", "5", "--weights", "y"], "--fold: found '5', wanted a"),
        (["paired", "no-such-folder", "--data", "."], "model.json: found no readable file"),
        (["paired", str(SHIPPED / "dscnn-s"), "--data", "."], "provenance.held_out_fold: found None, wanted a fold"),
        (["paired", str(SHIPPED / "m2"), "--data", "no-such-folder"], "data: found no folder no-such-folder, wanted"),
        (["paired", "--data", "."], "the following arguments are required: FOLDER"),
    ],
)
def test_one_line_says_what_is_wrong(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of(words, capsys)
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hours", "0"], "--hours: found '0', wanted hours > 0"),
        (["--hours", "inf"], "--hours: found 'inf', wanted hours > 0"),
        (["--hours", "six"], "--hours: found 'six', wanted hours > 0"),
        (["--max-fa-per-hour", "-1"], "--max-fa-per-hour: found '-1', wanted a number >= 0"),
        (["--max-hard-accepts", "0.5"], "--max-hard-accepts: found '0.5', wanted a whole number >= 0"),
        (["--fold", "5"], "--fold: found '5', wanted a whole number from 0 to 4"),
        ([], "data: found no folder no-such-folder, wanted one with a folder for each label"),
    ],
)
def test_calibrate_says_what_is_wrong(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of(["calibrate", str(SHIPPED / "dscnn-s"), "--data", "no-such-folder", "--fold", "0", *words], capsys)
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize("add", COMMANDS, ids=lambda add: add.__name__)
def test_help_of_each_command_has_an_example_that_is_understood(add, capsys: pytest.CaptureFixture[str]) -> None:
    name = add.__name__.removeprefix("add_")
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    text = capsys.readouterr().out
    (example,) = re.findall(r"^example:\n  kws-models (.*)$", text, re.MULTILINE)
    assert ended.value.code == 0 and example.split()[0] == name
    unknown = set(re.findall(r"(?<![\w-])--[a-z-]+", example)) - set(
        re.findall(r"(?<![\w-])--[a-z-]+", text[: text.index("example:")])
    )
    assert unknown == set()


def test_a_folder_without_a_manifest_is_told_apart_from_an_unknown_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "model.json: found no readable file" in error_of(["filters", str(tmp_path)], capsys)


def test_a_shipped_model_is_found_beside_a_folder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dscnn-s").mkdir()  # a training's folder, say
    monkeypatch.chdir(tmp_path)
    error = error_of(["compare", "dscnn-s", "dscnn-s", "--data", "nowhere"], capsys)
    assert "data: found no folder nowhere" in error
    shutil.copy(SHIPPED / "resnetse" / "model.json", tmp_path / "dscnn-s")
    assert "found no readable file" in error_of(["evaluate", "dscnn-s", "--data", "."], capsys)


def test_check_of_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", str(tmp_path)])
    assert ended.value.code == 2 and "fault    model.json: found no readable file" in capsys.readouterr().out
