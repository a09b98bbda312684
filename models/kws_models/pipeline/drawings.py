"""The card's pictures: the DET curve as SVG, the first layer's filters as a small PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kws_models.command_line import extra_of
from kws_serve.manifest.spec import ModelSpec

DET_PICTURE, FILTERS_PICTURE = "det.svg", "filters.png"
_WIDTH, _HEIGHT, _LEFT, _BELOW = 420, 260, 46, 40  # px; the last two hold the axes' numbers
_PIXELS = 5  # a weight
_MOST_FILTERS = 64
_LEAST_WIDTH = 240  # px: a smaller picture is enlarged
_SHADES = 24  # of red and of blue: fewer make a smaller file
_GAP = 2  # px between filters


def det_svg(points: Sequence[tuple[float, float]], least_an_hour: float) -> str:
    """Missed share against false accepts an hour, (per_hour, missed) of each threshold; the rate logarithmic from
    `least_an_hour`, below which all is drawn at the left edge.
    """
    low = math.floor(math.log10(least_an_hour))
    high = max(low + 1, math.ceil(math.log10(max(least_an_hour, *(rate for rate, _ in points)))))

    def at(rate: float, missed: float) -> tuple[float, float]:
        share = (math.log10(max(rate, 10.0**low)) - low) / (high - low)
        return _LEFT + share * (_WIDTH - _LEFT - 10), 10 + (1 - missed) * (_HEIGHT - _BELOW - 10)

    lines = []
    for power in range(low, high + 1):
        x, y = at(10.0**power, 0.0)
        lines.append(f'<path d="M{x:.1f} 10V{y:.1f}" stroke="#ddd"/>')
        lines.append(f'<text x="{x:.1f}" y="{_HEIGHT - 24}" text-anchor="middle">{10.0**power:g}</text>')
    for tenth in range(0, 11, 2):
        x, y = at(10.0**low, tenth / 10)
        lines.append(f'<path d="M{x:.1f} {y:.1f}H{_WIDTH - 10}" stroke="#ddd"/>')
        lines.append(f'<text x="{x - 5:.1f}" y="{y + 4:.1f}" text-anchor="end">{10 * tenth} %</text>')
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in (at(*point) for point in points))
    lines.append(f'<path d="{path}" fill="none" stroke="#1f6fb4" stroke-width="2"/>')
    lines += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#1f6fb4"/>' for x, y in (at(*p) for p in points)]
    said = "false accepts an hour; missed upwards"
    lines.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{said}</text>')
    body = "\n".join(lines)
    style = 'font-family="sans-serif" font-size="11" fill="#333"'
    size = f'width="{_WIDTH}" height="{_HEIGHT}"'
    paper = f'<rect {size} fill="#fff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{paper}<g {style}>\n{body}\n</g></svg>\n'


def draw_filters(spec: ModelSpec, out: Path) -> str:
    """Write the first layer's filters side by side, time to the right and coefficients upwards, red where they add and
    blue where they take away; what there is to see in words. Raises KwsError without matplotlib.
    """
    with extra_of("build", "evaluate"):
        import matplotlib.image

        from kws_models.evaluation.filters import first_layer
    layer = first_layer(spec)
    # every filter on a scale of its own, or the strongest would make the others pale
    # weight (n, channels in, times, coefficients): one of the second and the last is 1, for the input is one map
    weight = layer.weight[:, 0] if layer.weight.shape[1] == 1 else layer.weight[..., 0].transpose(0, 2, 1)
    weight = weight / np.maximum(np.abs(weight).max(axis=(1, 2), keepdims=True), 1e-12)
    of, (n, n_times, n_coeffs) = len(weight), weight[:_MOST_FILTERS].shape
    some = f"{n} filters" if n == of else f"first {n} of {of} filters"
    if n_coeffs == 1:  # raw samples: a filter a row
        image: Any = weight[:n][::-1, :, 0]
        words = f"{some} of {n_times} samples, one a row"
    else:
        columns = min(n, max(1, _WIDTH // (n_times * _PIXELS + _GAP)))
        image = np.zeros((-(-n // columns) * (n_coeffs * _PIXELS + _GAP), columns * (n_times * _PIXELS + _GAP)))
        for i in range(n):
            tile = np.kron(weight[i].T, np.ones((_PIXELS, _PIXELS)))
            y, x = (i // columns) * (tile.shape[0] + _GAP), (i % columns) * (tile.shape[1] + _GAP)
            rows = image.shape[0] - y
            image[rows - tile.shape[0] : rows, x : x + tile.shape[1]] = tile
        words = f"{some} of {n_times * layer.step_ms:g} ms and {n_coeffs} coefficients, {columns} a row"
    image = np.rint(image * _SHADES) / _SHADES
    larger = max(1, round(_LEAST_WIDTH / image.shape[1]))
    image = np.kron(image, np.ones((larger, larger)))
    matplotlib.image.imsave(out, image, cmap="RdBu_r", vmin=-1, vmax=1, origin="lower")
    return words
