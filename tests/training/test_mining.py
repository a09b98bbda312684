"""Hard negatives: found where the model hears what nobody said, kept with the run, given to the next phase."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch")

from kws_models.cli import main  # noqa: E402
from kws_models.data.audio_cache import joined  # noqa: E402
from kws_models.data.features import patch_maker  # noqa: E402
from kws_models.data.keyword_batches import KeywordBatches  # noqa: E402
from kws_models.data.negatives import Shares  # noqa: E402
from kws_models.data.speech_cuts import Place, Stream  # noqa: E402
from kws_models.training.mining import FILE, MiningSpec, find_places, mined  # noqa: E402
from kws_models.zoo.architectures import ARCHITECTURES  # noqa: E402
from kws_serve.messages import KwsError  # noqa: E402
from tests.training.test_real_speech import write_readers, write_words  # noqa: E402

pytestmark = pytest.mark.train
ARCHITECTURE = ARCHITECTURES["dscnn-s-stream"]
LABELS = ARCHITECTURE.labels
MAKER = patch_maker(ARCHITECTURE)
LOUD = -2.0  # c0's mean over the patch's middle, between that of noise and that of silence
WEIGHTS = {"layer.weight": np.ones(3, np.float32)}


def hears_noise(patches: np.ndarray) -> np.ndarray:
    """`stop` wherever the middle fifth of a second is loud."""
    middle = patches[:, 27:37, 0].mean(1)
    scores = np.zeros((len(patches), len(LABELS)), np.float32)
    scores[:, LABELS.index("stop")] = 1 / (1 + np.exp(np.clip(LOUD - middle, -50, 50)))
    scores[:, LABELS.index("_unknown_")] = 1 - scores[:, LABELS.index("stop")]
    return scores


def bursts(at_s: list[float], seconds: float) -> np.ndarray:
    samples = np.zeros(round(16_000 * seconds), np.int16)
    for first in at_s:
        i = round(16_000 * first)
        samples[i : i + 4800] = np.random.default_rng(0).normal(0, 8000, 4800)[: len(samples) - i]
    return samples


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_readers(tmp_path / "data")
    write_words(tmp_path / "data")
    return tmp_path / "data"


def batches_of(data: Path) -> KeywordBatches:
    return KeywordBatches(ARCHITECTURE, data, None, data.parent / "cache", 1)


def test_every_place_is_found_once_and_where_it_is() -> None:
    wanted = [0.1, 4.0, 9.0, 13.55]
    streams = [
        Stream("noise", "_silence_", joined([bursts([], 0.2), bursts([], 3.0)])),
        Stream("speech", "_unknown_", joined([bursts([0.1], 0.5), bursts(wanted, 14.0)])),
    ]
    places = find_places(hears_noise, MAKER, LABELS, streams)
    assert [(p.stream, p.piece, p.label) for p in places] == [(1, 0, "stop"), *[(1, 1, "stop")] * 4]
    middles_s = [(p.first_sample + MAKER.patch_samples / 2) / 16_000 - 0.15 for p in places]
    assert np.allclose(middles_s, [0.1, *wanted], atol=0.12)
    assert all(0.3 <= p.score <= 1 for p in places)
    assert find_places(hears_noise, MAKER, LABELS, streams, MiningSpec(least=1.1)) == ()


def test_the_list_is_kept_and_another_s_is_refused(data: Path, tmp_path: Path) -> None:
    batches = batches_of(data)
    calls = []

    def infer(patches: np.ndarray) -> np.ndarray:
        calls.append(len(patches))
        return hears_noise(patches)

    places = mined(tmp_path, batches, WEIGHTS, infer)
    n_calls = len(calls)
    assert places and n_calls and places == mined(tmp_path, batches, WEIGHTS, infer) and len(calls) == n_calls
    again = mined(tmp_path / "again", batches_of(data), WEIGHTS, infer)
    assert again == places
    with pytest.raises(KwsError, match="mined from other weights or sounds"):
        mined(tmp_path, batches, {"layer.weight": np.zeros(3, np.float32)}, infer)


def test_only_what_somebody_wrote_down_is_mined(data: Path) -> None:
    spoken = data / "speech_running" / "read" / "reader_4" / "who_knows.wav"
    spoken.parent.mkdir()
    soundfile.write(spoken, bursts([0.5], 2.0), 16_000)
    batches = batches_of(data)
    real = next(stream for stream in batches.speech.streams if stream.name == "real speech")
    assert batches.speech.talk and len(batches.speech.talk.speakers) == 4 and len(real.audio) == 3


def test_batches_have_the_mined_places(data: Path) -> None:
    plain, with_places = batches_of(data), batches_of(data)
    with_places.speech.places = find_places(hears_noise, MAKER, LABELS, with_places.speech.streams)
    before, after, again = plain.batch(5), with_places.batch(5), with_places.batch(5)
    assert np.array_equal(after[0], again[0]) and np.array_equal(after[1], again[1])
    assert not np.array_equal(before[0], after[0]) and before[0].shape == after[0].shape


def test_few_places_are_not_learnt_by_heart(data: Path) -> None:
    speech = batches_of(data).speech
    first = next(i for i, stream in enumerate(speech.streams) if stream.name == "noise")
    silence = np.full(4000, LABELS.index("_silence_"))
    shares = Shares(synthesised=0.0, real=0.0, mined=0.5, opus=0.0)
    cut = []
    for n_places in (1, 50, 100, 1000):
        speech.places = tuple(Place(first, 0, 0, "yes", 0.5) for _ in range(n_places))
        cut.append(len(speech.cuts(np.random.default_rng(0), silence, 100, shares, (1.0, 1.0)).rows) / 4000)
    assert np.allclose(cut, [0.005, 0.25, 0.5, 0.5], atol=0.03)


def test_a_run_mines_before_its_later_phases(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    common = ["--data", str(data), "--cache", str(tmp_path / "cache"), "--workers", "0", "--steps", "3"]
    main(["train", "dscnn-s-stream", *common, "--out", str(run), "--mine"])
    assert not (run / "phase1" / FILE).exists()
    assert json.loads((run / "phase3" / FILE).read_text())["made_from"]
    assert capsys.readouterr().out.count("mined: places where a command scores 0.3 or more") == 2
    assert json.loads((run / "run.json").read_text())["mine"] is True


@pytest.mark.parametrize("name", ["cnn1d-custom32-8", "resnetse"])
def test_models_without_unknown_cannot_mine(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", name, "--data", str(tmp_path), "--out", str(tmp_path / "run"), "--mine"])
    assert f"--mine: found {name}, wanted a model of words with _unknown_" in capsys.readouterr().err
