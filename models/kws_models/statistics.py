"""Counts to rates with intervals, confusion to a report."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kws_serve.messages import Int64Array

_Z95 = 1.959963984540054


def wilson(hits: int, n: int) -> list[float]:
    """Wilson's 95 % interval of hits / n; [0, 1] for n = 0."""
    if n == 0:
        return [0.0, 1.0]
    share, z2 = hits / n, _Z95 * _Z95
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return [max(0.0, middle - half), min(1.0, middle + half)]


def confusion_matrix(true: Int64Array, predicted: Int64Array, n_labels: int) -> Int64Array:
    """Counts (n_labels, n_labels): rows true, columns predicted."""
    counts = np.zeros((n_labels, n_labels), np.int64)
    np.add.at(counts, (true, predicted), 1)
    return counts


def report(labels: tuple[str, ...], confusion: Int64Array) -> dict[str, Any]:
    """`accuracy, n, labels, confusion, per_class`: fractions; precision or recall of nothing is null."""
    n, right = int(confusion.sum()), int(confusion.trace())
    per_class = {}
    for i, label in enumerate(labels):
        hits, true, predicted = (int(x) for x in (confusion[i, i], confusion[i].sum(), confusion[:, i].sum()))
        per_class[label] = {
            "n": true,
            "precision": hits / predicted if predicted else None,
            "recall": hits / true if true else None,
            "precision_ci": wilson(hits, predicted),
            "recall_ci": wilson(hits, true),
        }
    return {
        "accuracy": right / n if n else 0.0,
        "n": n,
        "labels": list(labels),
        "confusion": confusion.tolist(),
        "per_class": per_class,
    }
