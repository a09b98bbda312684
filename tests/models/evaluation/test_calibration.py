"""Running speech without the command words, and the choice of thresholds."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws_models.cli import main
from kws_models.data.recordings import fold_of
from kws_models.data.running_speech import COMMANDS, pieces, sentence
from kws_models.data.synthesiser import installed
from kws_models.evaluation.thresholds import GRID, Curves, _best
from kws_serve.manifest.folder import find_model, load_model, shipped_models_dir
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
            "--write",
        ]
    )
    facts = json.loads(capsys.readouterr().out)
    spec = load_model(tmp_path / "dscnn-s")
    assert {label: s.threshold for label, s in spec.detection.items()} == facts["settings"]["thresholds"]
    assert spec.accuracy["stream"]["running_speech"]["hours"] >= 0.01
    talk = spec.accuracy["stream"]["real_running_speech"]
    assert talk["speakers"] == 1 and talk["hours"] == round(9.4 / 3600, 3) and len(talk["per_hour_ci"]) == 2
    assert "real_per_hour" in spec.accuracy["stream"]["trade_off"][0]
    assert spec.accuracy["stream"]["scenes"]["n"] > 0
