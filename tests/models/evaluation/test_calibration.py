"""Running speech without the command words, and the choice of thresholds."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws_models.cli import main
from kws_models.data.recordings import fold_of
from kws_models.data.running_speech import COMMANDS, pieces, sentence
from kws_models.data.synthesiser import installed
from kws_models.evaluation.calibration_material import Material, Streamed, _recordings
from kws_models.evaluation.thresholds import GRID, Curves, _best, curves_of
from kws_serve.manifest.folder import find_model, load_model, shipped_models_dir
from kws_serve.manifest.spec import IsolationSpec
from tests.models.evaluation.test_evaluation import write_clip

SPEC = find_model("dscnn-s", [shipped_models_dir()])
LABELS = list(SPEC.detection)


@given(st.integers(0, 2**32))
def test_no_sentence_has_a_command_word(seed: int) -> None:
    words = re.findall(r"[a-z]+", sentence(np.random.default_rng(seed)).lower())
    assert len(words) >= 4 and not COMMANDS & set(words)


def test_the_vocabulary_is_large() -> None:
    rng = np.random.default_rng(0)
    words = {word for _ in range(3000) for word in re.findall(r"[a-z]+", sentence(rng).lower())}
    assert len(words) > 400


def curves(seed: int) -> Curves:
    """Random, and falling with the threshold as real ones do."""
    rng = np.random.default_rng(seed)
    shape = (len(LABELS), len(GRID))
    falling = [np.sort(rng.integers(0, most, shape), axis=1)[:, ::-1] for most in (100, 20, 4, 9)]
    return Curves(*falling)


@given(st.integers(0, 10**6), st.integers(0, 40), st.integers(0, 2))
def test_the_bounds_are_kept_where_they_can_be(seed: int, budget: int, most_hard: int) -> None:
    found = curves(seed)
    choice = _best(SPEC, found, {}, budget, most_hard)
    at = [GRID.index(choice.thresholds[label]) for label in LABELS]
    for i, j in enumerate(at):
        assert found.hard_accepts[i, j] <= most_hard or j == len(GRID) - 1
    assert choice.talk_accepts == sum(found.talk_accepts[i, j] for i, j in enumerate(at))
    assert choice.false_accepts == sum(found.false_accepts[i, j] for i, j in enumerate(at))
    if choice.false_accepts > budget:  # nothing was left to raise
        assert all(found.false_accepts[i, j] == found.false_accepts[i, -1] for i, j in enumerate(at))


def test_more_freedom_never_finds_less() -> None:
    for seed in range(30):
        hits = [_best(SPEC, curves(seed), {}, budget, 1).hits for budget in (0, 5, 20, 1000)]
        assert hits[-1] == max(hits)


@pytest.mark.skipif(not installed(), reason="needs espeak-ng or flite")
def test_speech_is_spoken_and_one_seed_speaks_alike() -> None:
    first, again = (list(pieces(5, 0.02)) for _ in range(2))
    assert sum(len(p.samples) for p in first) >= 0.02 * 3600 * 16_000
    assert all(a.voice == b.voice and np.array_equal(a.samples, b.samples) for a, b in zip(first, again, strict=True))
    assert all(np.abs(p.samples.astype(int)).max() > 1000 for p in first)
    assert not {p.voice for p in pieces(5, 0.05)} & {p.voice for p in pieces(5, 0.05, training=True)}


@pytest.mark.skipif(not installed(), reason="needs espeak-ng or flite")
def test_settings_are_written_and_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for word in (*LABELS, "_background_noise_"):
        (tmp_path / "data" / word).mkdir(parents=True)
        for i in range(12):
            write_clip(tmp_path / "data" / word / f"s{i}_nohash_0.wav", i, seconds=1.0, rate_hz=16000)
    reader = next(f"r{i}" for i in range(50) if fold_of(f"r{i}") == fold_of("s1"))
    write_clip(tmp_path / "data" / "speech_running" / reader / "0.flac", 1, seconds=9.0, rate_hz=16000)
    write_clip(tmp_path / "prompts" / "0.flac", 2, seconds=7.0, rate_hz=16000)
    shutil.copytree(shipped_models_dir() / "dscnn-s", tmp_path / "dscnn-s")
    fold = str(fold_of("s1"))
    main(
        [
            "calibrate",
            str(tmp_path / "dscnn-s"),
            "--data",
            str(tmp_path / "data"),
            "--fold",
            fold,
            "--hours",
            "0.01",
            "--speech",
            str(tmp_path / "prompts"),
            "--write",
        ]
    )
    facts = json.loads(capsys.readouterr().out)
    spec = load_model(tmp_path / "dscnn-s")
    assert {label: s.threshold for label, s in spec.detection.items()} == facts["settings"]["thresholds"]
    assert spec.accuracy["stream"]["running_speech"]["hours"] >= 0.01
    talk = spec.accuracy["stream"]["real_running_speech"]
    assert talk["speakers"] == 2 and talk["hours"] == round(16.8 / 3600, 3) and len(talk["per_hour_ci"]) == 2
    by_source = talk["by_source"]
    assert {name: one["hours"] for name, one in by_source.items()} == {
        f"speech_running/{reader}": round(9.4 / 3600, 3),
        "prompts": round(7.4 / 3600, 3),
    }
    assert sum(one["false_accepts"] for one in by_source.values()) == talk["false_accepts"]
    assert "real_per_hour" in spec.accuracy["stream"]["trade_off"][0]
    assert spec.accuracy["stream"]["scenes"]["n"] > 0


def test_a_word_in_the_midst_of_talk_is_held_back_while_thresholds_are_tried() -> None:
    """All is as loud and as much a word from beginning to end: without the powers each second would count."""
    spec = replace(
        SPEC, detection={label: replace(s, isolation=IsolationSpec()) for label, s in SPEC.detection.items()}
    )
    scores = np.zeros((3000, len(SPEC.labels)), np.float32)
    scores[:, SPEC.labels.index("_unknown_")] = 1.0
    scores[500::100, SPEC.labels.index("_unknown_")], scores[500::100, SPEC.labels.index("stop")] = 0.0, 1.0
    for i in range(1, 20):
        scores[500 + i :: 100] = scores[500]
    talk = Streamed(scores, np.full(3000, 0.01, np.float32))
    silence = Streamed(np.zeros((1, len(SPEC.labels)), np.float32), np.zeros(1, np.float32))
    material = Material([], talk, silence, {}, 1.0, 1.0, 1)
    settings = {"smoothing_ms": 160.0, "k": 2, "n": 3}
    assert curves_of(SPEC, material, settings).false_accepts[:, 0].sum() > 10
    assert curves_of(spec, material, settings).false_accepts[:, 0].sum() == 0


@pytest.mark.parametrize("below", ["", "events"])
def test_sound_events_are_found_where_a_training_finds_them(below: str, tmp_path: Path) -> None:
    spec = find_model("resnetse", [shipped_models_dir()])
    for folder in (*spec.labels, "background_hard"):
        write_clip(tmp_path / below / folder / "s1_nohash_0.wav", 1)
    beds, hard, clips = _recordings(spec, tmp_path, fold_of("s1"))
    assert len(beds) == len(hard) == 1 and {label for label, _ in clips} == set(spec.detection)
