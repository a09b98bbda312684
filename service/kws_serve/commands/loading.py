"""The models that the settings ask for, opened on every backend, and the thresholds of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kws_serve.backends import BACKENDS, open_backend
from kws_serve.backends.contract import DeviceBackend, LoadedModel, devices
from kws_serve.commands.trial import model_folders, tried
from kws_serve.config import Settings
from kws_serve.config.checks import Target
from kws_serve.engine.engine import Engine
from kws_serve.manifest.consistency import check_verifier
from kws_serve.manifest.folder import find_model
from kws_serve.messages import KwsError


def load_models(settings: Settings, *, live: bool = False) -> list[LoadedModel]:
    """Every model on every backend asked for. `live`: a device must keep up with audio as it comes, for which patch
    hops are stretched. Raises KwsError; then nothing stays open.
    """
    loaded: list[LoadedModel] = []
    try:
        for name in settings.model:
            loaded += load_model(name, settings)
        if not live:
            return loaded
        if loaded and isinstance(publishing := loaded[0].backend, DeviceBackend):
            hops = publishing.device.share_out()
            return [_with_hop(model, hops[model.spec.name]) for model in loaded]
        for device in devices(loaded):
            device.warn_if_slow()
    except KwsError:
        _close(loaded)
        raise
    return loaded


def load_verifiers(models: Sequence[LoadedModel], settings: Settings) -> list[LoadedModel]:
    """The models that `verify` of the loaded ones names, each opened once, on this machine's cores: beside a listening
    one of the same name, for they compute in a thread of their own. Raises KwsError; then none stays open.
    """
    verifiers: dict[str, LoadedModel] = {}
    try:
        for model in models:
            if (verify := model.spec.verify) is None:
                continue
            if verify.model not in verifiers:
                verifiers[verify.model] = load_verifier(verify.model, settings)
            check_verifier(model.spec, verifiers[verify.model].spec)
    except KwsError:
        _close(list(verifiers.values()))
        raise
    return list(verifiers.values())


def load_verifier(name: str, settings: Settings) -> LoadedModel:
    """A model that is to look again, self-tested. Raises KwsError."""
    spec = find_model(name, model_folders(settings))
    on_cpu = [kind for kind in (*settings.backend, *BACKENDS) if not BACKENDS[kind].device]
    kind = next((kind for kind in on_cpu if BACKENDS[kind].file in spec.files), on_cpu[0])
    whole = replace(spec, files={k: file for k, file in spec.files.items() if k != "onnx_step"})
    return LoadedModel(spec, open_backend(kind, whole, threads=settings.threads), kind)


def reload_verifier(name: str, settings: Settings) -> LoadedModel:
    """The same, read again and tried before by a process of its own. Raises KwsError."""
    tried(name, settings)
    return load_verifier(name, settings)


def new_engine(settings: Settings, *, live: bool = False) -> Engine:
    """An engine with every model that the settings ask for, and those that look again. Raises KwsError."""
    models = load_models(settings, live=live)
    try:
        verifiers = load_verifiers(models, settings)
    except KwsError:
        _close(models)
        raise
    try:
        return Engine(models, verifiers)
    except ValueError as e:  # models that do not fit each other
        _close([*models, *verifiers])
        raise KwsError(str(e)) from None


def reload_model(name: str, settings: Settings) -> list[LoadedModel]:
    """A model opened again beside the one that runs, with its patch hop where a device computes; tried by a process of
    its own before. Raises KwsError.
    """
    files = tried(name, settings)
    group = load_model(name, settings)
    if {kind: file.sha256 for kind, file in group[0].spec.files.items()} != files:
        _close(group)
        raise KwsError(f"model {name}: found other files than a moment ago, wanted a folder that stays as it is")
    if not isinstance(publishing := group[0].backend, DeviceBackend):
        return group
    try:
        hop_ms = publishing.device.take_over(group[0].spec)
    except KwsError:
        _close(group)
        raise
    return [_with_hop(model, hop_ms) for model in group]


def _with_hop(model: LoadedModel, patch_hop_ms: float) -> LoadedModel:
    return replace(model, spec=replace(model.spec, patch_hop_ms=patch_hop_ms))


def _close(models: Sequence[LoadedModel]) -> None:
    for model in models:
        model.backend.close()


def load_model(name: str, settings: Settings) -> list[LoadedModel]:
    """A model on every backend asked for, self-tested. Raises KwsError; then nothing stays open."""
    spec = find_model(name, model_folders(settings))
    group: list[LoadedModel] = []
    try:
        for kind in settings.backend:
            backend = open_backend(kind, spec, threads=settings.threads, board=settings.board)
            group.append(LoadedModel(spec, backend, kind))
    except KwsError:
        _close(group)
        raise
    return group


Thresholds = Sequence[tuple[Target, float | None]]
"""What each is for, and the threshold; None takes it back."""


def apply_thresholds(engine: Engine, thresholds: Thresholds) -> None:
    """The thresholds of the settings. Raises KwsError where no model has the label, and then none acts."""
    patches: list[tuple[str, Target, float | None]] = []
    for target, threshold in thresholds:
        model, label = target.model, target.label
        names = [
            n for n, spec in engine.models.items() if model in (None, n) and (label == "*" or label in spec.detection)
        ]
        if not names:
            where = f"model {model}" if model else "any model"
            known = sorted({x for n, spec in engine.models.items() if model in (None, n) for x in spec.detection})
            raise KwsError(
                f"--threshold: found label {label!r}, unknown to {where}; wanted * or one of {', '.join(known)}"
            )
        patches += [(name, target, threshold) for name in names]
    for name, target, threshold in patches:
        engine.patch_detection(name, {target.label: {"threshold": threshold}}, target.stream)
