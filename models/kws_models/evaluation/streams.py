"""`kws-models evaluate --stream`: long labelled recordings through the service's front end and detector.

A detection answers an event of its label if it was decided between the event's onset and `tolerance_s` after its end;
each event is answered once. What answers nothing is a false accept. Event F1 is of onsets alone, 200 ms collar, by
sed_eval (Mesaros, Heittola, Virtanen: Metrics for polyphonic sound event detection, 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kws_models.command_line import extra_of
from kws_models.data.audio_cache import decode
from kws_models.data.label_files import LabelledEvent, LabelledRecording, find_labelled
from kws_models.evaluation.clips import Infer
from kws_models.evaluation.intervals import poisson, wilson
from kws_models.evaluation.scenes import detections, stream_powers, stream_scores
from kws_serve.core.detector import Firing
from kws_serve.core.resampler import ENGINE_RATE_HZ
from kws_serve.manifest.spec import DetectionSpec, ModelSpec
from kws_serve.messages import Float32Array, KwsError

COLLAR_S = 0.2  # an onset may be as far off and still be right: as in DCASE's sound event detection tasks
TOLERANCE_S = {"keyword": 1.0, "event": 2.0}  # after an event's end: about a patch, so smoothing and k of n are done
DET_THRESHOLDS = (*(round(0.05 * i, 2) for i in range(1, 20)), 0.97, 0.98, 0.99, 0.995)


@dataclass(frozen=True)
class Heard:
    """One recording: what should be heard, every patch's scores, and how long it is."""

    recording: LabelledRecording
    scores: Float32Array
    powers: Float32Array
    seconds: float


@dataclass
class Tally:
    """Answers of one label, or of all."""

    events: int = 0
    hits: int = 0
    false_accepts: int = 0

    def rates(self, hours: float) -> dict[str, Any]:
        """Each rate with its exposure and 95 % interval (Poisson, Wilson)."""
        low, high = wilson(self.hits, self.events)
        return {
            "n": self.events,
            "hits": self.hits,
            "miss_rate": 1 - self.hits / self.events if self.events else None,
            "miss_rate_ci": [1 - high, 1 - low],
            "false_accepts": self.false_accepts,
            "false_accepts_per_hour": self.false_accepts / hours,
            "false_accepts_per_hour_ci": poisson(self.false_accepts, hours),
        }


def evaluate_stream(spec: ModelSpec, infer: Infer, data: Path) -> dict[str, Any]:
    """The report on the labelled recordings under `data`. Raises KwsError for data that does not fit."""
    heard = [_hear(spec, infer, recording) for recording in find_labelled(data)]
    hours = sum(one.seconds for one in heard) / 3600
    if hours <= 0:
        raise KwsError(f"--data: found only empty recordings under {data}, wanted audio")
    fired = [detections(spec, one.scores, dict(spec.detection), one.powers) for one in heard]
    tallies, latencies = _answers(spec, heard, fired)
    strange = sorted({e.label for one in heard for e in one.recording.events} - set(spec.detection))
    return {
        "recordings": len(heard),
        "hours": hours,
        "labels": list(spec.detection),
        "labels_of_no_detection": strange,
        "overall": _total(tallies).rates(hours),
        "per_label": {label: tally.rates(hours) for label, tally in tallies.items()},
        "latency": {name: _quantiles(values) for name, values in latencies.items()},
        "det": [_det_point(spec, heard, threshold, hours) for threshold in DET_THRESHOLDS],
        "event_f1": event_f1(list(spec.detection), heard, fired),
    }


def _hear(spec: ModelSpec, infer: Infer, recording: LabelledRecording) -> Heard:
    samples = decode(recording.path, spec.front_end.rate_hz)
    seconds = len(samples) / spec.front_end.rate_hz
    padded = np.pad(samples, (0, spec.patch_samples))
    return Heard(recording, stream_scores(spec, infer, padded), stream_powers(spec, padded), seconds)


def _answers(
    spec: ModelSpec, heard: Sequence[Heard], fired: Sequence[list[Firing]]
) -> tuple[dict[str, Tally], dict[str, list[float]]]:
    tallies = {label: Tally() for label in spec.detection}
    latencies: dict[str, list[float]] = {"from_onset_s": [], "from_end_s": []}
    for one, firings in zip(heard, fired, strict=True):
        left = list(firings)
        for event in one.recording.events:
            if event.label not in tallies:
                continue
            tallies[event.label].events += 1
            answer = next((f for f in left if _answered(event, f, TOLERANCE_S[spec.task])), None)
            if answer is None:
                continue
            left.remove(answer)
            tallies[event.label].hits += 1
            decided_s = answer.decided_16k / ENGINE_RATE_HZ
            latencies["from_onset_s"].append(decided_s - event.onset_s)
            latencies["from_end_s"].append(decided_s - event.offset_s)
        for firing in left:
            tallies[firing.label].false_accepts += 1
    return tallies, latencies


def _answered(event: LabelledEvent, firing: Firing, tolerance_s: float) -> bool:
    decided_s = firing.decided_16k / ENGINE_RATE_HZ
    return firing.label == event.label and event.onset_s <= decided_s <= event.offset_s + tolerance_s


