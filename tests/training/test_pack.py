"""A pack of features: what goes in comes out, and a training on it hears what it should, mined as it goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from kws_models.cli import main  # noqa: E402
from kws_models.data.augmentation import LOG_FLOOR  # noqa: E402
from kws_models.data.mel_pack import ANY_FOLD, STEP, MelPack, Piece, mel_part, read_pack, write_pack  # noqa: E402
from kws_models.data.pack_command import build_pack  # noqa: E402
from kws_models.data.recordings import DataError, fold_of  # noqa: E402
from kws_models.training.pack_batches import PackBatches, PackMix  # noqa: E402
from kws_models.training.pack_input import held_out  # noqa: E402
from kws_models.training.pack_mix import Draw, level, warped, with_noise  # noqa: E402
from kws_models.zoo.architectures import ARCHITECTURES  # noqa: E402
from kws_serve.messages import KwsError  # noqa: E402
from tests.training.test_real_speech import write_readers, write_words  # noqa: E402

pytestmark = pytest.mark.train
ARCHITECTURE = ARCHITECTURES["tcs-s-stream"]
LABELS = ARCHITECTURE.labels
STOP = LABELS.index("stop")


def pack_of(n_each: int = 4, n_rows: int = 800) -> MelPack:
    """Clips of every word whose maps are all of one value, the word's index; long pieces of the value -4."""
    names = (*sorted(LABELS[2:]), "tree")
    folder = np.repeat(np.arange(len(names)), n_each)
    words = np.broadcast_to(folder[:, None, None] / 4, (len(folder), 49, 40)).astype(np.float32)
    pieces = tuple(
        Piece(kind, fold, i * n_rows, n_rows, True)
        for i, (kind, fold) in enumerate([("real", 1), ("synthesised", ANY_FOLD), ("noise", 1), ("real", 0)])
    )
    frames = np.full((4 * n_rows, 40), -4.0, np.float32)
    frames[3 * n_rows :] = 9.0  # of fold 0 alone
    part = mel_part(ARCHITECTURE.front_end)
    folds = np.arange(len(folder)) % n_each
    return MelPack(part, names, folder, folds, np.zeros(len(folder), bool), words, pieces, frames)


class Hears:
    """`stop` where a patch's middle is loud; stands for a module."""

    training = False

    def eval(self) -> None: ...

    def train(self, mode: bool) -> None: ...

    def __call__(self, maps: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(maps), len(LABELS))
        loud = maps[:, 0, 30:34].mean((1, 2)) > 5.0
        logits[:, STOP], logits[:, LABELS.index("_unknown_")] = 20.0 * loud, 20.0 * ~loud
        return logits


def test_a_pack_comes_back_but_for_its_rounding(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = pack_of()
    pack = replace(
        whole,
        words=rng.normal(-3, 2, whole.words.shape).astype(np.float32),
        frames=rng.normal(-9, 6, (3217, 40)).astype(np.float32),
    )
    n_bytes = write_pack(tmp_path / "p.npz", pack)
    again = read_pack(tmp_path / "p.npz")
    assert n_bytes == (tmp_path / "p.npz").stat().st_size
    assert (again.front_end, again.folders, again.pieces) == (pack.front_end, pack.folders, pack.pieces)
    assert np.array_equal(again.folder, pack.folder) and np.array_equal(again.fold, pack.fold)
    for ours, theirs in ((again.words, pack.words), (again.frames, pack.frames)):
        assert ours.shape == theirs.shape
        assert np.sqrt(np.mean((ours - theirs) ** 2)) < 1.1 * STEP / np.sqrt(12)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x93NUMPY"])
def test_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "p.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"p\.npz: found .*, wanted a file written by kws-models pack"):
        read_pack(tmp_path / "p.npz")


def test_recordings_are_packed_with_their_folds(tmp_path: Path) -> None:
    write_readers(tmp_path)
    write_words(tmp_path)
    pack = build_pack(ARCHITECTURE, tmp_path, tmp_path / "cache")
    assert len(pack.words) == 2 * 11 and pack.folders == tuple(sorted((*LABELS[2:], "tree")))
    assert set(pack.fold) == {fold_of("s0"), fold_of("s1")} and not pack.published.any()
    readers = {p.fold for p in pack.pieces if p.kind == "real"}
    assert readers == {fold_of(f"reader_{i}") for i in (1, 2, 3)}
    left = pack.of_kind("real", fold_of("reader_1"))
    assert 0 < len(left) < len(pack.of_kind("real", None))
    assert pack.words.min() >= LOG_FLOOR - 0.01


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    def batch(seed: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        return PackBatches(ARCHITECTURE, pack_of(), None, PackMix(n=64), seed, "cpu").batch(step)

    first, again, other = batch(1, 3), batch(1, 3), batch(1, 4)
    assert first[0].shape == (64, ARCHITECTURE.n_frames, 40) and first[0].dtype == np.float32
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0]) and not np.array_equal(first[0], batch(2, 3)[0])
    assert set(first[1]) <= set(range(len(LABELS))) and np.isfinite(first[0]).all()


