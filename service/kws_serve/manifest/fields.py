"""The few checks that read `model.json`'s keys.

A check takes a JSON value and where it stands ("front_end.mel.n"), and returns the typed value or raises
ManifestError naming the field, the value found and the value wanted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from kws_serve.messages import ManifestError, check_name

Check: TypeAlias = Callable[[Any, str], Any]

MAX_LABELS = 1024


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an object."""

    check: Check
    required: bool = False


Table: TypeAlias = dict[str, Key]


def refuse(where: str, value: Any, wanted: str) -> ManifestError:
    """The error to raise for `value` at `where`."""
    found = json.dumps(value, ensure_ascii=True, default=repr)
    if len(found) > 80:
        found = found[:80] + "..."
    return ManifestError(f"model.json: {where}: found {found}, wanted {wanted}")


def read_object(value: Any, where: str, table: Table) -> dict[str, Any]:
    """`value`'s keys, each checked by `table`; absent optional keys stay absent. Raises with every key's fault."""
    prefix = f"{where}." if where else ""
    if not isinstance(value, dict):
        raise refuse(where or "(top level)", value, "an object")
    faults = Faults()
    for key in value:
        if key not in table:
            faults.add(refuse(prefix + shown_key(key), value[key], f"no such key, one of {', '.join(table)}"))
    for key, entry in table.items():
        if entry.required and key not in value:
            faults.add(ManifestError(f"model.json: {prefix}{key}: found no such key, wanted it (required)"))
    found = {}
    for key in table:
        if key in value:
            with faults.collected():
                found[key] = table[key].check(value[key], prefix + key)
    faults.refuse_any()
    return found


class Faults:
    """Faults found so far: one report names them all."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, error: ManifestError) -> None:
        """Keep the error's faults."""
        self._lines += error.faults

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Keep the faults that the block raises; what it was to make stays unmade."""
        try:
            yield
        except ManifestError as error:
            self.add(error)

    def refuse_any(self) -> None:
        """Raise ManifestError if there was any fault."""
        if self._lines:
            raise ManifestError(*self._lines)


def shown_key(key: str) -> str:
    """A key from outside, safe to print."""
    return key if re.fullmatch(r"[\w.*-]{1,64}", key, re.ASCII) else json.dumps(key[:64])


def integer(low: int, high: int) -> Check:
    """An integer in [low, high]; true and 3.0 are none."""

    def check(value: Any, where: str) -> int:
        if type(value) is not int or not low <= value <= high:
            raise refuse(where, value, f"an integer from {low} to {high}")
        return value

    return check


def number(low: float, high: float, *, above: bool = False) -> Check:
    """A finite number in [low, high], or with `above` in (low, high]."""

    def check(value: Any, where: str) -> float:
        wanted = f"a number {'above' if above else 'from'} {low:g} {'up ' if above else ''}to {high:g}"
        if type(value) not in (int, float) or not low <= value <= high or (above and value == low):
            raise refuse(where, value, wanted)
        return float(value)  # also not a number: every comparison with it is false

    return check


def choice(*allowed: Any) -> Check:
    """One of these values, of the same type."""

    def check(value: Any, where: str) -> Any:
        if not any(type(value) is type(a) and value == a for a in allowed):
            raise refuse(where, value, "one of " + ", ".join(json.dumps(a) for a in allowed))
        return value

    return check


def text(max_length: int) -> Check:
    """Printable text of 1 to `max_length` characters."""

    def check(value: Any, where: str) -> str:
        if not isinstance(value, str) or not 1 <= len(value) <= max_length or not value.isprintable():
            raise refuse(where, value, f"printable text of 1 to {max_length} characters")
        return value

    return check


def model_name(value: Any, where: str) -> str:
    """A name as the API takes it."""
    if not isinstance(value, str):
        raise refuse(where, value, "text")
    try:
        return check_name(f"model.json: {where}", value)
    except ValueError as error:
        raise ManifestError(str(error)) from error


def labels(value: Any, where: str) -> tuple[str, ...]:
    """Distinct printable labels; "*" is none."""
    if not isinstance(value, list) or len(value) > MAX_LABELS:
        raise refuse(where, value, f"a list of at most {MAX_LABELS} labels")
    found = tuple(text(64)(label, f"{where}[{i}]") for i, label in enumerate(value))
    for i, label in enumerate(found):
        if label == "*" or label in found[:i]:
            raise refuse(f"{where}[{i}]", label, 'distinct labels, none of them "*"')
    return found


def digest(value: Any, where: str) -> str:
    """A SHA-256 in lower-case hexadecimal."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise refuse(where, value, "64 lower-case hexadecimal digits")
    return value


def free_object(value: Any, where: str) -> dict[str, Any]:
    """An object whose content is the author's."""
    if not isinstance(value, dict):
        raise refuse(where, value, "an object")
    return value


def nested(table: Table, *, or_null: bool = False) -> Check:
    """An object of this table, or with `or_null` null."""

    def check(value: Any, where: str) -> dict[str, Any] | None:
        return None if or_null and value is None else read_object(value, where, table)

    return check
