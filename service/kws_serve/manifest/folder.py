"""Model folders: `model.json` beside the exported files, read into a ModelSpec that needs no further check."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from kws_serve.manifest.fields import (
    DETECTION,
    FRONT_END,
    MAX_PATCH_S,
    MODEL,
    RAW_FRONT_END,
    Faults,
    choice,
    is_finite_tree,
    read_object,
    refuse,
    shown_key,
)
from kws_serve.manifest.package_data import data_path
from kws_serve.manifest.spec import DctSpec, DetectionSpec, FileSpec, FrontEndSpec, LogSpec, MelSpec, ModelSpec
from kws_serve.messages import ManifestError, check_name

MAX_MANIFEST_BYTES = 1 << 20
MAX_MANIFEST_DEPTH = 16


def shipped_models_dir() -> Path:
    """The folder of the models that come with the service."""
    return data_path("models")


def list_models(model_dirs: Sequence[Path]) -> list[str]:
    """Names of all model folders, sorted; of two with one name the earlier folder's counts."""
    return sorted({m.parent.name for d in model_dirs if d.is_dir() for m in d.glob("*/model.json")})


def find_model(name: str, model_dirs: Sequence[Path]) -> ModelSpec:
    """Load model `name` from the first of `model_dirs` that has it. Raises ManifestError."""
    try:
        check_name("model", name)
    except ValueError as error:
        raise ManifestError(str(error)) from error
    for folder in (d / name for d in model_dirs):
        if (folder / "model.json").exists():
            spec = load_model(folder)
            if spec.name != name:
                raise refuse("name", spec.name, f"the name of its folder, {name}")
            return spec
    known = ", ".join(list_models(model_dirs)) or "none"
    raise ManifestError(f"model: found no {name}, wanted one of: {known}")


def load_model(folder: Path) -> ModelSpec:
    """Read and check `folder`/model.json. Raises ManifestError: field, value found, value wanted."""
    folder = folder.resolve()
    return parse_model(_read_bytes(folder / "model.json"), folder)


def parse_model(data: bytes, folder: Path) -> ModelSpec:
    """The manifest in `data`, whose files lie in `folder` (absolute). Raises ManifestError."""
    fields = _read_fields(_parse_json(data))
    labels, rest = fields["labels"], fields.get("rest_labels", ())
    faults = Faults()
    for label in rest:
        if label not in labels:
            faults.add(refuse("rest_labels", label, "labels that `labels` has"))
    if len(rest) == len(labels):
        faults.add(refuse("labels", list(labels), "at least one label that is no rest label"))
    with faults.collected():
        front_end = parse_front_end(fields["front_end"])
        _check_patch(fields["n_frames"], front_end)
        patch_hop_ms = _patch_hop_ms(fields, front_end)
    files = {}
    for kind, entry in fields["files"].items():
        with faults.collected():
            files[kind] = _file(entry, f"files.{kind}", folder)
    with faults.collected():
        detection = parse_detection(fields.get("detection", {}), [x for x in labels if x not in rest])
    faults.refuse_any()
    return ModelSpec(
        name=fields["name"],
        version=fields["version"],
        task=fields["task"],
        labels=labels,
        rest_labels=frozenset(rest),
        front_end=front_end,
        n_frames=fields["n_frames"],
        patch_hop_ms=patch_hop_ms,
        files=files,
        detection=detection,
        folder=folder,
        provenance=fields.get("provenance", {}),
        accuracy=fields.get("accuracy", {}),
    )


def _read_fields(value: Any) -> dict[str, Any]:
    """The top level's keys; where one is wrong, the front end's faults are told with it."""
    try:
        return read_object(value, "", MODEL)
    except ManifestError as error:
        faults = Faults()
        faults.add(error)
        front_end = value.get("front_end") if isinstance(value, dict) else None
        if isinstance(front_end, dict):
            with faults.collected():
                parse_front_end(front_end)
        faults.refuse_any()
        raise


def _check_patch(n_frames: int, front_end: FrontEndSpec) -> None:
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


def parse_detection(value: dict[str, Any], firing: Sequence[str]) -> dict[str, DetectionSpec]:
    """One entry for each label that can fire: its own over "*" over the defaults. Raises ManifestError."""
    entries: dict[str, dict[str, Any]] = {}
    for label, settings in value.items():
        where = f"detection.{shown_key(label)}"
        if label != "*" and label not in firing:
            raise refuse(where, settings, '"*" or a label that is no rest label')
        entries[label] = read_object(settings, where, DETECTION)
    merged = {label: DetectionSpec(**entries.get("*", {}) | entries.get(label, {})) for label in firing}
    for label, spec in merged.items():
        where = f"detection.{shown_key(label if label in entries else '*')}"
        if spec.off_threshold > spec.threshold:
            raise refuse(f"{where}.off_threshold", spec.off_threshold, f"at most threshold, {spec.threshold:g}")
        if spec.k > spec.n:
            raise refuse(f"{where}.k", spec.k, f"at most n, {spec.n}")
    return merged


def _patch_hop_ms(fields: dict[str, Any], front_end: FrontEndSpec) -> float:
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


def _file(entry: dict[str, str], where: str, folder: Path) -> FileSpec:
    """A file inside `folder`, reached without links."""
    text = entry["path"]
    path = PurePosixPath(text)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in text or ":" in text:
        raise refuse(f"{where}.path", text, "a relative path that stays in the model's folder")
    whole = folder
    for part in path.parts:
        whole = whole / part
        if whole.is_symlink():
            raise refuse(f"{where}.path", text, "a file reached without symbolic links")
    return FileSpec(path=whole, **{k: v for k, v in entry.items() if k != "path"})  # type: ignore[arg-type]


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as f:
            data = f.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"model.json: found no readable file ({error.strerror}), wanted {path}") from error
    if len(data) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"model.json: found more than {MAX_MANIFEST_BYTES} bytes, wanted at most that")
    return data


def _parse_json(data: bytes) -> Any:
    """JSON of limited depth, without repeated keys, NaN or infinity."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=_distinct, parse_constant=_no_constant)
    except ManifestError:
        raise
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # no UTF-8, no JSON, an integer of thousands of digits
        raise ManifestError(f"model.json: found no JSON ({error}), wanted one object") from error
    _check_depth(value)
    if not is_finite_tree(value):
        raise ManifestError("model.json: found an infinite number, wanted finite ones")
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ManifestError(f"model.json: {shown_key(key)}: found the key twice, wanted it once")
        found[key] = value
    return found


def _no_constant(text: str) -> NoReturn:
    raise ManifestError(f"model.json: found {text}, wanted finite numbers")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_MANIFEST_DEPTH + 1):
        level = [
            x
            for item in level
            if isinstance(item, dict | list)
            for x in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> ManifestError:
    return ManifestError(f"model.json: found JSON nested deeper than {MAX_MANIFEST_DEPTH}, wanted less")
