"""Near-words: none is a command or sounds like one; many voices, other ones than those that measure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kws_models.data.near_words import NEAR_WORDS, near_pieces, training_speech
from kws_models.data.running_speech import COMMANDS, pieces
from kws_models.data.synthesiser import ESPEAK, installed

SOUND_ALIKE = frozenset(["know", "write", "rite", "wright"])


def test_no_near_word_is_a_command() -> None:
    assert not set(NEAR_WORDS) & (COMMANDS | SOUND_ALIKE)
    assert len(NEAR_WORDS) == len(set(NEAR_WORDS)) > 120


@pytest.mark.skipif(not installed(ESPEAK), reason="needs espeak-ng")
def test_many_voices_say_them_and_one_seed_says_them_alike() -> None:
    first, again = (list(near_pieces(3, 0.03)) for _ in range(2))
    assert sum(len(p.samples) for p in first) >= 0.03 * 3600 * 16_000
    assert all(a.voice == b.voice and np.array_equal(a.samples, b.samples) for a, b in zip(first, again, strict=True))
    assert not {p.voice for p in first} & {p.voice for p in pieces(3, 0.1)}


@pytest.mark.skipif(not installed(ESPEAK), reason="needs espeak-ng")
def test_training_speech_is_made_once(tmp_path: Path) -> None:
    made = training_speech(1, 0.01, 0.01, 16_000, tmp_path)
    folders = list(tmp_path.iterdir())
    again = training_speech(1, 0.01, 0.01, 16_000, tmp_path)
    assert made and again and np.array_equal(made.samples, again.samples) and list(tmp_path.iterdir()) == folders
    other = training_speech(2, 0.01, 0.01, 16_000, tmp_path)
    assert other and len(other.samples) != len(made.samples) and len(list(tmp_path.iterdir())) == 2
