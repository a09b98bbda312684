"""What GET answers of streams, models and detections as plain JSON; and the metrics."""

from __future__ import annotations

from dataclasses import asdict

from kws_serve import __version__
from kws_serve.api.service import Service
from kws_serve.engine.engine import Engine
from kws_serve.engine.evidence import Evidence
from kws_serve.engine.stream import Stream
from kws_serve.messages import JsonObject
from kws_serve.sinks.event_log import EventLog
from kws_serve.sinks.filter import Logged
from kws_serve.sinks.reader import logged_json
from kws_serve.wire import rounded, utc


def stream_json(engine: Engine, stream: Stream) -> JsonObject:
    """One stream, counts in samples at its own rate."""
    received, processed, dropped, buffered = stream.counts
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
    }


def models_json(engine: Engine) -> list[JsonObject]:
    """Every loaded model: what it knows, how it hears, what fires it and what was changed."""
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
                "detection": {label: asdict(s) for label, s in engine.detection_settings(name).items()},
                "overrides": engine.detection_overrides(name),
                "accuracy": spec.accuracy,
            }
        )
    return items


def why_json(logged: Logged, evidence: Evidence | None) -> JsonObject:
    """A detection and what led to it, as far as that is kept. Times in s of the stream."""
    if evidence is None:
        return {"detection": logged_json(logged), "settings": None, "patch": None, "scores": None}
    spec, n = evidence.spec, len(evidence.before)
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
    }


def metrics_text(service: Service) -> str:
    """Prometheus text format 0.0.4."""
    engine, log = service.engine, service.log
    received_s, processed_s, dropped_s = engine.totals_s()
    rows: list[tuple[str, str, str, list[tuple[str, float]]]] = [
        ("kws_build_info", "gauge", "Version of the service.", [(f'{{version="{__version__}"}}', 1)]),
        ("kws_streams_active", "gauge", "Open streams.", [("", len(engine.streams))]),
        ("kws_subscribers_active", "gauge", "Subscribers to detections.", [("", log.subscribers)]),
        ("kws_audio_received_seconds_total", "counter", "Audio received.", [("", received_s)]),
        (
            "kws_audio_dropped_seconds_total",
            "counter",
            "Audio dropped.",
            [('{reason="overload_or_source"}', dropped_s)],
        ),
        ("kws_audio_processed_seconds_total", "counter", "Audio processed.", [("", processed_s)]),
        (
            "kws_audio_unaccounted_samples",
            "gauge",
            "Received - processed - dropped - buffered: always 0.",
            [("", engine.unaccounted_samples)],
        ),
        ("kws_stream_lag_seconds", "gauge", "Audio waiting in the stream that lags most.", [("", engine.lag_s)]),
        ("kws_engine_load", "gauge", "Share of the last seconds in which it was busy.", [("", engine.load.share)]),
        ("kws_log_durable", "gauge", "Whether detections are on the disk before they are pushed.", [("", log.durable)]),
        ("kws_log_pending", "gauge", "Detections that wait for the disk.", [("", log.pending)]),
        (
            "kws_detections_total",
            "counter",
            "Detections.",
            [(_labels(model=m, label=x), n) for (m, x), n in sorted(log.counts.items())],
        ),
        (
            "kws_patches_failed_total",
            "counter",
            "Patches a broken model lost.",
            [(_labels(model=m.name), m.failed_patches) for lane in engine.lanes for m in lane.models],
        ),
        (
            "kws_audio_bad_samples_total",
            "counter",
            "Samples received that were not a number or outside [-1, 1].",
            [('{kind="nan"}', service.ingest.bad_samples), ('{kind="clipped"}', service.ingest.clipped_samples)],
        ),
    ]
    lines = []
    for name, kind, text, values in rows:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{labels} {value:g}" for labels, value in values]
    return "\n".join([*lines, *_latency(log), ""])


_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


def _latency(log: EventLog) -> list[str]:
    """The histogram of detection latencies."""
    name = "kws_detection_latency_seconds"
    buckets, total, n = log.latency_buckets(_BUCKETS_S)
    lines = [f"# HELP {name} From the deciding sample's arrival to the log.", f"# TYPE {name} histogram"]
    lines += [f'{name}_bucket{{le="{le:g}"}} {count}' for le, count in zip(_BUCKETS_S, buckets, strict=True)]
    return [*lines, f'{name}_bucket{{le="+Inf"}} {n}', f"{name}_sum {total:g}", f"{name}_count {n}"]


def _labels(**labels: str) -> str:
    escaped = {k: v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for k, v in labels.items()}
    return "{" + ",".join(f'{k}="{v}"' for k, v in escaped.items()) + "}"
