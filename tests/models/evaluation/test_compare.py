"""`kws-models compare` and the paired statistics under it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws_models.cli import main
from kws_models.evaluation.intervals import paired, poisson, report
from kws_models.zoo.architectures import ARCHITECTURES
from kws_models.zoo.reference_confusions import reference_confusions, reference_report
from kws_serve.manifest.folder import load_model, shipped_models_dir
from tests.models.evaluation.test_evaluation import write_clip

LABELS = ("three", "tree", "cat")


def write_report(path: Path, confusion: list[list[int]], labels: tuple[str, ...] = LABELS) -> str:
    path.write_text(json.dumps(report(labels, np.array(confusion))))
    return str(path)


def test_the_pair_that_changed_most_comes_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_report(tmp_path / "a.json", [[80, 20, 0], [15, 85, 0], [1, 0, 99]])
    b = write_report(tmp_path / "b.json", [[95, 5, 0], [5, 95, 0], [0, 1, 99]])
    main(["compare", a, b, "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["changed"][0]["pair"] == "three/tree" and result["changed"][0]["counts"] == [35, 10]
    main(["compare", a, b])
    out = capsys.readouterr().out
    assert "three/tree" in out and "17.5 % -> 5.0 %" in out and "accuracy 0.8800 of 300, 0.9633 of 300" in out


@pytest.mark.parametrize(
    ("b", "said"),
    [('{"labels": ["a"], "confusion": [[1]], "accuracy": 1}', "wanted the same"), ("{}", "wanted a file of")],
)
def test_what_cannot_be_compared_is_refused(
    b: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write_report(tmp_path / "a.json", [[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    (tmp_path / "b.json").write_text(b)
    with pytest.raises(SystemExit) as ended:
        main(["compare", a, str(tmp_path / "b.json")])
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_two_models_on_the_same_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("yes", "no"):
        (tmp_path / word).mkdir()
        for i in range(3):
            write_clip(tmp_path / word / f"s{i}_nohash_0.wav", i, seconds=1.0, rate_hz=16000)
    main(["compare", "dscnn-s", "dscnn-s", "--data", str(tmp_path), "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["n"] == [6, 6] and result["changed"] == []
    assert result["paired"]["difference"] == 0.0 and result["paired"]["p_value"] == 1.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200))
def test_a_paired_interval_holds_its_difference_and_turns_with_the_order(pairs: list[tuple[bool, bool]]) -> None:
    first, second = np.array(pairs, bool).T
    there, back = paired(first, second), paired(second, first)
    assert there.interval[0] - 1e-9 <= there.difference <= there.interval[1] + 1e-9
    assert there.difference == pytest.approx(-back.difference)
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))
    assert 0.0 <= there.p_value <= 1.0 and there.p_value == back.p_value


def test_a_paired_interval_covers_the_truth() -> None:
    """The first is right with 0.9, the second with 0.93, and mostly on the same clips: 400 samples of 300."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        shares = rng.choice(4, 300, p=(0.88, 0.02, 0.05, 0.05))  # both, only first, only second, neither
        low, high = paired(shares <= 1, (shares == 0) | (shares == 2)).interval
        covered += low <= 0.03 <= high
    assert 0.93 <= covered / 400 <= 0.99


def test_exact_figures() -> None:
    """McNemar: 9 against 2, twice the binomial's tail. Poisson: Garwood's limits, as tables print them."""
    right = np.repeat([[True, True], [True, False], [False, True], [False, False]], [12, 9, 2, 21], axis=0)
    found = paired(right[:, 1], right[:, 0])
    assert found.difference == pytest.approx(7 / 44)
    assert found.p_value == pytest.approx(2 * sum(math.comb(11, i) for i in range(3)) / 2**11)
    for events, low, high in ((0, 0.0, 3.689), (1, 0.0253, 5.572), (10, 4.795, 18.391)):
        assert poisson(events, 1.0) == pytest.approx([low, high], abs=2e-3)
    assert poisson(10, 2.0) == pytest.approx([4.795 / 2, 18.391 / 2], abs=2e-3)


def test_the_documents_matrices_have_the_accuracy_that_they_print() -> None:
    known = reference_confusions()
    assert len(known) == 9
    for name, found in known.items():
        told = reference_report(name, found["labels"])
        contradicts = name == "cnn1d-base-5conv-2fc"  # the document prints 0.9090 beside a matrix of 0.9283
        assert (abs(told["accuracy"] - found["printed_accuracy"]) < 3e-4) != contradicts, name
    sums = {tuple(map(sum, found["confusion"])) for name, found in known.items() if name.startswith("cnn1d")}
    assert len(sums) == 1  # one test set, so rows are true


def test_a_model_beside_the_documents_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("yes", "no"):
        for i in range(3):
            write_clip(tmp_path / "data" / word / f"s{i}_nohash_0.wav", i, seconds=1.0, rate_hz=16000)
    main(["compare", "dscnn-s", "reference", "--data", str(tmp_path / "data"), "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["names"] == ["dscnn-s", "reference:dscnn-s/test"] and result["n"] == [6, 4890]
    assert result["accuracy"][1] == 4362 / 4890 and "paired" not in result
    report = tmp_path / "report.json"
    report.write_text(
        json.dumps({k: result[k] for k in ("labels",)} | {"confusion": result["confusion"][0], "accuracy": 0})
    )
    main(["compare", str(report), "reference:dscnn-l/validation"])
    assert "the document's clips are others" in capsys.readouterr().out


def test_words_in_another_order_are_the_same_words(tmp_path: Path) -> None:
    labels = list(ARCHITECTURES["cnn1d-custom32-8"].labels)
    told = reference_report("cnn1d-custom32-8", labels)
    theirs = reference_confusions()["cnn1d-custom32-8"]
    i, j = labels.index("tree"), labels.index("three")
    there = [theirs["labels"].index(x) for x in ("tree", "three")]
    assert told["confusion"][i][j] == theirs["confusion"][there[0]][there[1]] and told["accuracy"] == 4590 / 4815


def test_a_card_has_a_matrix_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "dscnn-s"
    shutil.copytree(shipped_models_dir() / "dscnn-s", folder)
    for words, said in (
        ([str(folder), "reference"], "found neither --data nor"),
        ([str(folder), "reference:none", "--data", str(tmp_path)], "data: found"),
    ):
        with pytest.raises(SystemExit):
            main(["compare", *words])
        assert said in capsys.readouterr().err
    labels = load_model(folder).labels
    own = report(labels, np.eye(12, dtype=np.int64) * 7)
    (folder / "card.json").write_text(json.dumps({"float32": own}))
    main(["compare", str(folder), "reference:dscnn-m", "--json"])
    assert json.loads(capsys.readouterr().out)["accuracy"] == [1.0, 4532 / 4890]
    with pytest.raises(SystemExit):
        main(["compare", str(folder), "reference:m2"])
    assert "reference: found no matrix of m2, wanted reference:NAME of dscnn-s/test" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["compare", str(folder), "reference:cnn1d-custom32-8"])
    assert "reference: found labels" in capsys.readouterr().err
