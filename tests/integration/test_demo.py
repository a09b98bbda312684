"""The demo audio through the shipped models: what a newcomer sees first is heard, whole, and nothing else is."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_serve.commands.detect import detect_file
from kws_serve.commands.loading import new_engine
from kws_serve.config import load_settings
from kws_serve.core.detector import smoothed
from kws_serve.core.detector_rules import mean_width
from kws_serve.demo.make_demo import TALK, VOICES
from kws_serve.manifest.folder import list_models, load_model, shipped_models_dir
from kws_serve.manifest.package_data import demo_audio
from kws_serve.messages import Detection, ScoresRow
from kws_serve.sources.spec import SourceSpec

_COLLAR_S, _EVENT_COLLAR_S = 0.5, 1.0  # a sound's start is guessed from patches of 1.9 s
MARGIN = 0.03
"""How far above its threshold each label comes: a third of what there is above the highest, 0.9."""

ROOM_S = 1.5
"""Between words: as long as a newcomer needs to tell them apart, and more than the refractory time of 1 s."""

LABELS = json.loads((demo_audio().parent / "labels.json").read_text())
DIGITS = ("zero", "three")  # cnn1d-custom32-8 knows no rest label: it is heard in its own scene only


@pytest.mark.parametrize("name", sorted(list_models([shipped_models_dir()])))
def test_every_model_hears_its_labels_where_they_are_with_a_margin_and_nothing_else(name: str) -> None:
    spec = load_model(shipped_models_dir() / name)
    engine = new_engine(load_settings({"model": (name,)})[0])
    events = list(detect_file(engine, SourceSpec("demo", "file", str(demo_audio()), "", 0), scores=True))
    found = [e for e in events if isinstance(e, Detection) and e.phase != "end"]
    if not spec.rest_labels:
        first = min(x["start_s"] for x in LABELS if x["label"] in DIGITS)
        last = max(x["end_s"] for x in LABELS if x["label"] in DIGITS)
        found = [d for d in found if first - 1 < d.start_s < last + 1]
    scores = [e for e in events if isinstance(e, ScoresRow)]
    end_s, values = np.array([e.end_s for e in scores]), np.array([e.values for e in scores])
    wanted = [x for x in LABELS if x["label"] in spec.detection]
    assert len(wanted) >= 2
    collar_s = _EVENT_COLLAR_S if spec.task == "event" else _COLLAR_S
    for x in wanted:
        settings = engine.detection_settings(name)[x["label"]]
        near = [d for d in found if x["start_s"] - collar_s < d.start_s < x["end_s"] + collar_s]
        assert [d.label for d in near] == [x["label"]], (x, [(d.label, d.start_s) for d in near])
        means = smoothed(values[:, spec.labels.index(x["label"])], mean_width(settings.smoothing_ms, spec.patch_hop_ms))
        peak = means[(end_s > x["start_s"]) & (end_s < x["end_s"] + 2.0)].max()
        assert peak >= settings.threshold + MARGIN, (x, float(peak), settings.threshold)
    assert len(found) == len(wanted), [(d.label, d.start_s) for d in found]
    engine.close()


def test_words_have_room_and_talk_is_in_it() -> None:
    for one, other in pairwise(LABELS):
        assert other["start_s"] - one["end_s"] >= ROOM_S
    assert sum(x["end_s"] - x["start_s"] for x in LABELS if x["label"] == TALK) >= 8.0
    words = {x["label"] for x in LABELS} & set(load_model(shipped_models_dir() / "dscnn-s").detection)
    assert len(words) >= 9
    assert LABELS[0]["start_s"] < 2.0  # something happens at once
    assert soundfile.info(demo_audio()).duration < 75 and demo_audio().stat().st_size < 200_000


def test_the_voices_are_named_where_trainings_look() -> None:
    readme = (Path(demo_audio()).parent / "README.md").read_text()
    assert all(f"`{voice}`" in readme for voice in VOICES)
