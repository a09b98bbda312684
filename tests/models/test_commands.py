"""kws-models' commands as a user types them: what is wrong is one line on standard error and exit 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from kws_models.cli import main


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
    ],
)
def test_one_line_says_what_is_wrong(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and said in error and error.count("\n") == 1


def test_check_of_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", str(tmp_path)])
    assert ended.value.code == 2 and "fault    model.json: found no readable file" in capsys.readouterr().out