def _total(tallies: dict[str, Tally]) -> Tally:
    rows = list(tallies.values())
    return Tally(sum(t.events for t in rows), sum(t.hits for t in rows), sum(t.false_accepts for t in rows))


def _quantiles(values: list[float]) -> dict[str, Any]:
    if not values:
        return {"n": 0, "p50": None, "p90": None, "max": None}
    p50, p90 = (float(x) for x in np.percentile(values, (50, 90)))
    return {"n": len(values), "p50": p50, "p90": p90, "max": max(values)}


def _det_point(spec: ModelSpec, heard: Sequence[Heard], threshold: float, hours: float) -> dict[str, Any]:
    """All labels at one threshold, the off-threshold lowered with it; everything else as the model has it."""
    settings = {label: _at(s, threshold) for label, s in spec.detection.items()}
    total = _total(_answers(spec, heard, [detections(spec, one.scores, settings, one.powers) for one in heard])[0])
    miss = 1 - total.hits / total.events if total.events else None
    return {"threshold": threshold, "false_accepts_per_hour": total.false_accepts / hours, "miss_rate": miss}


def _at(settings: DetectionSpec, threshold: float) -> DetectionSpec:
    off = settings.off_threshold * threshold / settings.threshold if settings.threshold else 0.0
    return replace(settings, threshold=threshold, off_threshold=min(off, threshold))


def event_f1(labels: list[str], heard: Sequence[Heard], fired: Sequence[list[Firing]]) -> dict[str, Any]:
    """F1, precision and recall of onsets with a collar of COLLAR_S, overall (micro) and by label."""
    with extra_of("evaluate --stream", "evaluate"):
        import sed_eval
    metrics = sed_eval.sound_event.EventBasedMetrics(
        event_label_list=labels, t_collar=COLLAR_S, evaluate_onset=True, evaluate_offset=False
    )
    for i, (one, firings) in enumerate(zip(heard, fired, strict=True)):
        reference = [(e.onset_s, e.offset_s, e.label) for e in one.recording.events if e.label in labels]
        estimated = [(f.start_16k / ENGINE_RATE_HZ, f.decided_16k / ENGINE_RATE_HZ, f.label) for f in firings]
        metrics.evaluate(_as_rows(reference, f"{i}.wav"), _as_rows(estimated, f"{i}.wav"))
    overall, by_label = metrics.results_overall_metrics(), metrics.results_class_wise_metrics()
    return {
        "library": f"sed_eval {sed_eval.__version__}",
        "collar_s": COLLAR_S,
        "overall": _f_measure(overall),
        "per_label": {label: _f_measure(by_label[label]) for label in labels},
    }


def _as_rows(events: list[tuple[float, float, str]], file: str) -> list[dict[str, Any]]:
    return [{"filename": file, "event_onset": a, "event_offset": max(a, b), "event_label": c} for a, b, c in events]


def _f_measure(found: dict[str, Any]) -> dict[str, float | None]:
    """Not a number (of nothing) is null."""
    values = found["f_measure"]
    return {
        name: None if np.isnan(values[key]) else float(values[key])
        for name, key in (("f1", "f_measure"), ("precision", "precision"), ("recall", "recall"))
    }


def as_text(report: dict[str, Any]) -> str:
    """A table by label, then latency, F1 and the DET curve."""
    lines = [f"{report['recordings']} recordings, {report['hours']:.3f} hours"]
    if report["labels_of_no_detection"]:
        lines.append(f"labels that the model does not detect: {', '.join(report['labels_of_no_detection'])}")
    lines.append(f"{'label':18}{'n':>6}{'missed':>10}  95 % interval{'false/h':>10}  95 % interval{'F1':>10}")
    f1 = report["event_f1"]
    lines += [_row(label, row, f1["per_label"][label]["f1"]) for label, row in report["per_label"].items()]
    lines.append(_row("all", report["overall"], f1["overall"]["f1"]))
    for name, found in report["latency"].items():
        if found["n"]:
            since = name[:-2].replace("_", " the ")
            numbers = f"p50 {found['p50']:.2f} s, p90 {found['p90']:.2f} s, max {found['max']:.2f} s"
            lines.append(f"decided {since}: {numbers}")
    lines.append(f"{'threshold':>9}{'false/h':>10}{'missed':>10}")
    for point in report["det"]:
        lines.append(
            f"{point['threshold']:>9}{point['false_accepts_per_hour']:>10.2f}{_percent(point['miss_rate']):>10}"
        )
    return "\n".join(lines)


def _row(label: str, row: dict[str, Any], f1: float | None) -> str:
    (m0, m1), (f_low, f_high) = row["miss_rate_ci"], row["false_accepts_per_hour_ci"]
    missed = f"{_percent(row['miss_rate']):>10}  {100 * m0:5.1f} - {100 * m1:5.1f}"
    false = f"{row['false_accepts_per_hour']:>10.2f}  {f_low:5.2f} - {f_high:5.2f}"
    return f"{label:18}{row['n']:>6}{missed}{false}" + (f"{f1:>10.3f}" if f1 is not None else f"{'-':>10}")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
