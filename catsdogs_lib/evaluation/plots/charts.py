"""Figures of a report: data in, a matplotlib `Figure` out; no pyplot, no global state.

They share the look of `look`. Those that show photos live in `galleries` and are named here too.
"""

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray

from catsdogs_lib.evaluation import metrics
from catsdogs_lib.evaluation.metrics import Interval
from catsdogs_lib.evaluation.plots.galleries import GalleryItem, augmentation_figure, gallery_figure, photos_figure
from catsdogs_lib.evaluation.plots.style import (
    BLUE,
    GREY,
    INK,
    MARKERS,
    ORANGE,
    PALETTE,
    VERMILION,
    blank_figure,
    dress,
    head,
    legend,
    new_figure,
)

__all__ = [
    "GalleryItem",
    "augmentation_figure",
    "comparison_figure",
    "confidence_histogram",
    "confusion_figure",
    "counts_figure",
    "gallery_figure",
    "histogram_figure",
    "loss_figure",
    "photos_figure",
    "reliability_figure",
    "roc_figure",
    "slices_figure",
]

Answers = Mapping[str, tuple[ArrayLike, ArrayLike]]
"""For each model its probabilities (N, C) and the labels (N,)."""

_NAMES = {
    "accuracy": "Accuracy (higher is better)",
    "log_loss": "Log loss, nats (lower is better)",
    "roc_auc": "ROC AUC (higher is better)",
    "f1": "Macro F1 (higher is better)",
    "expected_calibration_error": "Calibration error\n(lower is better)",
}


def confusion_figure(matrix: ArrayLike, classes: Sequence[str], title: str = "Confusion matrix") -> Figure:
    """Counts (C, C), rows true, each shaded by and written with its share of the true class."""
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
    dress(axes, title, "Answer", "True class", grid=False)
    axes.set_xticks(range(size), classes, rotation=0 if size <= 4 else 90)
    axes.set_yticks(range(size), classes)
    for (row, column), count in np.ndenumerate(counts):
        # With many classes only what happened is written, or the figure drowns in noughts.
        if size <= 6 or count:
            share = f"\n{shares[row, column]:.1%}" if size <= 6 else ""
            dark = shares[row, column] > 0.55
            size_of_text = 11 if size <= 6 else 7
            axes.text(
                column,
                row,
                f"{count}{share}",
                ha="center",
                va="center",
                color="white" if dark else INK,
                fontsize=size_of_text,
            )
    return figure


def reliability_figure(models: Answers, title: str = "Reliability: is confidence earned?") -> Figure:
    """Accuracy against confidence with Wilson bars, and below how often each confidence occurs.

    Drawn in ten bins of equal width, because those of equal mass fall on one spot for a good model; the
    calibration error in the legend is that of `metrics.expected_calibration_error`.
    """
    figure = blank_figure(6.4, 6.4)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    floor = 1 / max(np.shape(probabilities)[1] for probabilities, _ in models.values())
    top.plot([floor, 1], [floor, 1], linestyle="--", color=GREY, linewidth=1.2, label="perfectly calibrated")
    for i, (name, (probabilities, labels)) in enumerate(models.items()):
        bins = metrics.reliability_bins(probabilities, labels, 10, equal_width=True)
        bars = [metrics.wilson(a * n, n) for a, n in zip(bins["accuracy"], bins["count"], strict=True)]
        error = metrics.expected_calibration_error(probabilities, labels)
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
            label=f"{name}: calibration error {error:.4f}",
        )
        confidence = np.asarray(probabilities).max(axis=1)
        edges = np.linspace(floor, 1, 21)
        below.hist(confidence.clip(floor, 1), bins=list(edges), histtype="step", color=colour, linewidth=1.6)
    dress(top, title, "", "Accuracy")
    dress(below, "", "Confidence (top probability)", "Photos (log scale)")
    below.set_yscale("log")
    below.set_ylim(bottom=0.7)
    below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    top.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    top.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    # Below the panels: inside, it would hide bars.
    figure.legend(loc="outside lower center", fontsize=9, frameon=False, labelcolor=INK)
    top.set_ylim(-0.03, 1.03)
    return figure


