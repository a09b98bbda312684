"""The demo audio through the shipped models: what a newcomer sees first is right."""

from __future__ import annotations

import json
import subprocess
import sys

from kws_serve.manifest.package_data import demo_audio

_EVENTS = {"glassbreak", "gunshot", "babycry"}
_COLLAR_S, _EVENT_COLLAR_S = 0.5, 1.0  # a sound's start is guessed from patches of 1.9 s


def collar_s(detection: dict[str, str]) -> float:
    return _EVENT_COLLAR_S if detection["label"] in _EVENTS else _COLLAR_S


def test_every_detection_in_the_demo_is_right_and_the_first_comes_soon() -> None:
    labels = json.loads((demo_audio().parent / "labels.json").read_text())
    command = [sys.executable, "-c", "from kws_serve.cli import detect; detect()", "--json", str(demo_audio())]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [d for d in map(json.loads, run.stdout.splitlines()) if d["phase"] != "end"]
    right = [
        (d["label"], x["start_s"])
        for d in found
        for x in labels
        if x["label"] == d["label"] and x["start_s"] - collar_s(d) < d["start_s"] < x["end_s"] + collar_s(d)
    ]
    assert len(right) == len(found), [(d["label"], d["start_s"]) for d in found]
    assert len(set(right)) == len(right), "no word is found twice"
    assert min(d["decided_s"] for d in found) < 6.0
    assert len(right) >= 8
    assert _EVENTS & {d["label"] for d in found}
