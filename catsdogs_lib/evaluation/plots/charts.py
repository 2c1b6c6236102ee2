"""Plots of how well models classify: comparison, confusion, calibration, ROC curve, slices."""

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray

from catsdogs_lib.evaluation import metrics
from catsdogs_lib.evaluation.plots.style import (
    BLUE,
    GREY,
    INK,
    MARKERS,
    PALETTE,
    VERMILION,
    add_legend,
    new_figure,
    new_panels,
    style_axes,
)

Answers = Mapping[str, tuple[ArrayLike, ArrayLike]]
"""For each model its probabilities (N, C) and the labels (N,)."""

_PANEL_TITLES = {
    "accuracy": "Accuracy (higher is better)",
    "log_loss": "Log loss, nats (lower is better)",
    "roc_auc": "ROC AUC (higher is better)",
    "f1": "Macro F1 (higher is better)",
    "expected_calibration_error": "Calibration error\n(lower is better)",
}


def confusion_figure(matrix: ArrayLike, classes: Sequence[str], title: str = "Confusion matrix") -> Figure:
    """Plot counts (C, C), true classes as rows; shade and label each cell with its share of the true class."""
    counts = np.asarray(matrix, dtype=np.int64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = len(classes)
    side = float(np.clip(3.4 + 0.45 * size, 4.3, 14))
    figure, axes = new_figure(side + 1.0, side)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axes, format=PercentFormatter(1), shrink=0.8)
    bar.set_label("Share of the true class", color=INK)
    bar.ax.tick_params(colors=INK, labelsize=9)
    bar.outline.set_visible(False)
    style_axes(axes, title, "Answer", "True class", grid=False)
    axes.set_xticks(range(size), classes, rotation=0 if size <= 4 else 90)
    axes.set_yticks(range(size), classes)
    for (row, column), count in np.ndenumerate(counts):
        # With many classes, zeros would bury the counts that matter.
        if size <= 6 or count:
            share = f"\n{shares[row, column]:.1%}" if size <= 6 else ""
            axes.text(
                column,
                row,
                f"{count}{share}",
                ha="center",
                va="center",
                color="white" if shares[row, column] > 0.55 else INK,
                fontsize=11 if size <= 6 else 7,
            )
    return figure


def reliability_figure(models: Answers, title: str = "Reliability: is confidence earned?") -> Figure:
    """Plot accuracy against confidence with Wilson intervals, above a histogram of confidences.

    Ten bins of equal width: with a good model, bins of equal mass fall on one spot. The calibration error in the
    legend is that of `metrics.expected_calibration_error`.
    """
    figure, (top, below) = new_panels(6.4, 6.4, nrows=2, sharex=True, height_ratios=[3, 1])
    floor = 1 / max(np.shape(probabilities)[1] for probabilities, _ in models.values())
    top.plot([floor, 1], [floor, 1], linestyle="--", color=GREY, linewidth=1.2, label="perfectly calibrated")
    for i, (name, (probabilities, labels)) in enumerate(models.items()):
        bins = metrics.reliability_bins(probabilities, labels, 10, equal_width=True)
        bars = [metrics.wilson(a * n, n) for a, n in zip(bins["accuracy"], bins["count"], strict=True)]
        shift = (i - (len(models) - 1) / 2) * 0.006 * (1 - floor) * 2
        spread = [[b.value - b.low for b in bars], [b.high - b.value for b in bars]]
        colour = PALETTE[i % len(PALETTE)]
        top.errorbar(
            bins["confidence"] + shift,
            bins["accuracy"],
            yerr=spread,
            fmt=MARKERS[i % len(MARKERS)],
            color=colour,
            markersize=6,
            linewidth=1.3,
            capsize=3,
            label=f"{name}: calibration error {metrics.expected_calibration_error(probabilities, labels):.4f}",
        )
        confidence = np.asarray(probabilities).max(axis=1)
        edges = np.linspace(floor, 1, 21)
        below.hist(confidence.clip(floor, 1), bins=list(edges), histtype="step", color=colour, linewidth=1.6)
    style_axes(top, title, "", "Accuracy")
    style_axes(below, "", "Confidence (top probability)", "Photos (log scale)")
    below.set(yscale="log", ylim=(0.7, None))
    below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    top.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    top.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    # Below the panels: inside, the legend would hide bars.
    figure.legend(loc="outside lower center", fontsize=9, frameon=False, labelcolor=INK)
    top.set_ylim(-0.03, 1.03)
    return figure


