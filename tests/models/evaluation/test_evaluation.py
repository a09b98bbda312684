"""Evaluation by its protocol, on small folders; recordings, folds and the list of what was trained on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kws_models.cli import main
from kws_models.data.audio_cache import decode, load_audio
from kws_models.data.recordings import DataError, Recording, find_recordings, flatten, fold_of
from kws_models.evaluation.clips import Options, evaluate, find_cases, hash_split, sample_unknown
from kws_models.evaluation.intervals import confusion_matrix, report, wilson
from kws_serve.manifest.folder import find_model, load_model, shipped_models_dir
from tests.models.data.test_training_list import FILE, write_clip, write_list


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """Ten clips of `yes`, four other words, two of `_silence_`."""
    for i in range(10):
        write_clip(tmp_path / "yes" / f"speaker{i}_nohash_0.wav", i)
    for i, word in enumerate(["tree", "bird", "tree", "wow"]):
        write_clip(tmp_path / word / f"speaker{i}_nohash_{i}.wav", 20 + i, seconds=0.4)
    for i in range(2):
        write_clip(tmp_path / "_silence_" / f"{i}.wav", 30 + i)
    return tmp_path


def shipped(name: str):
    return find_model(name, [shipped_models_dir()])


def says(label: str, labels: tuple[str, ...]):
    """A model that always says `label`."""
    return lambda patches: np.tile(np.eye(len(labels), dtype=np.float32)[labels.index(label)], (len(patches), 1))


def test_keywords_by_the_protocol(commands: Path) -> None:
    spec = shipped("dscnn-s")
    result = evaluate(spec, says("yes", spec.labels), commands, Options())
    assert set(result) >= {"accuracy", "n", "labels", "confusion", "per_class"}
    assert result["n"] == 13 and result["accuracy"] == 10 / 13  # 10 yes, 10 % of them unknown, 2 silence
    assert result["per_class"]["yes"]["precision"] == 10 / 13 and result["per_class"]["yes"]["recall"] == 1.0
    assert result["per_class"]["no"]["recall"] is None
    assert result["confusion"][spec.labels.index("_silence_")][spec.labels.index("yes")] == 2


def test_events_by_the_protocol(tmp_path: Path) -> None:
    spec = shipped("resnetse")
    for i, folder in enumerate(["babycry", "backgroundnoise", "background_hard", "background_hard"]):
        write_clip(tmp_path / folder / f"{i}.wav", i, seconds=0.5 + i, rate_hz=(8000, 16000)[i % 2])
    result = evaluate(spec, says("babycry", spec.labels), tmp_path, Options())
    assert result["n"] == 4 and result["accuracy"] == 0.25
    assert result["background_hard"]["n"] == 2 and result["background_hard"]["as"]["babycry"] == 2
    quiet = evaluate(spec, says("backgroundnoise", spec.labels), tmp_path, Options())
    assert quiet["accuracy"] == 0.75 and quiet["background_hard"]["accepted"] == 0


def test_a_score_below_its_threshold_counts_as_rest(tmp_path: Path) -> None:
    spec = shipped("resnetse")
    write_clip(tmp_path / "babycry" / "a.wav", 1)
    low = spec.detection["babycry"].threshold - 0.01
    scores = np.array([[0.0, low, 0.0, 0.0]], np.float32)
    result = evaluate(spec, lambda patches: np.repeat(scores, len(patches), 0), tmp_path, Options())
    assert result["confusion"][1] == [1, 0, 0, 0]


def test_training_clips_are_left_out_and_counted(
    commands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in shipped("dscnn-s").folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    trained = [r for r in flatten(find_recordings(commands)) if r.folder == "yes"][:3]
    write_list(folder, trained, ["yes/speaker9_nohash_0"])
    spec = load_model(folder)
    infer = says("yes", spec.labels)
    result = evaluate(spec, infer, commands, Options())
    assert result["training_clips_left_out"] == 4 and result["per_class"]["yes"]["n"] == 6
    with_them = evaluate(spec, infer, commands, Options(include_training=True))
    assert with_them["training_clips_left_out"] == 0 and with_them["per_class"]["yes"]["n"] == 10
    main(["evaluate", str(folder), "--data", str(commands), "--json"])
    printed = capsys.readouterr()
    assert "left out: 4 clips" in printed.err and json.loads(printed.out)["n"] == 9


def test_without_its_list_of_recordings_a_model_is_not_judged(
    commands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in shipped("dscnn-s").folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / FILE).write_text(f"{'0' * 64}.bin 0 1 0\n")
    judged = ("evaluate", str(folder), "--data", str(commands), "--json")
    for others in ((), ("--talk", "--fold", str(fold_of("speaker1")))):
        with pytest.raises(SystemExit) as ended:
            main([*judged, *others])
        printed = capsys.readouterr()
        assert ended.value.code == 2 and printed.out == ""
        assert f"found no {'0' * 64}.bin, wanted it in {folder} or" in printed.err
        assert "kws-models export writes it" in printed.err
    with pytest.raises(SystemExit):
        main(["compare", "dscnn-s", str(folder), "--data", str(commands)])
    assert f"found no {'0' * 64}.bin" in capsys.readouterr().err
    main([*judged, "--include-training"])
    assert json.loads(capsys.readouterr().out)["n"] == 13


def test_the_split_lists_choose_clips(commands: Path) -> None:
    spec = shipped("dscnn-s")
    (commands / "validation_list.txt").write_text("yes/speaker1_nohash_0.wav\nyes/speaker2_nohash_0.wav\n")
    assert [c.recording.source for c in find_cases(spec, commands, "validation")] == ["speaker1", "speaker2"]


def test_without_lists_the_hash_of_the_speaker_splits(commands: Path) -> None:
    spec = shipped("dscnn-s")
    everything = {c.recording.path for c in find_cases(spec, commands)}
    for split in ("validation", "testing"):
        wanted = {
            path for path in everything if hash_split(path.name) == split and path.parent.name != "_background_noise_"
        }
        if any(path.parent.name in spec.detection for path in wanted):
            assert {c.recording.path for c in find_cases(spec, commands, split)} <= wanted
        else:
            with pytest.raises(DataError, match=f"found none of clips of this split.*no {split}_list"):
                find_cases(spec, commands, split)
    names = [f"{i:08x}_nohash_{j}.wav" for i in range(4000) for j in (0, 1)]
    splits = [hash_split(name) for name in names]
    assert splits[::2] == splits[1::2]  # a speaker is on one side
    assert 0.08 < splits.count("validation") / len(names) < 0.12 and 0.08 < splits.count("testing") / len(names) < 0.12


def test_unknown_words_take_turns() -> None:
    others = {w: [Recording(Path(f"{w}/{i}.wav"), w, str(i)) for i in range(n)] for w, n in (("b", 3), ("a", 5))}
    drawn = sample_unknown(others, 6)
    assert [r.folder for r in drawn] == ["a", "b", "a", "b", "a", "b"]
    assert len(set(drawn)) == 6 and sample_unknown(others, 6) == drawn
    assert len(sample_unknown(others, 100)) == 8


def test_what_is_wrong_is_said_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for data, words in ((tmp_path / "none", "found no folder"), (tmp_path, "found no recordings")):
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", "dscnn-s", "--data", str(data)])
        assert ended.value.code == 2 and words in capsys.readouterr().err
    write_clip(tmp_path / "elephant" / "a.wav", 1)
    with pytest.raises(SystemExit):
        main(["evaluate", "dscnn-s", "--data", str(tmp_path)])
    assert "named after a label" in capsys.readouterr().err


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"broken\.wav"):
        decode(tmp_path / "broken.wav", 16_000)


def test_folds_are_fixed_and_cut_no_speaker(recordings: Path) -> None:
    assert [fold_of(name) for name in ("004ae714", "white_noise", "fs12345")] == [3, 0, 2]
    everything = list(flatten(find_recordings(recordings / "speech_commands")))
    folds: dict[str, set[int]] = {}
    for recording in everything:
        folds.setdefault(recording.source, set()).add(recording.fold)
    assert all(len(which) == 1 for which in folds.values())
    shots = [r for r in flatten(find_recordings(recordings / "events")) if "_ch" in r.path.stem]
    pairs: dict[str, set[int]] = {}
    for shot in shots:
        pairs.setdefault(shot.path.stem[:-1], set()).add(shot.fold)
    assert shots and all(len(which) == 1 for which in pairs.values())


def test_the_cache_is_the_decoded_audio(tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / "data" / "a" / f"{i}.wav", i, 0.1 * (i + 1)) for i in range(3)]
    found = list(flatten(find_recordings(tmp_path / "data")))
    for _ in range(2):  # written, then read
        audio = load_audio(found, 16_000, tmp_path / "cache")
        assert all(np.array_equal(audio.clip(i), clip) for i, clip in enumerate(clips))
    assert np.array_equal(audio.take([2, 0]).clip(0), clips[2])


def test_wilson_s_interval() -> None:
    low, high = wilson(8, 10)
    assert low == pytest.approx(0.4902, abs=1e-4) and high == pytest.approx(0.9433, abs=1e-4)
    assert wilson(0, 0) == [0.0, 1.0] and wilson(5, 5)[1] == pytest.approx(1.0)


def test_a_report_of_known_counts() -> None:
    confusion = confusion_matrix(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 2)
    result = report(("a", "b"), confusion)
    assert confusion.tolist() == [[1, 1], [0, 2]] and result["accuracy"] == 0.75
    assert result["per_class"]["b"]["precision"] == 2 / 3