def roc_figure(models: Answers, classes: Sequence[str] | None = None, title: str = "ROC curve") -> Figure:
    """Receiver operating characteristic of class 1; of more than two classes the mean of one against the rest.

    An inset enlarges the corner in which good models differ.
    """
    figure, axes = new_figure(6.0, 5.6)
    inset = axes.inset_axes((0.36, 0.30, 0.6, 0.42))
    grid = np.r_[0, np.geomspace(1e-5, 1, 800)]
    count = 2
    for i, (name, (probabilities, labels)) in enumerate(models.items()):
        table, truth = metrics.check_answers(probabilities, labels)
        count = table.shape[1]
        chosen = [1] if count == 2 else [one for one in range(count) if 0 < (truth == one).sum() < len(truth)]
        curves = [_roc(table[:, one], truth == one) for one in chosen]
        mean = np.mean([np.interp(grid, x, y) for x, y in curves], axis=0) if curves else np.full(len(grid), np.nan)
        x, y = curves[0] if count == 2 else (np.r_[0, grid], np.r_[0, mean])
        area = metrics.point(table, truth)["roc_auc"]
        label = f"{name}: AUC not defined" if np.isnan(area) else f"{name}: AUC {area:.4f}"
        style = {"color": PALETTE[i % len(PALETTE)], "linewidth": 1.8, "linestyle": ("-", "--", "-.", ":")[i % 4]}
        axes.plot(x, y, label=label, **style)  # type: ignore[arg-type]
        inset.plot(x, y, **style)  # type: ignore[arg-type]
    axes.plot([0, 1], [0, 1], linestyle=":", color=GREY, linewidth=1.2, label="guessing")
    what = f"positive: {classes[1] if classes else 'class 1'}" if count == 2 else "mean over classes"
    dress(axes, title, f"False positive rate ({what})", f"True positive rate ({what})")
    dress(inset, "", "", "")
    inset.set(xlim=(-0.002, 0.1), ylim=(0.9, 1.002))
    inset.set_title("the corner, enlarged", fontsize=9, color=INK, backgroundcolor="white")
    for one in (axes.xaxis, axes.yaxis, inset.xaxis, inset.yaxis):
        one.set_major_formatter(PercentFormatter(1, decimals=0))
    legend(axes, "lower right")
    return figure


def _roc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> tuple[metrics.Floats, metrics.Floats]:
    order = np.argsort(-scores, kind="stable")
    last = np.r_[np.diff(scores[order]) != 0, True]  # a tie is one straight step
    rates = [np.r_[0, np.cumsum(one[order])[last] / max(one.sum(), 1)] for one in (~positive, positive)]
    return rates[0], rates[1]


def confidence_histogram(
    probabilities: ArrayLike, labels: ArrayLike, threshold: float | None = None, title: str = "Confidence of answers"
) -> Figure:
    """Confidence of right answers above, of wrong ones below, each on its own scale; the threshold as a line."""
    table, truth = metrics.check_answers(probabilities, labels)
    confidence, right = table.max(axis=1), table.argmax(axis=1) == truth
    figure = blank_figure(6.4, 4.6)
    panels = figure.subplots(2, 1, sharex=True)
    edges = np.linspace(1 / table.shape[1], 1, 31)
    parts = (("right", right, BLUE), ("wrong", ~right, VERMILION))
    for axes, (name, chosen, colour) in zip(panels, parts, strict=True):
        axes.hist(confidence[chosen].clip(edges[0], 1), bins=list(edges), color=colour, edgecolor="white")
        dress(axes, "", "", "Photos")
        axes.set_title(f"{name} answers: {chosen.sum()}", fontsize=10, color=INK, loc="left")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        if threshold is not None:
            axes.axvline(threshold, color=INK, linestyle="--", linewidth=1.2, label=f"threshold {threshold:.3f}")
    if right.all():
        panels[1].set_ylim(0, 1)
    if threshold is not None:
        legend(panels[0], "upper left")
    panels[1].set_xlabel("Confidence (top probability)", color=INK)
    panels[1].xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    head(figure, title)
    return figure


