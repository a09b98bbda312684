"""Real running speech in training: what may be learnt from, held out by speaker, and cut anywhere."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_models.data.audio_cache import joined
from kws_models.data.keyword_batches import KeywordBatches
from kws_models.data.real_speech import find_sentences, load_talk, may_be_learnt, without_words
from kws_models.data.recordings import DataError, fold_of
from kws_models.data.speech_cuts import Place, Pool, Stream, at_places
from kws_models.export.card import licence_family
from kws_models.zoo.architectures import ARCHITECTURES

COMMANDS = ARCHITECTURES["dscnn-s"].labels[2:]
READERS = ("reader_1", "reader_2", "reader_3")
TEXTS = {"a": "quite upon a time", "b": "he said Stop, loudly", "c": "notes on nothing"}


def write_sound(path: Path, seed: int, seconds: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 3000, round(16_000 * seconds)).astype(np.int16)
    soundfile.write(path, noise, 16_000)


def write_readers(data: Path, licences: dict[str, str] | None = None) -> None:
    """Three sentences of each reader, two of them with a command word."""
    folder = data / "speech_running" / "read"
    rows, facts = [["path", "text"]], [["path", "speaker_or_recording", "licence"]]
    for i, reader in enumerate(READERS):
        for j, (name, text) in enumerate(TEXTS.items()):
            write_sound(folder / reader / f"{name}.mp3", 10 * i + j, seconds=2.0)
            rows.append([f"{reader}/{name}.mp3", text])
            path = f"speech_running/read/{reader}/{name}.mp3"
            facts.append([path, reader, (licences or {}).get(reader, "CC BY 4.0")])
    for path, table in ((folder / "transcripts.csv", rows), (data / "MANIFEST.csv", facts)):
        with path.open("w", newline="") as out:
            csv.writer(out).writerows(table)


def write_words(data: Path) -> None:
    for i, word in enumerate((*COMMANDS, "tree", "_background_noise_")):
        for j in range(2):
            write_sound(data / "speech_commands" / word / f"s{j}_nohash_0.wav", 1000 + 10 * i + j)


def test_sentences_with_a_command_word_are_left_out(tmp_path: Path) -> None:
    write_readers(tmp_path)
    found = find_sentences(tmp_path)
    assert [s.recording.source for s in found] == [reader for reader in READERS for _ in TEXTS]
    assert {s.text for s in without_words(found, COMMANDS)} == {"quite upon a time"}
    assert find_sentences(tmp_path / "speech_running") == []


def test_only_free_recordings_may_be_learnt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_readers(tmp_path, {"reader_1": "CC BY-SA 3.0", "reader_2": "public domain (source)", "reader_3": "CC0 1.0"})
    kept = may_be_learnt(find_sentences(tmp_path))
    assert {s.recording.source for s in kept} == {"reader_2", "reader_3"}
    assert "left out: 3 recordings" in capsys.readouterr().out


def test_a_licence_s_family_is_known_however_it_is_written() -> None:
    assert licence_family("public domain (licenses/ of the source)") == "Public domain"
    assert licence_family("CC-BY") == licence_family("CC BY 4.0") == "CC BY"


def test_a_text_without_its_recording_is_refused(tmp_path: Path) -> None:
    write_readers(tmp_path)
    (tmp_path / "speech_running" / "read" / "reader_1" / "a.mp3").unlink()
    with pytest.raises(DataError, match=r"found no .*reader_1/a\.mp3"):
        find_sentences(tmp_path)


def test_a_speaker_is_one_piece_with_pauses(tmp_path: Path) -> None:
    write_readers(tmp_path)
    talk = load_talk(find_sentences(tmp_path), 16_000, tmp_path / "cache", seed=1)
    again = load_talk(find_sentences(tmp_path), 16_000, tmp_path / "cache", seed=1)
    assert talk.speakers == READERS and np.array_equal(talk.audio.samples, again.audio.samples)
    seconds = (talk.audio.ends - talk.audio.starts) / 16_000
    assert np.all(seconds > 3 * (2.0 + 0.2)) and np.all(seconds < 3 * (2.2 + 0.6))


def test_the_held_out_fold_s_speakers_are_not_learnt_from(tmp_path: Path) -> None:
    write_readers(tmp_path)
    write_words(tmp_path)
    for fold in {fold_of(reader) for reader in READERS}:
        batches = KeywordBatches(ARCHITECTURES["dscnn-s"], tmp_path, fold, tmp_path / "cache", 1)
        learnt = {r.source for r in batches.training_recordings if r.folder == "speech_running"}
        assert learnt == {reader for reader in READERS if fold_of(reader) != fold}


def test_real_speech_is_a_quarter_and_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_words(tmp_path)
    made = KeywordBatches(ARCHITECTURES["dscnn-s"], tmp_path, None, tmp_path / "cache", 1)
    assert "training without real running speech" in capsys.readouterr().out
    unknown = ARCHITECTURES["dscnn-s"].labels.index("_unknown_")
    without = np.mean([made.batch(step)[1] == unknown for step in range(4)])
    write_readers(tmp_path)
    made = KeywordBatches(ARCHITECTURES["dscnn-s"], tmp_path, None, tmp_path / "cache", 1)
    patches, classes = zip(*(made.batch(step) for step in range(4)), strict=True)
    assert 0.1 < np.mean(np.concatenate(classes) == unknown) - without < 0.3
    assert np.array_equal(patches[2], made.batch(2)[0])


def test_cuts_stand_where_they_should() -> None:
    ramp = np.arange(30_000, dtype=np.int16)
    rng = np.random.default_rng(0)
    cuts = Pool(joined([ramp])).anywhere(rng, 20, 1000, (1.0, 1.0), 0.0)
    assert np.array_equal(np.diff(cuts), np.ones((20, 999), np.float32)) and np.ptp(cuts[:, 0]) > 10_000
    streams = [Stream(str(i), "_unknown_", joined([ramp * i + 1])) for i in (0, 1)]
    mined = at_places(rng, streams, [Place(1, 0, 4999, "yes", 0.5)] * 20, 1000, (0.9, 1.1))
    assert np.all(np.abs(mined[:, 500] - 5500) <= 82)
    steps = np.diff(mined).mean(1)
    assert steps.min() < 0.95 and steps.max() > 1.05
    early = at_places(rng, streams, [Place(1, 0, -900, "yes", 0.5)], 1000, (1.0, 1.0))
    assert early[0, 0] == 0 and early[0, -1] > 0
