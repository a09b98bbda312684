"""What `kws-models` and `kws-board` tell of themselves: near names, options explained, progress, whose figures."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from kws_board.cli import main as board
from kws_models.cli import main
from kws_models.evaluation.chosen_model import choose_model
from kws_serve.manifest.folder import shipped_models_dir
from kws_serve.messages import KwsError


def refused(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_a_name_that_is_none_is_answered_with_those_that_are_near(capsys):
    said = refused("describe", "dscnn-x", capsys=capsys)
    assert "did you mean dscnn-s" in said and "kws-models list" in said
    assert len(said) < 200  # not all 75
    said = refused("describe", "zzz", capsys=capsys)
    assert "kws-models list" in said and "did you mean" not in said


def test_help_of_evaluate_explains_its_options(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    _, _, said = capsys.readouterr().out.partition("Three ways")
    explained = dict(re.findall(r"^  (--[a-z-]+)\s+(.*(?:\n {10}.*)*)", said, re.MULTILINE))
    for option, word in {
        "--fold": "hash", "--split": "Speech Commands", "--stream": "label file", "--talk": "wants --fold",
        "--include-training": "training_recordings.txt",
    }.items():  # fmt: skip
        assert word in explained[option]


def test_a_model_of_ones_own_folder_is_found_by_its_name(tmp_path, capsys):
    shutil.copytree(shipped_models_dir() / "m2", tmp_path / "models" / "m2")
    assert choose_model("m2", tmp_path / "models").folder == tmp_path / "models" / "m2"
    assert choose_model("dscnn-s", tmp_path / "models").name == "dscnn-s"
    with pytest.raises(KwsError, match="--model-dir: found no folder"):
        choose_model("m2", tmp_path / "none")
    said = refused("evaluate", "mine", "--model-dir", str(tmp_path / "models"), "--data", str(tmp_path), capsys=capsys)
    assert "mine" in said and "unrecognized" not in said


def test_filters_tell_what_they_draw_before_they_do(tmp_path, capsys):
    main(["filters", "m2", "--out", str(tmp_path / "out")])
    told = capsys.readouterr()
    assert told.err.startswith(f"drawing the filters of m2 into {tmp_path / 'out'}")
    assert len(told.out.splitlines()) >= 2


def test_an_estimate_says_whose_software_its_cycles_are_of(capsys):
    board(["profile", "--estimate", str(shipped_models_dir() / "dscnn-s" / "model.int8.tflite")])
    said = capsys.readouterr().out
    assert "reference's software" in said and "390,574" in said
    assert "390,574" in (Path(__file__).parents[2] / "README.md").read_text()  # what it is told apart from
