"""Model folders: `model.json` beside the exported files, read into a ModelSpec that needs no further check."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from kws_serve.manifest.consistency import check_patch, parse_detection, parse_front_end, patch_hop_ms_of
from kws_serve.manifest.fields import Faults, read_object, refuse
from kws_serve.manifest.package_data import data_path
from kws_serve.manifest.regular_file import read_regular
from kws_serve.manifest.spec import FileSpec, ModelSpec, VerifySpec
from kws_serve.manifest.strict_json import parse_json
from kws_serve.manifest.tables import MODEL
from kws_serve.messages import ManifestError, check_name

MAX_MANIFEST_BYTES = 1 << 20
"""Size of a `model.json`; those of 12 labels are 4 kB, 1024 labels with settings 200 kB."""


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
    fields = _read_fields(parse_json(data))
    labels, rest = fields["labels"], fields.get("rest_labels", ())
    faults = Faults()
    for label in rest:
        if label not in labels:
            faults.add(refuse("rest_labels", label, "labels that `labels` has"))
    if len(rest) == len(labels):
        faults.add(refuse("labels", list(labels), "at least one label that is no rest label"))
    with faults.collected():
        front_end = parse_front_end(fields["front_end"])
        check_patch(fields["n_frames"], front_end)
        patch_hop_ms = patch_hop_ms_of(fields, front_end)
    files = {}
    for kind, entry in fields["files"].items():
        with faults.collected():
            files[kind] = _file(entry, f"files.{kind}", folder)
    with faults.collected():
        detection = parse_detection(fields.get("detection", {}), [x for x in labels if x not in rest], fields["task"])
    verify = fields.get("verify")
    if verify and verify["model"] == fields["name"]:
        faults.add(refuse("verify.model", verify["model"], "the name of another model"))
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
        verify=VerifySpec(**verify) if verify else None,
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
        data = read_regular(path, MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"model.json: found no readable file ({error.strerror}), wanted {path}") from error
    if len(data) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"model.json: found more than {MAX_MANIFEST_BYTES} bytes, wanted at most that")
    return data
