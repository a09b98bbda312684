"""The demo audio through the shipped models: what a newcomer sees first is right."""

from __future__ import annotations

import json
import subprocess
import sys

from kws_serve.package_data import demo_audio

_COLLAR_S = 0.5


def test_every_detection_in_the_demo_is_right_and_the_first_comes_soon() -> None:
    labels = json.loads((demo_audio().parent / "labels.json").read_text())
    command = [sys.executable, "-c", "from kws_serve.cli import detect; detect()", "--json", str(demo_audio())]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [d for d in map(json.loads, run.stdout.splitlines()) if d["phase"] != "end"]
    right = [
        (d["label"], x["start_s"])
        for d in found
        for x in labels
        if x["label"] == d["label"] and x["start_s"] - _COLLAR_S < d["start_s"] < x["end_s"] + _COLLAR_S
    ]
    assert len(right) == len(found), [(d["label"], d["start_s"]) for d in found]
    assert len(set(right)) == len(right), "no word is found twice"
    assert min(d["decided_s"] for d in found) < 6.0
    assert len(right) >= 8
    assert {"glassbreak", "gunshot", "babycry"} & {d["label"] for d in found}
