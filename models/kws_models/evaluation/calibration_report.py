"""What a calibration found, with exposure and 95 % intervals, and its way into model.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kws_models.data.synthesiser import versions
from kws_models.evaluation.calibration_material import Material
from kws_models.evaluation.intervals import poisson, wilson
from kws_models.evaluation.scenes import count, detections, stream_powers
from kws_models.evaluation.talk_report import OFF_SHARE, Talking, counted
from kws_models.evaluation.thresholds import GRID, NEAR_S, Choice, chosen_detection
from kws_models.whole_file import replace_file
from kws_serve.manifest.folder import load_model
from kws_serve.manifest.spec import ModelSpec


@dataclass(frozen=True)
class _Heard:
    """The scenes at the chosen settings, by label."""

    hours: float
    marked: dict[str, int]  # clips
    delays_s: dict[str, list[float]]  # of each that was found, from its sound's onset to the decision
    wrong: int  # detections of no clip

    @property
    def n(self) -> int:
        return sum(self.marked.values())


def measured(spec: ModelSpec, material: Material, choice: Choice) -> dict[str, Any]:
    """Rates with their exposure and 95 % intervals at the chosen settings, and each label's median delay."""
    heard = _heard(spec, material, choice)
    return {
        "settings": {**choice.settings, "thresholds": choice.thresholds},
        "running_speech": {
            "synthetic": versions(),
            "hours": round(material.hours, 3),
            "false_accepts": choice.false_accepts,
            "per_hour": choice.false_accepts / material.hours,
            "per_hour_ci": poisson(choice.false_accepts, material.hours),
        },
        **_real(spec, material, choice),
        "backgrounds_and_hard_negatives": {
            "n": material.n_hard,
            "hours": round(material.hard_hours, 3),
            "accepts": choice.hard_accepts,
        },
        "scenes": _found(heard),
        "trade_off": _trade_off(material, choice, heard.n),
        "onset_offset_ms": {
            label: round(1000 * float(np.median(delays)), -1) for label, delays in heard.delays_s.items() if delays
        },
        "note": "thresholds were given" if choice.as_it_was else "thresholds were chosen on this very material",
    }


def _heard(spec: ModelSpec, material: Material, choice: Choice) -> _Heard:
    setting = chosen_detection(spec, choice)
    delays_s: dict[str, list[float]] = {label: [] for label in setting}
    marked = dict.fromkeys(setting, 0)
    wrong = 0
    for scene, scores in material.scenes:
        firings = detections(spec, scores, setting, stream_powers(spec, scene.samples))
        found = count(scene, spec, firings, NEAR_S[spec.task])
        wrong += found.wrong
        for label, some in found.delays_s.items():
            delays_s[label] += some
        for mark in scene.marks:
            marked[mark.label] += 1
    return _Heard(sum(scene.hours for scene, _ in material.scenes), marked, delays_s, wrong)


def _found(heard: _Heard) -> dict[str, Any]:
    hits = sum(map(len, heard.delays_s.values()))
    return {
        "hours": round(heard.hours, 3),
        "n": heard.n,
        "found": hits,
        "found_share": hits / heard.n,
        "found_ci": wilson(hits, heard.n),
        "other_detections": heard.wrong,
        "recall": {label: len(delays) / max(1, heard.marked[label]) for label, delays in heard.delays_s.items()},
    }


def _trade_off(material: Material, choice: Choice, n: int) -> list[dict[str, Any]]:
    """Both sides at each threshold of GRID, one for all labels; `n`: clips in the scenes."""
    return [
        {
            "threshold": threshold,
            "per_hour": float(choice.curves.false_accepts[:, j].sum() / material.hours),
            **_real_rate(material, int(choice.curves.talk_accepts[:, j].sum())),
            "accepts": int(choice.curves.hard_accepts[:, j].sum()),
            "found_share": float(choice.curves.hits[:, j].sum() / n),
        }
        for j, threshold in enumerate(GRID)
    ]


def _real(spec: ModelSpec, material: Material, choice: Choice) -> dict[str, Any]:
    """Real people's speech at the chosen settings, in all and by where it comes from; nothing where there is none."""
    if not material.talk:
        return {}
    setting = chosen_detection(spec, choice)
    counts = {name: sum(counted(spec, [], [], some, setting)[1]) for name, some in material.talk.items()}
    by_source = {name: _talk_rate(some, counts[name]) for name, some in material.talk.items()}
    everybody = [one for some in material.talk.values() for one in some]
    return {"real_running_speech": _talk_rate(everybody, choice.talk_accepts) | {"by_source": by_source}}


def _talk_rate(talking: list[Talking], accepts: int) -> dict[str, Any]:
    hours = sum(one.hours for one in talking)
    return {
        "speakers": len(talking),
        "hours": round(hours, 3),
        "false_accepts": accepts,
        "per_hour": accepts / hours,
        "per_hour_ci": poisson(accepts, hours),
    }


def _real_rate(material: Material, accepts: int) -> dict[str, float]:
    hours = sum(one.hours for some in material.talk.values() for one in some)
    return {"real_per_hour": accepts / hours} if hours else {}


def write(folder: Path, choice: Choice, facts: dict[str, Any]) -> None:
    """The settings into `detection`, the measurement into `accuracy.stream`."""
    path = folder / "model.json"
    manifest = json.loads(path.read_text(encoding="utf-8-sig"))
    offsets = facts["onset_offset_ms"]
    common = float(np.median(list(choice.thresholds.values())))
    every = manifest["detection"].get("*", {}) | choice.settings
    every |= {"threshold": common, "off_threshold": round(OFF_SHARE * common, 4)}
    if offsets:
        every["onset_offset_ms"] = float(np.median(list(offsets.values())))
    detection = {"*": every}
    for label, threshold in choice.thresholds.items():
        own = {"onset_offset_ms": offsets[label]} if label in offsets else {}
        if threshold != common:
            own |= {"threshold": threshold, "off_threshold": round(OFF_SHARE * threshold, 4)}
        detection[label] = own
    manifest["detection"] = detection
    manifest.setdefault("accuracy", {})["stream"] = {k: v for k, v in facts.items() if k != "settings"}
    replace_file(path, (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())
    load_model(folder)
