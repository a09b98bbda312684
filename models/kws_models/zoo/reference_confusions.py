"""The reference documents' own confusion matrices: six of the DS-CNN document, three of the 1D-CNN one.

Rows are true, columns predicted. The 1D-CNN document names its axes the other way round, but its three matrices have
the same row sums and not the same column sums, and are of one test set.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from kws_serve.messages import KwsError

_FILE = Path(__file__).with_suffix(".json")


@cache
def reference_confusions() -> dict[str, dict[str, Any]]:
    """By name, as `dscnn-s/test` or `cnn1d-custom32-8`: `labels, confusion, printed_accuracy`."""
    found: dict[str, dict[str, Any]] = json.loads(_FILE.read_text(encoding="utf-8"))
    return found


def reference_report(name: str, labels: list[str]) -> dict[str, Any]:
    """`labels, confusion, accuracy, n` of the document's matrix of `name`, in the order of `labels`.

    A name without `/validation` is of the test set where there are both. Raises KwsError for a name or labels that no
    matrix has.
    """
    known = reference_confusions()
    key = name if name in known else f"{name}/test"
    if key not in known:
        raise KwsError(f"reference: found no matrix of {name}, wanted reference:NAME of {', '.join(known)}")
    theirs = known[key]["labels"]
    if sorted(theirs) != sorted(labels):
        raise KwsError(f"reference: found labels {' '.join(theirs)} of {key}, wanted {' '.join(labels)}")
    order = [theirs.index(label) for label in labels]
    counts = np.array(known[key]["confusion"], np.int64)[np.ix_(order, order)]
    n = int(counts.sum())
    return {"labels": labels, "confusion": counts.tolist(), "accuracy": int(counts.trace()) / n, "n": n, "name": key}
