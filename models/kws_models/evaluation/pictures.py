"""Pictures by matplotlib, imported when one is drawn: training curves, DET curves, filters and feature maps."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from kws_models.command_line import extra_of
from kws_serve.messages import Float32Array, KwsError

_COLUMNS = 16  # images side by side: 64 filters are four rows
_LINE_COLUMNS = 8  # small plots side by side: they are wider than images
_DOTS_AN_INCH = 110


def pyplot(wish: str) -> Any:
    """matplotlib.pyplot without a screen. Raises KwsError with the line that installs it."""
    with extra_of(wish, "evaluate"):
        import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def save(figure: Any, path: Path) -> None:
    """Write the figure as its name's ending says. Raises KwsError for an ending or a folder that does not do."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=_DOTS_AN_INCH)
    except (OSError, ValueError) as error:
        raise KwsError(f"{path}: {error}; wanted a name like curve.png or curve.svg in a folder to write to") from error
    finally:
        pyplot("").close(figure)


def draw_curves(histories: list[Path], out: Path) -> None:
    """Loss and accuracy against step from the phases' history.csv, one after another."""
    plt = pyplot("training curves")
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(8, 6), sharex=True, layout="constrained")
    before = 0
    for phase, path in enumerate(histories, 1):
        with path.open(newline="") as lines:
            rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(lines)]
        if not rows:
            continue
        steps = [before + row["step"] for row in rows]
        label = {"label": None} if phase > 1 else {}
        upper.plot(steps, [row["loss"] for row in rows], color="tab:blue")
        for key, colour, name in (
            ("accuracy", "tab:blue", "training batches, augmented"),
            ("validation_accuracy", "tab:orange", "held-out fold"),
        ):
            values = [row[key] for row in rows]
            if not np.isnan(values).all():
                lower.plot(steps, values, color=colour, **({"label": name} | label))
        if phase > 1:
            for axes in (upper, lower):
                axes.axvline(before, color="0.7", linewidth=1)
        before = int(steps[-1])
    upper.set(ylabel="loss (a phase's own)", title=f"{out.parent.name}: training, a line where a phase begins")
    lower.set(xlabel="step", ylabel="accuracy")
    lower.legend(loc="lower right")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    save(figure, out)


def draw_det(report: dict[str, Any], out: Path) -> None:
    """Miss rate against false accepts an hour; the model's own setting as a dot."""
    plt = pyplot("--plot")
    figure, axes = plt.subplots(figsize=(6, 5), layout="constrained")
    points = [p for p in report["det"] if p["miss_rate"] is not None]
    rates, missed = [p["false_accepts_per_hour"] for p in points], [100 * p["miss_rate"] for p in points]
    axes.plot(rates, missed, marker=".", label="all labels, one threshold")
    whole = report["overall"]
    if whole["miss_rate"] is not None:
        axes.plot(whole["false_accepts_per_hour"], 100 * whole["miss_rate"], "o", label="as the model is set")
    axes.set_xscale("symlog", linthresh=1 / report["hours"])
    axes.set(
        xlabel="false accepts an hour", ylabel="missed (%)", title=f"{whole['n']} events, {report['hours']:.2f} hours"
    )
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, out)


def draw_images(images: Float32Array, title: str, axes_names: tuple[str, str], extent: Any, out: Path) -> None:
    """Images (n, rows, columns) side by side on one colour scale; rows upwards, extent (left, right, bottom, top)."""
    plt = pyplot("filters")
    n = len(images)
    columns = min(_COLUMNS, n)
    rows = -(-n // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(max(4.0, 0.75 * columns), 1.0 + 0.85 * rows), squeeze=False, layout="constrained"
    )
    signed = images.min() < 0
    top = float(np.abs(images).max()) or 1.0
    shown = None
    for i, axes in enumerate(grid.ravel()):
        if i >= n:
            axes.set_axis_off()
            continue
        limits = {"vmin": -top if signed else 0.0, "vmax": top, "cmap": "RdBu_r" if signed else "viridis"}
        shown = axes.imshow(images[i], origin="lower", aspect="auto", extent=extent, **limits)
        axes.set_title(str(i), fontsize=6, pad=1)
        axes.tick_params(labelsize=5)
        if i != (rows - 1) * columns:
            axes.set(xticks=[], yticks=[])
    corner = grid[rows - 1, 0]
    corner.set_xlabel(axes_names[0], fontsize=7)
    corner.set_ylabel(axes_names[1], fontsize=7)
    figure.colorbar(shown, ax=grid, shrink=0.8)
    figure.suptitle(title, fontsize=10)
    save(figure, out)


def draw_lines(x: Float32Array, lines: Float32Array, title: str, axes_names: tuple[str, str], out: Path) -> None:
    """Small plots of `lines` (n, len(x)) side by side on one scale."""
    plt = pyplot("filters")
    n = len(lines)
    columns = min(_LINE_COLUMNS, n)
    rows = -(-n // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(1.5 * columns + 1, 1.1 * rows + 1), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for i, axes in enumerate(grid.ravel()):
        if i >= n:
            axes.set_axis_off()
            continue
        axes.plot(x, lines[i], linewidth=1)
        axes.set_title(str(i), fontsize=6, pad=1)
        axes.tick_params(labelsize=5)
        axes.grid(alpha=0.3)
    grid[rows - 1, 0].set_xlabel(axes_names[0], fontsize=7)
    grid[rows - 1, 0].set_ylabel(axes_names[1], fontsize=7)
    figure.suptitle(title, fontsize=10)
    save(figure, out)
