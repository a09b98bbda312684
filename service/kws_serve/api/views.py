"""What GET answers of streams, models and detections as plain JSON."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict

from kws_serve.api.tokens import EVERYTHING, Grant
from kws_serve.engine.engine import Engine
from kws_serve.engine.evidence import Evidence, SecondLook
from kws_serve.engine.proposals import Counts
from kws_serve.engine.stream import Stream
from kws_serve.manifest.measured_curve import measured_curve
from kws_serve.manifest.package_data import demo_audio
from kws_serve.messages import JsonObject
from kws_serve.sinks.filter import Logged
from kws_serve.sinks.reader import logged_json
from kws_serve.wire import rounded, utc


def stream_json(engine: Engine, stream: Stream) -> JsonObject:
    """One stream, counts in samples at its own rate."""
    received, processed, dropped, buffered = stream.counts
    own = [m for m in stream.models if engine.detection_overrides(m, stream.name)]
    top = {model: {"label": label, "score": round(score, 4)} for model, (label, score) in engine.top(stream).items()}
    return {
        "name": stream.name,
        "epoch": stream.epoch,
        "kind": stream.kind,
        "rate": stream.rate_hz,
        "channels": stream.channels,
        "models": list(stream.models),
        "opened_at": utc(stream.opened_at),
        "received_samples": received,
        "processed_samples": processed,
        "dropped_samples": dropped,
        "buffered_samples": buffered,
        "dropped_s": round(dropped / stream.rate_hz, 3),
        "connected": stream.connected,
        "level": round(stream.level, 4),
        "top": top,
        "detection": {m: engine.show_detection(m, stream.name) for m in own},
    }


@functools.cache
def demo_json() -> JsonObject:
    """What is said in one round of the demo audio. Raises OSError: it is not there."""
    import soundfile  # where a stream plays it

    path = demo_audio()
    items = json.loads(path.with_name("labels.json").read_text(encoding="utf-8"))
    return {"seconds": soundfile.info(path).duration, "items": items}


OF_ALL_PATCHES = ("on_trial", "disagreements", "failed_patches", "error", "proposed")
"""Keys of a model that depend on what every stream sounds like."""


def models_json(engine: Engine, grant: Grant = EVERYTHING) -> list[JsonObject]:
    """Every loaded model, as far as `grant` may see: what it knows, how it hears, what fires it, what was changed."""
    items = _models_json(engine)
    for item in items:
        item["stream_overrides"] = {
            name: own for name, own in engine.stream_overrides(item["name"]).items() if grant.may_touch(name)
        }
    if grant.streams is None:
        return items
    return [item | dict.fromkeys(OF_ALL_PATCHES) for item in items]


def _models_json(engine: Engine) -> list[JsonObject]:
    compared = engine.disagreements()
    parts = {m.name: m for lane in engine.lanes for m in lane.models}
    items = []
    for name, spec in engine.models.items():
        backends = [m.backend_name for m in engine.loaded if m.spec.name == name]
        items.append(
            {
                "name": name,
                "version": spec.version,
                "digest": parts[name].loaded.digest,
                "on_trial": parts[name].previous is not None,
                "task": spec.task,
                "labels": list(spec.labels),
                "rest_labels": [label for label in spec.labels if label in spec.rest_labels],
                "experimental_labels": list(spec.provenance.get("experimental_labels", [])),
                "backend": backends[0],
                "backends": backends,
                "disagreements": {
                    b: {"patches": c.differing, "of": c.of, "left_out": c.left_out}
                    for b, c in compared.get(name, {}).items()
                },
                "failed_patches": parts[name].failed_patches,
                "error": parts[name].error or None,
                "front_end": asdict(spec.front_end),
                "n_frames": spec.n_frames,
                "patch_hop_ms": spec.patch_hop_ms,
                "verify": spec.verify and asdict(spec.verify),
                "proposed": asdict(engine.proposals.counts.get(name, Counts())),
                "detection": {label: asdict(s) for label, s in engine.detection_settings(name).items()},
                "overrides": engine.detection_overrides(name),
                "accuracy": spec.accuracy,
                "curve": measured_curve(spec.accuracy),
            }
        )
    return items


def verifiers_json(engine: Engine, grant: Grant = EVERYTHING) -> list[JsonObject]:
    """Every model that looks again at what others propose, as far as `grant` may see."""
    items = []
    for name, verifier in list(engine.proposals.verifiers.items()):
        spec, of_all = verifier.loaded.spec, grant.streams is None
        items.append(
            {
                "name": name,
                "version": spec.version,
                "digest": verifier.loaded.digest,
                "backend": verifier.loaded.backend_name,
                "labels": list(spec.labels),
                "verifies": [n for n, s in engine.models.items() if s.verify is not None and s.verify.model == name],
                "patches": verifier.patches if of_all else None,
                "error": (verifier.error or None) if of_all else None,
            }
        )
    return items


def why_json(logged: Logged, evidence: Evidence | None) -> JsonObject:
    """A detection and what led to it, as far as that is kept. Times in s of the stream."""
    if evidence is None:
        nothing = dict.fromkeys(("settings", "patch", "scores", "surroundings", "verify", "armed_s"))
        return {"detection": logged_json(logged), **nothing, "untold": []}
    spec, n, around = evidence.spec, len(evidence.before), evidence.surroundings
    patch_s = spec.patch_samples / spec.front_end.rate_hz
    scores = evidence.scores
    end_s = [round(evidence.decided_s + (i + 1 - n) * spec.patch_hop_ms / 1000, 6) for i in range(len(scores))]
    return {
        "detection": logged_json(logged),
        "settings": asdict(evidence.settings),
        "patch": {
            "kind": spec.front_end.kind,
            "first_s": round(max(0.0, evidence.decided_s - patch_s), 6),
            "end_s": round(evidence.decided_s, 6),
            "values": rounded(evidence.patch),
        },
        "scores": {
            "labels": list(spec.labels),
            "end_s": end_s,
            "values": rounded(scores, 4),
            "smoothed": rounded(evidence.smoothed[None], 4)[0],
        },
        "surroundings": around and {"margin_db": round(around.margin_db, 1), "speech": round(around.speech, 4)},
        "verify": _second_json(evidence.second),
        "armed_s": None if evidence.armed_s is None else round(evidence.armed_s, 6),
        "untold": [
            {
                "label": one.label,
                "score": round(one.score, 4),
                "decided_s": round(one.decided_s, 6),
                "reason": one.reason,
                "verify": _second_json(one.second),
            }
            for one in evidence.untold
        ],
    }


def _second_json(second: SecondLook | None) -> JsonObject | None:
    if second is None:
        return None
    return {**asdict(second.spec), "best": None if second.best is None else round(second.best, 4)}
