"""`kws-models build` from end to end on small folders of noise: what it makes, skips and goes on with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")

from kws_models.data.recordings import fold_of
from kws_models.data.synthesiser import installed
from kws_serve.manifest.folder import load_model
from tests.models.data.test_training_list import write_clip
from tests.training.test_commands import FOLDERS, command

pytestmark = [pytest.mark.train, pytest.mark.skipif(not installed(), reason="needs espeak-ng or flite")]

FOLD = 0
HELD = [f"s{i}" for i in range(60) if fold_of(f"s{i}") == FOLD][:2]
KEPT = [f"s{i}" for i in range(60) if fold_of(f"s{i}") != FOLD][:2]
READERS = [next(f"r{i}" for i in range(60) if fold_of(f"r{i}") == fold) for fold in (FOLD, FOLD + 1)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("recordings")
    for n, folder in enumerate(FOLDERS["dscnn-s"]):
        for i, speaker in enumerate((*HELD, *KEPT)):
            write_clip(root / folder / f"{speaker}_nohash_0.wav", 10 * n + i)
    for i, reader in enumerate(READERS):
        write_clip(root / "speech_running" / reader / "0.wav", 1000 + i, seconds=6.0)
    write_clip(root.parent / "prompts" / "0.wav", 2000, seconds=4.0)
    return root


def build(data: Path, out: Path, *more: object) -> None:
    cache = out.parent / "cache"
    short = ("--steps", 3, "--workers", 0, "--hours", 0.003)
    command("build", "dscnn-s", "--data", data, "--cache", cache, "--out", out, *short, *more)


def steps_of(text: str) -> dict[str, str]:
    """What was said of each step."""
    names = ("train", "export", "calibrate", "measure", "card")
    found = dict(line.split(": ", 1) for line in text.splitlines() if line.split(": ", 1)[0] in names)
    assert list(found) == list(names)
    return found


def test_a_folder_is_made_and_nothing_is_done_twice(data: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "mine"
    build(data, out, "--fold", FOLD, "--speech", data.parent / "prompts")
    assert set(steps_of(capsys.readouterr().out).values()) == {"new"}
    spec = load_model(out)
    facts = json.loads((out / "card.json").read_text())
    card = (out / "README.md").read_text()
    assert spec.provenance["held_out_fold"] == FOLD and spec.accuracy["float32"]["n"] == facts["float32"]["n"] > 20
    assert set(spec.accuracy["stream"]["real_running_speech"]["by_source"]) == {
        f"speech_running/{READERS[0]}",
        "prompts",
    }
    assert len(facts["float32"]["confusion"]) == 12 and len(facts["worst_pairs"]) <= 5
    assert facts["costs"]["reference_cycles"] == 807_975 and len(facts["costs"]["layers"]) == 12
    for said in ("## Taken for each other", "det.svg", "filters.png", "modelled", "synthetic", "## Credits", "Wilson"):
        assert said in card, said
    assert (out / "det.svg").read_text().startswith("<svg") and (out / "filters.png").stat().st_size < 20_000
    int8 = (out / "model.int8.tflite").read_bytes()

    build(data, out, "--fold", FOLD, "--speech", data.parent / "prompts")
    assert set(steps_of(capsys.readouterr().out).values()) == {"nothing has changed"}
    assert (out / "README.md").read_text() == card

    (out / "README.md").unlink()
    build(data, out, "--fold", FOLD, "--speech", data.parent / "prompts")
    said = steps_of(capsys.readouterr().out)
    assert said.pop("card") == "changed: README.md" and set(said.values()) == {"nothing has changed"}
    assert "## Clips" in (out / "README.md").read_text()

    build(data, out, "--fold", FOLD)  # without the prompts
    said = steps_of(capsys.readouterr().out)
    assert said["train"] == said["export"] == said["measure"] == "nothing has changed"
    assert said["calibrate"] == "changed: speech"

    settings = load_model(out).detection
    shutil.rmtree(out)
    build(data, out, "--fold", FOLD)
    said = steps_of(capsys.readouterr().out)
    assert said["train"] == said["calibrate"] == "nothing has changed" and said["export"].startswith("changed")
    assert load_model(out).detection == settings
    assert (out / "model.int8.tflite").read_bytes() == int8

    again = tmp_path / "again" / "mine"
    build(data, again, "--fold", FOLD)  # a training of its own, from the same seed
    assert (again / "model.int8.tflite").read_bytes() == int8


def test_changed_recordings_are_learnt_from(data: Path, tmp_path: Path, capsys) -> None:
    mine = tmp_path / "data"
    shutil.copytree(data, mine)
    build(mine, tmp_path / "mine", "--fold", FOLD)
    first = (tmp_path / "mine" / "model.int8.tflite").read_bytes()
    capsys.readouterr()
    write_clip(mine / "yes" / f"{KEPT[0]}_nohash_0.wav", 5000)
    build(mine, tmp_path / "mine", "--fold", FOLD)
    assert steps_of(capsys.readouterr().out)["train"] == "changed: recordings, weights.npz"
    assert (tmp_path / "mine" / "model.int8.tflite").read_bytes() != first
    build(mine, tmp_path / "mine", "--fold", FOLD, "--seed", 2)
    assert steps_of(capsys.readouterr().out)["train"] == "changed: seed, weights.npz"


def test_a_model_of_all_recordings_is_measured_on_its_twin(data: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "whole"
    build(data, out)
    spec, twin = load_model(out), load_model(tmp_path / "whole.build" / "twin")
    assert spec.provenance["held_out_fold"] is None and twin.provenance["held_out_fold"] == FOLD
    assert spec.detection == twin.detection and "of a twin" in spec.accuracy["protocol"]
    assert spec.accuracy["float32"] == twin.accuracy["float32"]
    assert "The figures are of a twin" in (out / "README.md").read_text()

    weights = next((tmp_path / "whole.build").glob("run-*/weights.npz"))
    manifest = json.loads((out / "model.json").read_text())
    manifest["detection"]["yes"]["isolation"] = {}
    (out / "model.json").write_text(json.dumps(manifest))
    capsys.readouterr()
    again = ("--weights", weights, "--twin", tmp_path / "whole.build" / "twin", "--keep-settings")
    build(data, out, *again)
    assert load_model(out).detection["yes"].isolation is not None
    assert "Weights were given" in (out / "README.md").read_text()
    assert "Thresholds were given" in (out / "README.md").read_text()
    assert "train: " not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--weights", "w.npz"), "--weights: found neither --fold nor --twin"),
        (("--start", "w.npz"), "--start: found neither --fold nor --twin"),
        (("--fold", 0, "--twin", "x"), "--twin: found --fold too"),
        (("--fold", 0, "--weights", "w.npz"), "weights: found no file w.npz"),
        (("--fold", 0, "--data", "no-such-folder"), "no-such-folder"),
    ],
)
def test_what_does_not_fit_is_one_line(more: tuple[object, ...], said: str, data: Path, tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        build(data, tmp_path / "out", *more)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