def loss_figure(history: pd.DataFrame, title: str = "Training") -> Figure:
    """Loss and validation accuracy by epoch; the epoch with the lowest validation loss is marked.

    `history` has the columns ``epoch``, ``train_loss``, ``val_loss`` (nats) and ``val_accuracy`` (0..1).
    """
    figure = blank_figure(9.0, 3.6)
    losses, accuracies = figure.subplots(1, 2)
    epochs = history["epoch"]
    losses.plot(epochs, history["train_loss"], color=ORANGE, marker="s", markersize=4, label="training")
    losses.plot(epochs, history["val_loss"], color=BLUE, marker="o", markersize=4, label="validation")
    accuracies.plot(epochs, history["val_accuracy"], color=BLUE, marker="o", markersize=4, label="validation")
    dress(losses, "Loss", "Epoch", "Log loss (nats)")
    dress(accuracies, "Accuracy", "Epoch", "Accuracy on validation photos")
    accuracies.yaxis.set_major_formatter(PercentFormatter(1))
    if history["val_loss"].notna().any():
        best = history.iloc[int(np.nanargmin(history["val_loss"].to_numpy(dtype=np.float64)))]
        for axes, column in ((losses, "val_loss"), (accuracies, "val_accuracy")):
            axes.axvline(best["epoch"], color=GREY, linestyle="--", linewidth=1.2)
            axes.plot(
                [best["epoch"]],
                [best[column]],
                marker="*",
                markersize=15,
                color=VERMILION,
                linestyle="none",
                label=f"best epoch {best['epoch']:g}: "
                + (f"{best[column]:.4f}" if column == "val_loss" else f"{best[column]:.1%}"),
            )
    for axes in (losses, accuracies):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend(axes, "best")
    head(figure, title)
    return figure


def comparison_figure(
    models: Mapping[str, Mapping[str, Interval]], title: str = "Models compared, with 95 % intervals"
) -> Figure:
    """Each metric a panel, each model a row: the value as a dot, its 95 % interval as a line."""
    shown = [name for name in metrics.METRICS if any(name in values for values in models.values())]
    shown += sorted({name for values in models.values() for name in values} - set(shown))
    columns = min(3, max(1, len(shown)))
    rows = max(1, ceil(len(shown) / columns))
    size = (3.5 * columns + 1.2, rows * (1.25 + 0.45 * len(models)) + 0.5)
    figure = blank_figure(*size)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, metric in zip(grid.flat, shown, strict=False):
        for row, (_, values) in enumerate(models.items()):
            found = values.get(metric)
            if found is None or np.isnan(found.value):
                axes.text(0.5, row, "not defined", transform=axes.get_yaxis_transform(), ha="center", color=GREY)
                continue
            colour = PALETTE[row % len(PALETTE)]
            axes.plot([found.low, found.high], [row, row], color=colour, linewidth=2.4, solid_capstyle="butt")
            axes.plot([found.value], [row], marker=MARKERS[row % len(MARKERS)], markersize=7, color=colour)
            axes.annotate(
                f"{found.value:.4f}",
                (found.value, row),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=9,
                color=INK,
            )
        dress(axes, "", _NAMES.get(metric, metric), "")
        axes.set_yticks(range(len(models)), list(models))
        axes.set_ylim(len(models) - 0.5, -0.65)
        axes.margins(x=0.18)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_visible(False)
    head(figure, title)
    return figure


