"""Counts to rates with intervals, confusion to a report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kws_serve.messages import Int64Array

BoolArray: TypeAlias = npt.NDArray[np.bool_]
_Z95 = 1.959963984540054  # standard deviations: 95 % of a normal distribution lie within


def wilson(hits: int, n: int) -> list[float]:
    """Wilson's 95 % interval of hits / n; [0, 1] for n = 0."""
    if n == 0:
        return [0.0, 1.0]
    share, z2 = hits / n, _Z95 * _Z95
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return [max(0.0, middle - half), min(1.0, middle + half)]


@dataclass(frozen=True)
class Paired:
    """Two models on the same n clips: how many only the first, and only the second, got right."""

    n: int
    only_first: int
    only_second: int
    difference: float  # accuracy of the second less that of the first
    interval: tuple[float, float]  # 95 %
    p_value: float


def paired(first: BoolArray, second: BoolArray) -> Paired:
    """Right or wrong (n,) of two models on the same clips.

    p: exact McNemar test, two-sided. Interval of the difference: Newcombe 1998 (Statistics in Medicine 17, 2635),
    method 10, from Wilson's intervals and the correlation. n = 0 gives [-1, 1].
    """
    n = len(first)
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    if n == 0:
        return Paired(0, 0, 0, 0.0, (-1.0, 1.0), 1.0)
    p1, p2 = (both + b) / n, (both + c) / n
    (low1, high1), (low2, high2) = wilson(both + b, n), wilson(both + c, n)
    product = (both + b) * (c + neither) * (both + c) * (b + neither)
    excess = both * neither - b * c
    #                 second right   second wrong
    #  first right        both            b
    #  first wrong         c           neither
    #
    # phi: the correlation of the two, its numerator lessened by n / 2 where it is positive (Newcombe's method 10)
    phi = (max(excess - n / 2, 0.0) if excess > 0 else excess) / math.sqrt(product) if product else 0.0

    def reach(d1: float, d2: float) -> float:
        return math.sqrt(max(0.0, d1 * d1 - 2 * phi * d1 * d2 + d2 * d2))

    low, high = p2 - p1 - reach(p2 - low2, high1 - p1), p2 - p1 + reach(high2 - p2, p1 - low1)
    tail = sum(math.comb(b + c, i) for i in range(min(b, c) + 1)) / 2 ** (b + c)
    return Paired(n, b, c, p2 - p1, (low, high), min(1.0, 2 * tail))


def poisson(events: int, exposure: float) -> list[float]:
    """Exact 95 % interval of a rate: `events` in `exposure` hours (Garwood 1936), by bisection of the distribution."""
    if exposure <= 0:
        return [0.0, math.inf]

    def at_most(k: int, mean: float) -> float:
        return sum(math.exp(i * math.log(mean) - mean - math.lgamma(i + 1)) for i in range(k + 1)) if mean else 1.0

    def solve(k: int, share: float) -> float:
        low, high = 0.0, 10.0 + 2.0 * events + 10.0 * math.sqrt(events)
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if at_most(k, middle) > share else (low, middle)
        return low

    return [solve(events - 1, 0.975) / exposure if events else 0.0, solve(events, 0.025) / exposure]


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