def roc_figure(models: Answers, classes: Sequence[str] | None = None, title: str = "ROC curve") -> Figure:
    """Plot the receiver operating characteristic of class 1, or with more classes the one-vs-rest mean.

    An inset magnifies the corner where good models differ.
    """
    figure, axes = new_figure(6.0, 5.6)
    inset = axes.inset_axes((0.36, 0.30, 0.6, 0.42))
    grid = np.r_[0, np.geomspace(1e-5, 1, 800)]
    count = 2
    for i, (name, (probabilities, labels)) in enumerate(models.items()):
        table, truth = metrics.check_answers(probabilities, labels)
        count = table.shape[1]
        scored = [1] if count == 2 else [c for c in range(count) if 0 < (truth == c).sum() < len(truth)]
        curves = [_roc(table[:, c], truth == c) for c in scored]
        mean = np.mean([np.interp(grid, x, y) for x, y in curves], axis=0) if curves else np.full(len(grid), np.nan)
        x, y = curves[0] if count == 2 else (np.r_[0, grid], np.r_[0, mean])
        area = metrics.point(table, truth)["roc_auc"]
        label = f"{name}: AUC not defined" if np.isnan(area) else f"{name}: AUC {area:.4f}"
        style = {"color": PALETTE[i % len(PALETTE)], "linewidth": 1.8, "linestyle": ("-", "--", "-.", ":")[i % 4]}
        axes.plot(x, y, label=label, **style)  # type: ignore[arg-type]
        inset.plot(x, y, **style)  # type: ignore[arg-type]
    axes.plot([0, 1], [0, 1], linestyle=":", color=GREY, linewidth=1.2, label="guessing")
    positive = f"positive: {classes[1] if classes else 'class 1'}" if count == 2 else "mean over classes"
    style_axes(axes, title, f"False positive rate ({positive})", f"True positive rate ({positive})")
    style_axes(inset, "", "", "")
    inset.set(xlim=(-0.002, 0.1), ylim=(0.9, 1.002))
    inset.set_title("corner, magnified", fontsize=9, color=INK, backgroundcolor="white")
    for axis in (axes.xaxis, axes.yaxis, inset.xaxis, inset.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    add_legend(axes, "lower right")
    return figure


def _roc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> tuple[metrics.Floats, metrics.Floats]:
    order = np.argsort(-scores, kind="stable")
    last = np.r_[np.diff(scores[order]) != 0, True]  # tied scores are one straight step
    false, true = (np.r_[0, np.cumsum(mask[order])[last] / max(mask.sum(), 1)] for mask in (~positive, positive))
    return false, true


def confidence_histogram(
    probabilities: ArrayLike, labels: ArrayLike, threshold: float | None = None, title: str = "Confidence of answers"
) -> Figure:
    """Plot the confidence of right and of wrong answers, each on its own scale, with the threshold as a line."""
    table, truth = metrics.check_answers(probabilities, labels)
    confidence, right = table.max(axis=1), table.argmax(axis=1) == truth
    figure, panels = new_panels(6.4, 4.6, title, nrows=2, sharex=True)
    edges = np.linspace(1 / table.shape[1], 1, 31)
    parts = (("right", right, BLUE), ("wrong", ~right, VERMILION))
    for axes, (name, mask, colour) in zip(panels, parts, strict=True):
        axes.hist(confidence[mask].clip(edges[0], 1), bins=list(edges), color=colour, edgecolor="white")
        style_axes(axes, "", "", "Photos")
        axes.set_title(f"{name} answers: {mask.sum()}", fontsize=10, color=INK, loc="left")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        if threshold is not None:
            axes.axvline(threshold, color=INK, linestyle="--", linewidth=1.2, label=f"threshold {threshold:.3f}")
    if right.all():
        panels[1].set_ylim(0, 1)
    if threshold is not None:
        add_legend(panels[0], "upper left")
    panels[1].set_xlabel("Confidence (top probability)", color=INK)
    panels[1].xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


def comparison_figure(
    models: Mapping[str, Mapping[str, metrics.Interval]], title: str = "Models compared, with 95 % intervals"
) -> Figure:
    """Plot each metric in a panel, each model in a row: the value as a dot, its 95 % interval as a line."""
    names = [name for name in metrics.METRICS if any(name in values for values in models.values())]
    names += sorted({name for values in models.values() for name in values} - set(names))
    columns = min(3, max(1, len(names)))
    rows = max(1, ceil(len(names) / columns))
    height = rows * (1.25 + 0.45 * len(models)) + 0.5
    figure, grid = new_panels(3.5 * columns + 1.2, height, title, nrows=rows, ncols=columns, squeeze=False, sharey=True)
    for axes, metric in zip(grid.flat, names, strict=False):
        for row, (_, values) in enumerate(models.items()):
            interval = values.get(metric)
            if interval is None or np.isnan(interval.value):
                axes.text(0.5, row, "not defined", transform=axes.get_yaxis_transform(), ha="center", color=GREY)
                continue
            colour = PALETTE[row % len(PALETTE)]
            axes.plot([interval.low, interval.high], [row, row], color=colour, linewidth=2.4, solid_capstyle="butt")
            axes.plot([interval.value], [row], marker=MARKERS[row % len(MARKERS)], markersize=7, color=colour)
            axes.annotate(
                f"{interval.value:.4f}",
                (interval.value, row),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=9,
                color=INK,
            )
        style_axes(axes, "", _PANEL_TITLES.get(metric, metric), "")
        axes.set(yticks=range(len(models)), yticklabels=list(models), ylim=(len(models) - 0.5, -0.65))
        axes.margins(x=0.18)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    for axes in list(grid.flat)[len(names) :]:
        axes.set_visible(False)
    return figure


def slices_figure(table: pd.DataFrame, title: str = "Slices of the test photos, with 95 % intervals") -> Figure:
    """Plot accuracy and log loss of each slice of `slices.slice_table`; those worse than the rest in vermilion."""
    figure, panels = new_panels(10.0, 1.5 + 0.32 * len(table), title, ncols=2, sharey=True)
    # A gap between dimensions, so that the eye compares within one.
    block = table["slice"].ne(table["slice"].shift()).cumsum().to_numpy() - 1
    heights = np.arange(len(table)) + 0.6 * block
    first = table[table["slice"] == table["slice"].iloc[0]]
    for axes, column, label in zip(panels, ("accuracy", "log_loss"), ("Accuracy", "Log loss (nats)"), strict=True):
        overall = float(np.average(first[column], weights=first["photos"]))
        mean = f"all photos: accuracy {overall:.1%}" if column == "accuracy" else f"log loss {overall:.3f}"
        axes.axvline(overall, color=GREY, linestyle="--", linewidth=1.2, label=mean)
        for height, (_, row) in zip(heights, table.iterrows(), strict=True):
            colour = VERMILION if row["worse"] else BLUE
            low, high = row[f"{column}_low"], row[f"{column}_high"]
            axes.plot([low, high], [height, height], color=colour, linewidth=2.2, solid_capstyle="butt")
            marker = "D" if row["worse"] else "o"
            axes.plot([row[column]], [height], marker=marker, color=colour, markersize=6)
        style_axes(axes, "", label, "")
    panels[0].xaxis.set_major_formatter(PercentFormatter(1))
    if table["worse"].any():
        panels[1].plot([], [], marker="D", color=VERMILION, linewidth=2.2, label="worse than the rest (p < 0.05, Holm)")
    names = [f"{row['slice']}: {row['value']}   n = {row['photos']}" for _, row in table.iterrows()]
    panels[0].set(yticks=heights, yticklabels=names, ylim=(heights[-1] + 0.7, -0.7))
    for tick, worse in zip(panels[0].get_yticklabels(), table["worse"], strict=True):
        tick.set_color(VERMILION if worse else INK)
    # Below the panels: inside, the legend would hide an interval.
    figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False, labelcolor=INK)
    return figure
