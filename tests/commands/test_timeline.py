"""`kws-detect --html`: the page that needs nothing else holds what kws-detect finds."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_serve.commands.timeline import POINTS, _filled, _inline, _Track
from kws_serve.manifest.package_data import demo_audio
from kws_serve.messages import ScoresRow
from tests.engine.test_engine import loaded
from tests.support.tiny_model import FBANK_16K, write_level_model

DETECT = [sys.executable, "-c", "from kws_serve.cli import detect; detect()"]


def data(page: str) -> list[dict]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def values(block: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(block["values"]), np.uint8).reshape(-1, block["width"])


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict]]:
    """The page of the demo audio, and what --json says of it."""
    out = tmp_path_factory.mktemp("html") / "demo.html"
    run = subprocess.run([*DETECT, str(demo_audio()), "--json", "--html", str(out)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert {d.pop("path") for d in found} == {str(demo_audio())}  # the page has the file's name once
    return out.read_text(), found


def test_it_holds_the_detections_and_both_models(demo):
    page, found = demo
    (recording,) = data(page)
    own = [{k: v for k, v in d.items() if k != "until_s"} for d in recording["detections"]]
    assert own == [d for d in found if d["phase"] != "end"]
    ends = [d["end_s"] for d in found if d["phase"] == "end"]
    assert [d["until_s"] for d in recording["detections"] if d["phase"] == "start"] == ends
    assert [m["name"] for m in recording["models"]] == ["dscnn-s-stream", "resnetse"]
    for model in recording["models"]:
        scores = values(model["scores"])
        assert scores.shape[1] == len(model["labels"])
        for d in [d for d in recording["detections"] if d["model"] == model["name"]]:
            at = int(len(scores) * d["decided_s"] / recording["seconds"])
            label = model["labels"].index(d["label"])
            assert scores[max(0, at - 12) : at + 1, label].max() >= 255 * d["score"] - 1  # a mean is below its highest
        assert values(model["features"]).std() > 10


def test_it_needs_nothing_else(demo):
    page, _ = demo
    assert "default-src 'none'" in page
    assert not re.search(r'(?:src|href)=["\']?(?!data:)[a-z/.]', page.split("</style>")[0])
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")


def test_scores_of_a_point_are_the_highest_of_its_patches(tmp_path):
    spec = loaded(write_level_model(tmp_path, front_end=FBANK_16K, n_frames=20)).spec
    track = _Track(spec, 600.0)
    assert len(track._scores) == POINTS
    rng = np.random.default_rng(0)
    rows = rng.random((30_000, 2))
    for i, row in enumerate(rows):
        track.take(ScoresRow("s", "level", 0, i * 0.02, row))
    wanted = np.zeros((POINTS, 2))
    np.maximum.at(wanted, (np.arange(30_000) * 0.02 * POINTS / 600).astype(int), rows)
    assert np.abs(track._scores - wanted).max() < 1e-12


def test_several_files_a_bad_one_and_a_full_name(tmp_path):
    models = write_level_model(tmp_path / "models").parent
    hostile = tmp_path / "</script><img src=x onerror=alert(1)>.wav"
    other = tmp_path / "b.wav"
    names = ["x".join(hostile.name.split("/")), "b.wav"]
    audio = np.repeat([0.0, 0.6, 0.0], 16000)
    paths = [tmp_path / names[0], other]
    for path in paths:
        soundfile.write(path, audio, 16000)
    out = tmp_path / "out.html"
    flags = ["--model-dir", str(models), "--model", "level", "--html", str(out)]
    run = subprocess.run(
        [*DETECT, *map(str, paths), str(tmp_path / "none.wav"), *flags], capture_output=True, text=True
    )
    assert run.returncode == 2  # one could not be read; the others are there
    page = out.read_text()
    assert [r["name"] for r in data(page)] == names
    assert [len(r["detections"]) for r in data(page)] == [1, 1]
    assert "<img" not in page


def test_where_it_cannot_be_written_that_is_said(tmp_path):
    models = write_level_model(tmp_path / "models").parent
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    flags = ["--model-dir", str(models), "--model", "level", "--html", str(tmp_path / "no" / "x.html")]
    run = subprocess.run([*DETECT, str(tmp_path / "a.wav"), *flags], capture_output=True, text=True)
    assert run.returncode == 2
    assert "--html: cannot write" in run.stderr


def test_a_template_is_filled_once():
    assert _filled("a @X@ b @Y@", {"X": "@Y@", "Y": "1"}) == "a @Y@ b 1"
    assert json.loads(_inline({"a": "</script>"})) == {"a": "</script>"}
    assert "<" not in _inline({"a": "</script>"})


def test_a_file_whose_header_hides_its_length(tmp_path):
    from kws_serve.audio import decoder
    from kws_serve.sources import files

    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(24000), 16000)
    file = files.AudioFile(Path(path))
    assert file.seconds == 1.5
    decoder._UNKNOWN, before = 0, decoder._UNKNOWN
    try:
        assert file.seconds == 1.5
    finally:
        decoder._UNKNOWN = before
        file.close()