def test_nothing_of_the_held_out_fold_is_heard() -> None:
    batches = PackBatches(ARCHITECTURE, pack_of(), 0, PackMix(n=16), 1, "cpu")
    assert float(batches._long["real"].max()) == -4.0
    assert len(batches._words) == 11 * 3
    maps, classes = held_out(ARCHITECTURE, pack_of(), 0, "cpu")
    assert len(maps) == len(classes) == 11 and maps.shape[1:] == (1, ARCHITECTURE.n_frames, 40)


def test_places_where_a_command_is_heard_are_drawn() -> None:
    pack = pack_of(n_rows=4000)
    pack.frames[1000:1064] = 8.0  # in the talk, nowhere else
    batches = PackBatches(ARCHITECTURE, pack, 0, PackMix(n=64), 1, "cpu")
    draw = Draw(torch.Generator().manual_seed(0), "cpu")
    before = (batches._rows("real", batches._firsts(draw, "real", 200, 100), 60) > 5).float().mean()
    batches.listen(Hears())
    found = batches.mined()
    assert found["real"] and not found["synthesised"] and not found["noise"]
    first = batches._firsts(draw, "real", 200, 100)
    assert ((first[:100] > 900) & (first[:100] < 1064)).all() and before < 0.1


def test_a_place_is_forgotten_slowly() -> None:
    pack = pack_of(n_rows=4000)
    pack.frames[1000:1064] = 8.0
    batches = PackBatches(ARCHITECTURE, pack, 0, PackMix(n=64), 1, "cpu")
    batches.listen(Hears())
    first = float(batches._weights["real"].max())
    batches._long["real"][:] = -4.0
    batches.listen(Hears())
    assert float(batches._weights["real"].max()) == pytest.approx(0.7 * first)


def test_maps_are_read_where_they_are() -> None:
    maps = torch.arange(5.0)[None, :, None].expand(1, 5, 40) + torch.arange(40.0)[None, None] / 100
    frame, band = torch.tensor([[-3.0, 0.4, 0.6, 3.9, 9.0]]), torch.arange(40.0)[None] + 0.2
    out = warped(maps, frame, band)[0]
    assert torch.equal(out[:, 0], torch.tensor([0.0, 0.0, 1.0, 4.0, 4.0])) and torch.equal(out[0], maps[0, 0])


def test_noise_has_the_level_that_the_ratio_says() -> None:
    draw = Draw(torch.Generator().manual_seed(0), "cpu")
    clean, noise = torch.full((400, 64, 40), -60.0), torch.randn(400, 64, 40, generator=draw.generator)
    clean[:, :32] = 2.0
    both = with_noise(draw, clean, noise, (10.0, 10.0), 1.0)
    ratio_db = 20 / np.log(10) * (level(clean) - level(both[:, 32:]) + 0.0)
    assert float(ratio_db.mean()) == pytest.approx(10.0, abs=0.5)


def test_trains_on_a_pack_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pack(tmp_path / "p.npz", pack_of())
    run = ["train", "tcs-s-stream", "--pack", str(tmp_path / "p.npz"), "--steps", "3", "--batch", "24", "--fold", "0"]
    main([*run, "--device", "cpu", "--out", str(tmp_path / "run")])
    told = capsys.readouterr().out
    assert "44 clips of" in told and "accuracy on the held-out fold" in told
    assert (tmp_path / "run" / "weights.npz").is_file()


@pytest.mark.parametrize("name", ["dscnn-l", "resnetse", "cnn1d-custom32-8"])
def test_a_model_that_hears_otherwise_is_refused(name: str, tmp_path: Path) -> None:
    write_pack(tmp_path / "p.npz", pack_of())
    with pytest.raises(SystemExit):
        main(["train", name, "--pack", str(tmp_path / "p.npz"), "--out", str(tmp_path / "run"), "--device", "cpu"])
    with pytest.raises(KwsError, match=r"--pack: found features of another front end, wanted one made for dscnn-l"):
        PackBatches(ARCHITECTURES["dscnn-l"], pack_of(), None, PackMix(), 1, "cpu")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--teacher", "dscnn-m"), "--pack: found --teacher too, wanted --data for it"),
        (("--mine",), "--pack: found --mine too, wanted --data for it"),
        (("--silence", "5", "--unknown", "20"), "--pack: found --silence, --unknown too, wanted --data for them"),
    ],
)
def test_what_a_pack_has_no_use_for_is_refused(more: tuple[str, ...], said: str, tmp_path: Path, capsys) -> None:
    write_pack(tmp_path / "p.npz", pack_of())
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "train",
                ARCHITECTURE.name,
                "--pack",
                str(tmp_path / "p.npz"),
                "--out",
                str(tmp_path / "run"),
                "--steps",
                "1",
                *more,
            ]
        )
    error = capsys.readouterr().err
    assert ended.value.code == 2 and said in error and error.count("\n") == 1 and not (tmp_path / "run").exists()


def test_a_share_of_a_class_that_there_is_not_is_refused(tmp_path: Path, capsys) -> None:
    for option, label in (("--silence", "_silence_"), ("--unknown", "_unknown_")):
        with pytest.raises(SystemExit):
            main(["train", "resnetse", "--data", str(tmp_path), option, "5"])
        assert f"{option}: found resnetse, wanted a model with {label}" in capsys.readouterr().err
