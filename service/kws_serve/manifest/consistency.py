"""What must hold between the keys of a manifest, where each alone is in its range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from kws_serve.manifest.fields import choice, read_object, refuse, shown_key
from kws_serve.manifest.spec import (
    ArmingSpec,
    DctSpec,
    DetectionSpec,
    FrontEndSpec,
    IsolationSpec,
    LogSpec,
    MelSpec,
    ModelSpec,
)
from kws_serve.manifest.tables import DETECTION, FRONT_END, RAW_FRONT_END
from kws_serve.messages import ManifestError

MAX_PATCH_S = 30.0
"""The audio of one patch: the buffers of each stream hold one."""


def check_patch(n_frames: int, front_end: FrontEndSpec) -> None:
    """A patch of `n_frames` is no longer than MAX_PATCH_S. Raises ManifestError."""
    if front_end.window_samples + (n_frames - 1) * front_end.hop_samples > MAX_PATCH_S * front_end.rate_hz:
        raise refuse("n_frames", n_frames, f"a patch of at most {MAX_PATCH_S:g} s")


def parse_front_end(value: dict[str, Any]) -> FrontEndSpec:
    """The front end, its parts consistent with each other. Raises ManifestError."""
    kind = choice("mfcc", "fbank", "raw")(value.get("kind"), "front_end.kind")
    fields = read_object(value, "front_end", RAW_FRONT_END if kind == "raw" else FRONT_END)
    if kind == "raw":
        return FrontEndSpec(**fields)
    mel, log, dct = MelSpec(**fields["mel"]), LogSpec(**fields.get("log", {})), fields.get("dct")
    fields |= {"mel": mel, "log": log, "dct": DctSpec(**dct) if dct else None}
    spec = FrontEndSpec(**fields)
    if spec.hop_samples > spec.window_samples:
        raise refuse("front_end.hop_samples", spec.hop_samples, f"at most window_samples, {spec.window_samples}")
    if spec.fft_size < spec.window_samples:
        raise refuse("front_end.fft_size", spec.fft_size, f"at least window_samples, {spec.window_samples}")
    if mel.f_max_hz > spec.rate_hz / 2:
        raise refuse("front_end.mel.f_max_hz", mel.f_max_hz, f"at most half of rate_hz, {spec.rate_hz // 2}")
    if mel.f_min_hz >= mel.f_max_hz:
        raise refuse("front_end.mel.f_min_hz", mel.f_min_hz, f"less than f_max_hz, {mel.f_max_hz:g}")
    if log.floor + log.offset <= 0:
        raise refuse("front_end.log.floor", log.floor, "floor + offset above 0")
    _check_dct(spec)
    return spec


def _check_dct(spec: FrontEndSpec) -> None:
    """`dct` and `c0` fit the kind."""
    if spec.kind == "fbank":
        if spec.dct is not None:
            raise refuse("front_end.dct", {"n": spec.dct.n}, "none or null where kind is fbank")
        if spec.c0 in ("energy", "raw_energy"):
            raise refuse("front_end.c0", spec.c0, '"dct" or "none" where kind is fbank')
        return
    assert spec.mel is not None
    if spec.dct is None:
        raise ManifestError("model.json: front_end.dct: found none, wanted an object where kind is mfcc")
    if spec.dct.n > spec.mel.n:
        raise refuse("front_end.dct.n", spec.dct.n, f"at most mel.n, {spec.mel.n}")
    if spec.n_coeffs < 1:
        raise refuse("front_end.dct.n", spec.dct.n, 'at least 2 where c0 is "none"')


def parse_detection(value: dict[str, Any], firing: Sequence[str], task: str) -> dict[str, DetectionSpec]:
    """One entry for each label that can fire: its own over "*" over the defaults. Raises ManifestError."""
    entries: dict[str, dict[str, Any]] = {}
    for label, settings in value.items():
        where = f"detection.{shown_key(label)}"
        if label != "*" and label not in firing:
            raise refuse(where, settings, '"*" or a label that is no rest label')
        entries[label] = read_object(settings, where, DETECTION)
    merged = {label: changed(DetectionSpec(), entries.get("*", {}), entries.get(label, {})) for label in firing}
    for label, spec in merged.items():
        check_detection(f"detection.{shown_key(label if label in entries else '*')}", spec, task)
    return merged


def changed(spec: DetectionSpec, *layers: dict[str, Any]) -> DetectionSpec:
    """`spec` with what the layers say, the last one first; of `isolation` and `armed_by` they change one by one what
    they name.
    """
    for layer in layers:
        own = dict(layer)
        if own.get("isolation") is not None:
            own["isolation"] = replace(spec.isolation or IsolationSpec(), **own["isolation"])
        if own.get("armed_by") is not None:
            own["armed_by"] = replace(spec.armed_by or ArmingSpec(), **own["armed_by"])
        spec = replace(spec, **own)
    return spec


def check_detection(where: str, spec: DetectionSpec, task: str) -> None:
    """One label's settings fit together; also for settings changed later. Raises ManifestError."""
    if spec.off_threshold > spec.threshold:
        raise refuse(f"{where}.off_threshold", spec.off_threshold, f"at most threshold, {spec.threshold:g}")
    if spec.k > spec.n:
        raise refuse(f"{where}.k", spec.k, f"at most n, {spec.n}")
    if spec.isolation is not None and task != "keyword":
        raise refuse(f"{where}.isolation", asdict(spec.isolation), "none where task is event")
    if spec.armed_by is not None and not (spec.armed_by.model and spec.armed_by.label):
        raise refuse(f"{where}.armed_by", asdict(spec.armed_by), "a model and one of its labels")


def check_verifier(spec: ModelSpec, verifier: ModelSpec) -> None:
    """The model that looks again knows every label that `spec` may tell. Raises ManifestError."""
    if lacking := [label for label in spec.detection if label not in verifier.labels]:
        found = f"found {verifier.name!r} without {', '.join(lacking)}"
        raise ManifestError(
            f"model {spec.name}: verify.model: {found}; wanted a model that has every label that may fire, "
            f"{', '.join(spec.detection)}"
        )


def patch_hop_ms_of(fields: dict[str, Any], front_end: FrontEndSpec) -> float:
    """The patch hop: as given, a multiple of the frame hop; else the kind's usual one, rounded to such a multiple."""
    hop_ms = front_end.hop_samples * 1000 / front_end.rate_hz
    given: float | None = fields.get("patch_hop_ms")
    if given is not None:
        if given < hop_ms * (1 - 1e-9) or abs(given / hop_ms - round(given / hop_ms)) > 1e-6:
            raise refuse("patch_hop_ms", given, f"a multiple of the frame hop, {hop_ms:g} ms")
        return given
    usual = 20.0
    if front_end.kind == "raw":
        usual = 250.0
    elif fields["task"] == "event":
        usual = 240.0
    elif fields["name"].startswith(("m1", "m2", "cnn-trad")):
        usual = 30.0
    return max(1, round(usual / hop_ms)) * hop_ms
