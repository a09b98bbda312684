"""`kws-models check DIR`: everything that is wrong with a model folder, before the service refuses it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np

from kws_models.command_line import Commands, add_command
from kws_models.data.features import PatchMaker
from kws_models.data.training_list import FILE, read_training_list
from kws_models.evaluation.chosen_model import open_file
from kws_serve.backends import BACKENDS, check_files
from kws_serve.manifest.folder import load_model
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import BackendError, Float32Array, KwsError, ManifestError

_N_PATCHES = 32  # synthetic ones: enough to see gross faults
_ALIKE = 0.9  # share of equal top classes below which two files are hardly one model


def add_check(commands: Commands) -> None:
    """`check`."""
    parser = add_command(commands, "check", _check, "everything that is wrong with a model folder", "my-models/dscnn-s")
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder of a model.json")


def _check(folder: Path) -> None:
    findings = check_folder(folder)
    print(as_text(findings))
    if findings.faults:
        sys.exit(2)


@dataclass
class Findings:
    """Lines for the user: what stops the service, what it runs without, what was seen to work."""

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)


def check_folder(folder: Path) -> Findings:
    """All that can be said of `folder` without recordings."""
    findings = Findings()
    try:
        spec = load_model(folder)
    except ManifestError as error:
        findings.faults += error.faults
        return findings
    findings.passed.append(f"model.json: {spec.name} {spec.version}, {len(spec.labels)} labels")
    patches = synthetic_patches(spec)
    try:
        check_files(spec)
    except BackendError as error:
        findings.faults.append(str(error))
        return findings
    run = {entry.file for entry in BACKENDS.values()}
    kinds = [kind for kind in spec.files if kind in run]
    scores = {kind: found for kind in kinds if (found := _scores(kind, spec, patches, findings)) is not None}
    for first, second in combinations(scores, 2):
        _compare({first: scores[first], second: scores[second]}, findings)
    for entry in BACKENDS.values():
        for kind in entry.beside:
            if kind in spec.files and entry.file in scores:  # compared as it is opened
                findings.passed.append(f"files.{kind}: frame by frame, it says what files.{entry.file} says")
    _check_papers(spec, folder, findings)
    return findings


def synthetic_patches(spec: ModelSpec) -> Float32Array:
    """Patches (n, n_frames, n_coeffs) of silence, noise and tones, quiet to loud, through the model's front end."""
    front_end = spec.front_end
    n_samples = front_end.window_samples + (spec.n_frames - 1) * front_end.hop_samples
    rng = np.random.default_rng(0)
    time_s = np.arange(n_samples) / front_end.rate_hz
    level = 10.0 ** rng.uniform(0.5, 4.3, (_N_PATCHES, 1))
    tones = np.sin(2 * np.pi * rng.uniform(100, 3500, (_N_PATCHES, 1)) * time_s)
    samples = level * (tones * rng.random((_N_PATCHES, 1)) + 0.3 * rng.normal(size=(_N_PATCHES, n_samples)))
    samples[0] = 0.0
    whole = np.clip(np.rint(samples), -32768, 32767).astype(np.int16)
    return PatchMaker(front_end, spec.n_frames).patches(whole)


def _scores(kind: str, spec: ModelSpec, patches: Float32Array, findings: Findings) -> Float32Array | None:
    try:
        backend = open_file(kind, spec)
        scores = backend.infer(patches)
        backend.close()
    except BackendError as error:
        findings.faults.append(str(error))
        return None
    if not np.isfinite(scores).all() or scores.min() < 0.0 or scores.max() > 1.0:
        wanted = "scores from 0 to 1: is `output` right?"
        findings.faults.append(f"files.{kind}: found scores {scores.min():g} to {scores.max():g}, wanted {wanted}")
    sums = scores.sum(1)
    if spec.files[kind].output == "softmax" and np.abs(sums - 1.0).max() > 0.05:
        found = f"scores that sum to {sums.min():.3f} ... {sums.max():.3f}"
        findings.faults.append(f'files.{kind}.output: found {found}, wanted 1 (or "logits", "sigmoid" as output)')
    if np.ptp(scores, axis=0).max() < 1e-6:
        findings.warnings.append(f"files.{kind}: the same scores for silence, noise and tones")
    top = spec.labels[int(scores[0].argmax())]
    findings.passed.append(f"files.{kind}: runs; digital silence is {top} ({scores[0].max():.2f})")
    return scores


def _compare(scores: dict[str, Float32Array], findings: Findings) -> None:
    first, second = scores.values()
    alike = float((first.argmax(1) == second.argmax(1)).mean())
    line = f"{' and '.join(scores)}: {100 * alike:.0f} % equal top classes on {_N_PATCHES} synthetic patches"
    (findings.passed if alike >= _ALIKE else findings.warnings).append(line)


def _check_papers(spec: ModelSpec, folder: Path, findings: Findings) -> None:
    """The card, the licence and the list of what was trained on."""
    if not (folder / "README.md").is_file():
        findings.warnings.append("README.md: found no card")
    if not spec.provenance.get("weights_licence"):
        findings.warnings.append("provenance.weights_licence: found none; users will ask")
    if not (folder / FILE).is_file():
        findings.warnings.append(f"{FILE}: found none; evaluate cannot leave out what was trained on")
        return
    try:
        known = read_training_list(folder)
    except KwsError as error:
        findings.faults.append(str(error))
        return
    findings.passed.append(f"{FILE}: {known.n_recordings} recordings, {known.n_features} clips known by features")


def as_text(findings: Findings) -> str:
    """A line each; the faults last, where they are seen."""
    rows = [("ok", findings.passed), ("warning", findings.warnings), ("fault", findings.faults)]
    return "\n".join(f"{kind:8} {line}" for kind, lines in rows for line in lines)
