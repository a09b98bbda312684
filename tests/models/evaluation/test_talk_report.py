"""False accepts on real people talking, at equal recall."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kws_models.cli import main
from kws_models.data.real_speech import find_sentences
from kws_models.data.recordings import fold_of
from kws_models.evaluation.talk_report import Point, at_found, evaluate_talk
from kws_serve.manifest.folder import find_model, load_model, shipped_models_dir
from kws_serve.messages import KwsError
from tests.models.data.test_training_list import write_clip, write_list

SPEC = find_model("dscnn-s", [shipped_models_dir()])
FOLD = fold_of("s1")
READERS = [f"r{i}" for i in range(50) if fold_of(f"r{i}") == FOLD][:2]
OTHER = next(f"r{i}" for i in range(50) if fold_of(f"r{i}") != FOLD)
POINTS = [Point(0.3, 90, 100), Point(0.5, 80, 40), Point(0.7, 60, 10), Point(0.9, 60, 0)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for word in (*SPEC.detection, "_background_noise_"):
        for i in range(2):
            write_clip(tmp_path / word / f"s{i}_nohash_0.wav", i)
    for i, reader in enumerate((*READERS, OTHER)):
        for j in range(2):
            write_clip(tmp_path / "speech_running" / reader / f"{j}.wav", 10 * i + j, seconds=3.0)
    rows = ["path,text", f"{READERS[0]}/0.wav,it went on", f"{READERS[0]}/1.wav,quite upon a time"]
    (tmp_path / "speech_running" / "transcripts.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def always(label: str):
    return lambda patches: np.tile(
        np.eye(len(SPEC.labels), dtype=np.float32)[SPEC.labels.index(label)], (len(patches), 1)
    )


def test_rates_are_interpolated_between_thresholds() -> None:
    row = at_found(POINTS, 0.70, 100, 2.0)
    assert row["threshold"] == 0.6 and row["per_hour"] == 12.5
    assert row["per_hour_ci"][0] < 12.5 < row["per_hour_ci"][1]
    assert at_found(POINTS, 0.80, 100, 2.0)["per_hour"] == 20.0
    assert at_found(POINTS, 0.95, 100, 2.0)["per_hour"] is None
    assert at_found(POINTS, 0.50, 100, 2.0)["per_hour"] is None


def test_what_is_heard(data: Path) -> None:
    report = evaluate_talk(SPEC, always("stop"), data, FOLD)
    assert report["speakers"] == READERS
    assert np.isclose(report["hours"] * 3600, 3 * (3.0 + 0.4))  # one sentence of four has a command word
    silent = evaluate_talk(SPEC, always("_unknown_"), data, FOLD)
    assert all(found == accepts == 0 for _, found, accepts in silent["points"])
    assert all(accepts > 0 for _, _, accepts in report["points"])


def test_other_speech_and_what_was_learnt_from(data: Path, tmp_path: Path) -> None:
    everybody = evaluate_talk(SPEC, always("stop"), data, FOLD, speech=data)
    assert everybody["speakers"] == sorted([*READERS, OTHER])
    learnt = tmp_path / "learnt"
    learnt.mkdir()
    for path in SPEC.folder.iterdir():
        (learnt / path.name).write_bytes(path.read_bytes())
    known = [s.recording for s in find_sentences(data) if s.recording.source in READERS]
    write_list(learnt, known)
    spec = load_model(learnt)
    assert evaluate_talk(spec, always("stop"), data, FOLD, speech=data)["speakers"] == [OTHER]
    with pytest.raises(KwsError, match=r"found no speech_running of fold . in .* did not learn from"):
        evaluate_talk(spec, always("stop"), data, FOLD)


def test_the_command_prints_a_table(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["evaluate", "dscnn-s", "--data", str(data), "--talk"]
    main([*common, "--fold", str(FOLD)])
    assert "found" in capsys.readouterr().out
    main([*common, "--fold", str(FOLD), "--json"])
    assert [row["found_share"] for row in json.loads(capsys.readouterr().out)["at_found"]] == [0.85, 0.8, 0.76, 0.7]
    with pytest.raises(SystemExit):
        main(common)
    assert "--talk: found no --fold" in capsys.readouterr().err
