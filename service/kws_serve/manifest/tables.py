"""Tables of `model.json`'s keys, made from the classes of `spec`."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin, get_type_hints

from kws_serve.manifest.fields import (
    Check,
    Key,
    Table,
    choice,
    digest,
    free_object,
    integer,
    labels,
    model_name,
    nested,
    number,
    read_object,
    refuse,
    shown_key,
    text,
)
from kws_serve.manifest.spec import (
    ArmingSpec,
    DctSpec,
    DetectionSpec,
    Digest,
    FileSpec,
    FrontEndSpec,
    IsolationSpec,
    LogSpec,
    MelSpec,
    ModelSpec,
    Name,
    Printable,
    VerifySpec,
    Within,
)


def table_of(spec: type, *, only: tuple[str, ...] = (), required: tuple[str, ...] = ()) -> Table:
    """The keys of one of `spec`'s classes, from its fields' types, ranges and defaults. A field without a default is
    required, and so are those named; `only`: no other fields. Fields whose type says no range are left out.
    """
    hints = get_type_hints(spec, include_extras=True)
    found: Table = {}
    for f in fields(spec):
        needed = f.name in required or (f.default is MISSING and f.default_factory is MISSING)
        check = _check_of(hints[f.name], or_null=not needed)
        if check is not None and (not only or f.name in only):
            found[f.name] = Key(check, needed)
    return found


def _check_of(hint: Any, *, or_null: bool) -> Check | None:
    """The check of a field's type; None where the type alone does not say what is allowed."""
    if get_origin(hint) is Literal:
        return choice(*get_args(hint))
    if get_origin(hint) in (Union, UnionType):  # of a class and None: null says None, where that is allowed
        (inner,) = (x for x in get_args(hint) if x is not NoneType)
        return nested(table_of(inner), or_null=or_null) if _is_spec(inner) else None
    if _is_spec(hint):
        return nested(table_of(hint))
    if hint is bool:
        return choice(False, True)
    if get_origin(hint) is not Annotated:
        return None
    kind, limits = get_args(hint)
    match limits:
        case Within(low, high) if kind is int:
            return integer(int(low), int(high))
        case Within(low, high, above):
            return number(low, high, above=above)
        case Printable(max_length):
            return text(max_length)
        case Digest():
            return digest
        case Name():
            return model_name
    raise TypeError(f"{hint}: no check is known for it")


def _is_spec(hint: Any) -> TypeGuard[type]:
    return isinstance(hint, type) and is_dataclass(hint)


MEL = table_of(MelSpec)
LOG = table_of(LogSpec)
DCT = table_of(DctSpec)
RAW_FRONT_END = table_of(
    FrontEndSpec, only=("kind", "rate_hz", "sample_scale", "peak_normalise", "mean_subtract")
)  # the samples are the patch: nothing else applies
FRONT_END = table_of(FrontEndSpec, required=("window_samples", "hop_samples", "fft_size", "mel"))
FILE = {"path": Key(text(255), required=True)} | table_of(FileSpec)
ISOLATION = table_of(IsolationSpec)
ARMING = table_of(ArmingSpec)
DETECTION = table_of(DetectionSpec)
VERIFY = table_of(VerifySpec)


def files(value: Any, where: str) -> dict[str, Any]:
    """At least one exported file, by its kind; which kinds there are is for the backends to say, as one is opened."""
    if not isinstance(value, dict) or not value:
        raise refuse(where, value, "an object with at least one file")
    for kind in value:
        if not re.fullmatch(r"[a-z0-9_]{1,32}", kind):
            raise refuse(f"{where}.{shown_key(kind)}", value[kind], "a kind of 1 to 32 of a-z, 0-9 and _")
    return read_object(value, where, dict.fromkeys(value, Key(nested(FILE))))


MODEL: Table = {
    "name": Key(model_name, required=True),
    "labels": Key(labels, required=True),
    "rest_labels": Key(labels),
    "front_end": Key(free_object, required=True),  # its table depends on its kind
    "patch_hop_ms": Key(table_of(ModelSpec)["patch_hop_ms"].check),
    "files": Key(files, required=True),
    "detection": Key(free_object),  # "*" and labels -> DETECTION
    "provenance": Key(free_object),
    "accuracy": Key(free_object),
} | table_of(ModelSpec, only=("version", "task", "n_frames", "verify"))