def slices_figure(table: pd.DataFrame, title: str = "Slices of the test photos, with 95 % intervals") -> Figure:
    """Accuracy and log loss of each slice of `slices.slice_table`; those worse than the rest in vermilion."""
    figure = blank_figure(10.0, 1.5 + 0.32 * len(table))
    panels = figure.subplots(1, 2, sharey=True)
    # A gap between slices, so that the eye compares within one.
    new = table["slice"].ne(table["slice"].shift()).cumsum().to_numpy() - 1
    places = np.arange(len(table)) + 0.6 * new
    first = table[table["slice"] == table["slice"].iloc[0]]
    for axes, column, label in zip(panels, ("accuracy", "log_loss"), ("Accuracy", "Log loss (nats)"), strict=True):
        overall = float(np.average(first[column], weights=first["photos"]))
        mean = f"all photos: accuracy {overall:.1%}" if column == "accuracy" else f"log loss {overall:.3f}"
        axes.axvline(overall, color=GREY, linestyle="--", linewidth=1.2, label=mean)
        for place, (_, row) in zip(places, table.iterrows(), strict=True):
            colour = VERMILION if row["worse"] else BLUE
            low, high = row[f"{column}_low"], row[f"{column}_high"]
            axes.plot([low, high], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
            marker = "D" if row["worse"] else "o"
            axes.plot([row[column]], [place], marker=marker, color=colour, markersize=6)
        dress(axes, "", label, "")
    panels[0].xaxis.set_major_formatter(PercentFormatter(1))
    if table["worse"].any():
        panels[1].plot([], [], marker="D", color=VERMILION, linewidth=2.2, label="worse than the rest (p < 0.05, Holm)")
    names = [f"{row['slice']}: {row['value']}   n = {row['photos']}" for _, row in table.iterrows()]
    panels[0].set_yticks(places, names)
    panels[0].set_ylim(places[-1] + 0.7, -0.7)
    for tick, worse in zip(panels[0].get_yticklabels(), table["worse"], strict=True):
        tick.set_color(VERMILION if worse else INK)
    # Below the panels: inside, a legend would hide an interval.
    figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False, labelcolor=INK)
    head(figure, title)
    return figure


def counts_figure(table: pd.DataFrame, title: str = "Photos by class and split") -> Figure:
    """Bars of photos: a group for each class (rows), a colour for each split (columns), numbers on top."""
    figure, axes = new_figure(max(5.5, 1.6 + 0.55 * table.size), 3.8)
    width = 0.8 / max(1, table.shape[1])
    for i, split in enumerate(table.columns):
        places = np.arange(len(table)) + (i - (table.shape[1] - 1) / 2) * width
        bars = axes.bar(places, table[split], width * 0.94, color=PALETTE[i % len(PALETTE)], label=str(split))
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=9, color=INK, padding=2)
    dress(axes, title, "Class", "Photos")
    axes.set_xticks(range(len(table)), [str(name) for name in table.index])
    axes.margins(y=0.12)
    axes.grid(visible=False, axis="x")
    key = axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9, frameon=False, labelcolor=INK)
    key.set_title("Split")
    key.get_title().set_color(INK)
    return figure


def histogram_figure(values: ArrayLike, xlabel: str, title: str) -> Figure:
    """How often each value occurs, with the median; values that are not finite are left out and counted."""
    numbers = np.asarray(values, dtype=np.float64).ravel()
    known = numbers[np.isfinite(numbers)]
    figure, axes = new_figure(6.0, 3.6)
    note = f" ({len(numbers) - len(known)} unknown left out)" if len(known) < len(numbers) else ""
    dress(axes, title, xlabel + note, "Photos")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    if len(known) == 0:
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color=GREY)
        return figure
    # Few photos make few bars: no more than there is to see.
    bars = int(np.clip(2 * len(known) ** 0.5, 5, 40))
    axes.hist(known, bins=bars, color=BLUE, edgecolor="white", linewidth=0.5)
    median = float(np.median(known))
    axes.axvline(median, color=VERMILION, linestyle="--", linewidth=1.6, label=f"median {median:.4g}")
    legend(axes, "best")
    return figure
