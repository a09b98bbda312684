"""A recording as one HTML file that needs nothing else: features, scores, thresholds and detections on a time axis.

Of long recordings a point stands for several patches: the scores' highest, the features' mean.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from kws_serve import __version__
from kws_serve.engine.engine import Engine
from kws_serve.engine.viewers import Viewer
from kws_serve.manifest.package_data import data_path
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import Detection, Features, Float64Array, JsonObject, ScoresRow, View
from kws_serve.wire import detection_json

POINTS = 4000
"""Of a recording at most."""


class Timeline:
    """What one recording sounds like to the models of `engine`; `stream` is the one that plays it."""

    def __init__(self, engine: Engine, path: Path, stream: str, seconds: float) -> None:
        self.name = path.name
        self.seconds = max(seconds, 1e-3)
        self.detections: list[Detection] = []
        self._tracks = {name: _Track(spec, self.seconds) for name, spec in engine.models.items()}
        self._settings = {name: engine.detection_settings(name, stream) for name in engine.models}
        self._engine = engine
        self._viewers = [Viewer(stream, name, track.take) for name, track in self._tracks.items()]
        for viewer in self._viewers:
            engine.viewers.join(viewer)

    def close(self) -> None:
        """The recording has ended."""
        for viewer in self._viewers:
            self._engine.viewers.leave(viewer)

    def as_json(self) -> JsonObject:
        """For the page."""
        items = [detection_json(d, live=False) for d in self.detections]
        for start in (item for item in items if item["phase"] == "start"):
            own = ("model", "label", "start_sample")
            ends = [i for i in items if i["phase"] == "end" and all(i[key] == start[key] for key in own)]
            start["until_s"] = ends[0]["end_s"] if ends else self.seconds
        models = []
        for name, track in self._tracks.items():
            settings = {label: asdict(s) for label, s in self._settings[name].items()}
            models.append(track.as_json() | {"detection": settings})
        kept = [item for item in items if item["phase"] != "end"]
        return {"name": self.name, "seconds": self.seconds, "detections": kept, "models": models}


class _Track:
    """One model's features and scores in points of equal length."""

    def __init__(self, spec: ModelSpec, seconds: float) -> None:
        self.spec = spec
        self.seconds = seconds
        hop_s = spec.front_end.hop_samples / spec.front_end.rate_hz if spec.front_end.kind != "raw" else 0.02
        width = 2 if spec.front_end.kind == "raw" else spec.front_end.n_coeffs
        self._features = np.zeros((_points(seconds, hop_s), width))
        self._n = np.zeros(len(self._features))
        self._scores = np.zeros((_points(seconds, spec.patch_hop_ms / 1000), len(spec.labels)))

    def take(self, event: View) -> None:
        """What a viewer is told."""
        if isinstance(event, ScoresRow):
            i = self._point(self._scores, event.end_s)
            np.maximum(self._scores[i], event.values, out=self._scores[i])
        elif isinstance(event, Features):
            rows = np.nan_to_num(event.values)
            step = (event.end_s - event.first_s) / len(rows)
            for k, row in enumerate(rows):
                at_s = event.first_s + (k + 0.5) * step
                if at_s < self.seconds:  # what follows are the zeros that finish the last patch
                    i = self._point(self._features, at_s)
                    self._features[i] += row
                    self._n[i] += 1

    def _point(self, of: Float64Array, at_s: float) -> int:
        return min(len(of) - 1, int(len(of) * at_s / self.seconds))

    def as_json(self) -> JsonObject:
        """For the page; scores and features as bytes."""
        spec = self.spec
        heard = np.flatnonzero(self._n)
        features = self._features / np.maximum(1, self._n)[:, None]
        if len(heard):  # the first and last windows reach over several points
            features = features[heard[np.searchsorted(heard, np.arange(len(features))).clip(max=len(heard) - 1)]]
        if spec.front_end.kind == "raw":
            low, span = np.float64(-1.0), np.float64(2.0)
        else:
            axis = 0 if spec.front_end.kind == "mfcc" else None
            low, high = np.percentile(features, (1, 99.5), axis=axis)  # digital silence is far below all else
            span = np.maximum(1e-9, high - low)
        return {
            "name": spec.name,
            "version": spec.version,
            "kind": spec.front_end.kind,
            "labels": list(spec.labels),
            "experimental_labels": list(spec.provenance.get("experimental_labels", [])),
            "features": _bytes((features - low) / span),
            "scores": _bytes(self._scores),
        }


def _points(seconds: float, hop_s: float) -> int:
    return max(1, min(POINTS, round(seconds / hop_s)))


def _bytes(values: Float64Array) -> JsonObject:
    """(n, width) in [0, 1] as base64 of bytes."""
    data = np.clip(np.round(255 * values), 0, 255).astype(np.uint8)
    return {"width": data.shape[1], "values": base64.b64encode(data.tobytes()).decode()}


def page(timelines: list[Timeline]) -> str:
    """The whole HTML file."""
    frontend = data_path("frontend")

    def text(name: str) -> str:
        return (frontend / name).read_text(encoding="utf-8")

    modules = {f"./{name}": _data_url(text(name)) for name in ("charts.js", "dom.js", "labels.js")}
    parts = {
        "STYLE": text("vendor/uplot/uPlot.min.css") + text("style.css"),
        "UPLOT": text("vendor/uplot/uPlot.iife.min.js"),
        "IMPORTS": _inline({"imports": modules}),
        "MADE": f"Made by kws-detect {__version__}.",
        "DATA": _inline([timeline.as_json() for timeline in timelines]),
    }
    return _filled(Path(__file__).with_name("timeline.html").read_text(encoding="utf-8"), parts)


def _filled(template: str, parts: Mapping[str, str]) -> str:
    """Each @NAME@ replaced, once: what is put in is not looked at again."""
    pieces = template.split("@")
    return "".join(parts.get(piece, piece) if i % 2 else piece for i, piece in enumerate(pieces))


def _inline(value: object) -> str:
    """JSON that can stand in a script element: a name in it cannot end the element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _data_url(script: str) -> str:
    return f"data:text/javascript;base64,{base64.b64encode(script.encode()).decode()}"
