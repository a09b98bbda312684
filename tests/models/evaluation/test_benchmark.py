"""`kws-models benchmark`: several models on the same talk and the same words."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_models.cli import main
from kws_models.data.recordings import find_recordings, flatten
from kws_models.evaluation.benchmark_command import benchmark
from kws_serve.manifest.folder import load_model, shipped_models_dir
from tests.models.data.test_training_list import write_clip, write_list
from tests.models.test_commands import error_of
from tests.support.tiny_model import write_level_model

SHIPPED = shipped_models_dir()


def write_tone(path: Path, level: float, seconds: float = 1.0) -> None:
    """Loud from 0.3 to 0.7 s of each second; every path has a pitch of its own, so that no two files are alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(round(seconds * 16_000)) / 16_000
    loud = (time_s % 1 > 0.3) & (time_s % 1 < 0.7)
    soundfile.write(
        path,
        (level * loud * np.sin(2 * np.pi * (400 + zlib.crc32(str(path).encode()) / 2**26) * time_s)).astype(np.float32),
        16_000,
    )


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """Two speakers: one never loud, one loud in one sentence of three; a fourth says the word."""
    for i in range(3):
        write_tone(tmp_path / "speech" / "quiet" / f"{i}.wav", 0.1, seconds=3.0)
        write_tone(tmp_path / "speech" / "noisy" / f"{i}.wav", 0.9 if i == 0 else 0.1, seconds=3.0)
    write_tone(tmp_path / "speech" / "noisy" / "word.wav", 0.9, seconds=3.0)
    rows = ["path,text", "noisy/word.wav,it is \u2018loud\u2019 here", "noisy/0.wav,louder and louder"]
    (tmp_path / "speech" / "transcripts.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path / "speech"


@pytest.fixture
def words(tmp_path: Path) -> Path:
    for i in range(4):
        write_tone(tmp_path / "words" / "loud" / f"s{i}_nohash_0.wav", 0.9)
    return tmp_path / "words"


def level(folder: Path, name: str = "level", **changed: object) -> Path:
    settings = {"threshold": 0.7, "off_threshold": 0.4, "smoothing_ms": 100, "k": 1, "n": 1, "refractory_s": 0.2}
    return write_level_model(folder, name=name, gain=1.0, detection=settings, **changed)  # type: ignore[arg-type]


def test_each_model_hears_the_same_and_its_own_settings_count(tmp_path: Path, speech: Path, words: Path) -> None:
    strict = level(tmp_path, "strict")
    deaf = level(tmp_path, "deaf", bias=-0.5)
    result = benchmark([str(strict), str(deaf)], [speech], words, None)
    first, second = result["models"]
    talk = first["talk"][0]
    assert talk["sentences"] == 6 and talk["sentences_with_a_word_left_out"] == 1 and talk["speakers"] == 2
    assert talk["hours"] == pytest.approx(6 * 3.4 / 3600)
    assert talk["false_accepts"] == 3  # the loud sentence is loud three times
    assert talk["per_hour"] == pytest.approx(3 / talk["hours"])
    assert talk["per_hour_ci"][0] < talk["per_hour"] < talk["per_hour_ci"][1]
    assert first["words"]["found"] == first["words"]["n"] == 4
    assert second["words"]["found"] == 0 and second["talk"][0]["false_accepts"] == 0
    assert [row["found_share"] for row in talk["at_found"]] == [0.85, 0.8, 0.76, 0.7]
    assert result["same_labels"] and any(
        "cannot" in line or "one false accept" in line for line in result["unresolved"]
    )


def test_words_by_their_transcript(tmp_path: Path, speech: Path) -> None:
    spoken = tmp_path / "spoken"
    write_tone(spoken / "a.wav", 0.9)
    write_tone(spoken / "b.wav", 0.9)
    write_clip(spoken / "_background_noise_" / "n.wav", 1)
    (spoken / "transcripts.csv").write_text("path,text\na.wav,Loud!\nb.wav,say it loud\n")
    result = benchmark([str(level(tmp_path))], [speech], spoken, None)
    assert result["models"][0]["words"]["n"] == 1 and result["noises"] == 1


def test_what_one_model_learnt_from_none_hears(tmp_path: Path, speech: Path, words: Path) -> None:
    one, other = level(tmp_path, "one"), level(tmp_path, "other")
    known = list(flatten(find_recordings(words)))[:1] + list(flatten(find_recordings(speech)))[:3]
    write_list(one, known)
    for model in benchmark([str(other), str(one)], [speech], words, None)["models"]:
        assert model["words"]["n"] == 3 and model["clips"]["n"] == 3
        assert model["talk"][0]["sentences"] == 3 and model["talk"][0]["speakers"] == 1
    write_list(one, list(flatten(find_recordings(speech))))
    assert "no talk that none of the models learnt from" in _fails([one, other], speech, words)
    write_list(one, list(flatten(find_recordings(words))))
    assert "found no word of other that none of the models learnt from" in _fails([other, one], speech, words)


def _fails(folders: list[Path], speech: Path, words: Path) -> str:
    from kws_serve.messages import KwsError

    with pytest.raises(KwsError) as error:
        benchmark([str(folder) for folder in folders], [speech], words, None)
    return str(error.value)


def test_the_tables(tmp_path: Path, speech: Path, words: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = [str(level(tmp_path)), str(level(tmp_path, "quiet", label="quiet"))]
    (words / "quiet").mkdir()
    shutil.copy(words / "loud" / "s0_nohash_0.wav", words / "quiet" / "s9_nohash_0.wav")
    main(["benchmark", two[0], "--speech", str(speech), "--words", str(words)])
    out = capsys.readouterr().out
    assert "at its own settings" in out and "100.0 %" in out and "false accepts an hour at equal shares found" in out
    assert "what this cannot tell:" in out and "over silence" in out and "labels differ" not in out
    main(["benchmark", *two, "--speech", str(speech), "--words", str(words)])
    assert "labels differ: each model is measured on its own" in capsys.readouterr().out
    main(["benchmark", *two, "--speech", str(speech), "--words", str(words), "--json"])
    result = json.loads(capsys.readouterr().out)
    assert [model["folder"] for model in result["models"]] == two and result["same_labels"] is False
    assert result["models"][0]["talk"][0]["sentences_with_a_word_left_out"] == 1
    assert result["models"][1]["talk"][0]["sentences_with_a_word_left_out"] == 0


def test_an_int8_file_alone_is_run(tmp_path: Path, speech: Path) -> None:
    folder = tmp_path / "int8"
    shutil.copytree(SHIPPED / "dscnn-s", folder)
    manifest = json.loads((folder / "model.json").read_text())
    del manifest["files"]["onnx"]
    (folder / "model.json").write_text(json.dumps(manifest))
    (folder / "model.onnx").unlink()
    for word in load_model(folder).detection:
        write_clip(tmp_path / "clips" / word / "s0_nohash_0.wav", 3)
    (result,) = benchmark([str(folder)], [speech], tmp_path / "clips", None)["models"]
    assert result["backend"] == "tflite" and result["clips"]["n"] == 10


def test_what_is_wrong_is_one_line(
    tmp_path: Path, speech: Path, words: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(level(tmp_path))
    fine = ["--speech", str(speech), "--words", str(words)]
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        (["no-such", *fine], "model: found no no-such"),
        (["resnetse", *fine], "benchmark: found resnetse, a model of sound events; wanted models of words"),
        (["dscnn-s", *fine], "found nothing under"),
        ([folder, "--words", str(words), "--speech", str(tmp_path / "empty")], "--speech: found no recordings under"),
        ([folder, "--words", str(words), "--speech", "no-such"], "--speech: found no folder no-such"),
        ([folder, "--speech", str(speech), "--words", "no-such"], "--words: found no folder no-such"),
        ([folder, "--speech", str(speech), "--words", str(tmp_path / "empty")], "found no recordings under"),
        ([folder, *fine, "--backend", "tflite"], "tflite"),
        (["--words", "x", "--speech", "y"], "the following arguments are required: FOLDER"),
    ):
        error = error_of(["benchmark", *arguments], capsys)
        assert said in error and error.count("\n") == 1, error
    (speech / "transcripts.csv").write_text("path,text\ngone.wav,hello\n")
    assert "gone.wav, wanted the recording" in error_of(["benchmark", folder, *fine], capsys)
    (speech / "transcripts.csv").write_text("path,text\nquiet/0.wav\n")
    assert "line 2: found no text, wanted one" in error_of(["benchmark", folder, *fine], capsys)
