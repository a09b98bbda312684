"""JSON as a manifest may be written: of limited depth, without repeated keys, NaN or infinity."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from kws_serve.manifest.fields import shown_key
from kws_serve.messages import ManifestError

MAX_MANIFEST_DEPTH = 16
"""Levels of objects and lists; a manifest needs 4. Deeper ones would only exhaust the stack."""


def parse_json(data: bytes) -> Any:
    """JSON of limited depth, without repeated keys, NaN or infinity."""
    try:
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_distinct, parse_constant=_no_constant)
    except ManifestError:
        raise
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # no UTF-8, no JSON, an integer of thousands of digits
        raise ManifestError(f"model.json: found no JSON ({error}), wanted one object") from error
    _check_depth(value)
    if not _is_finite(value):
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


def _is_finite(value: Any) -> bool:
    """No number of a parsed JSON value is infinite (1e999) or not a number."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, float) and not math.isfinite(item):
            return False
        stack.extend(item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
    return True
