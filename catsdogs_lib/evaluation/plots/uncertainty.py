"""Plots of out-of-distribution scores and of selective prediction."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from catsdogs_lib.evaluation.plots.style import BLUE, GREY, INK, ORANGE, VERMILION, new_figure, style_axes


def scores_figure(table: pd.DataFrame, title: str = "Share flagged as unfamiliar, by score and material") -> Figure:
    """Plot `ood.comparison` as a heat map: one row for each score, one column for each material, test photos first."""
    shares = table.drop(columns=["others", "auc"])
    figure, axes = new_figure(2.6 + 0.62 * len(shares.columns), 1.5 + 0.38 * len(shares))
    axes.imshow(shares.to_numpy(), cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    for (row, column), share in np.ndenumerate(shares.to_numpy()):
        colour = "white" if share > 0.6 else INK
        axes.text(column, row, f"{share:.0%}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(shares.columns)), shares.columns, rotation=40, ha="right")
    axes.set_yticks(range(len(shares)), shares.index)
    style_axes(axes, title, "", "", grid=False)
    axes.axvline(0.5, color="white", linewidth=4)
    return figure


def unfamiliarity_figure(
    test: ArrayLike, others: Mapping[str, NDArray[np.float32]], limit: float, title: str = "Unfamiliarity"
) -> Figure:
    """Plot the distribution of unfamiliarity for test photos and each other material, with the threshold as a line."""
    rows = {"test photos": np.asarray(test), **others}
    figure, axes = new_figure(8, 1.4 + 0.34 * len(rows))
    for row, values in enumerate(rows.values()):
        (low, median, high), colour = np.quantile(values, [0.05, 0.5, 0.95]), BLUE if row == 0 else ORANGE
        axes.plot(values, np.full(len(values), row), "|", color=colour, alpha=0.25, markersize=11)
        axes.plot([low, high], [row, row], color=colour, linewidth=3, solid_capstyle="round")
        axes.plot(median, row, "o", color=colour, markeredgecolor="white", markersize=7)
    axes.axvline(limit, color=VERMILION, linestyle="--", linewidth=1.4)
    axes.text(limit, -0.75, f" unfamiliar from {limit:.3f}", color=VERMILION, fontsize=9, va="center")
    axes.set(yticks=range(len(rows)), yticklabels=list(rows), ylim=(len(rows) - 0.4, -1.2))
    style_axes(axes, title, "Unfamiliarity (cosine distance to the nearest prototype); bar: 5 % to 95 %", "")
    return figure


def coverage_figure(
    probabilities: ArrayLike, labels: ArrayLike, unfamiliarity: ArrayLike, confident: float, limit: float
) -> Figure:
    """Plot wrong answers among the k most confident against coverage, and mark the thresholds.

    Parameters
    ----------
    probabilities, labels, unfamiliarity
        float (N, C), int (N,) and float (N,), of test photos.
    confident, limit
        Thresholds for confidence and for unfamiliarity.
    """
    table, truth, distance = np.asarray(probabilities), np.asarray(labels), np.asarray(unfamiliarity)
    confidence, wrong = table.max(axis=1), table.argmax(axis=1) != truth
    familiar = distance <= limit
    # Unfamiliar photos rank last, whatever their confidence.
    order = np.lexsort((-confidence, ~familiar))
    answered = np.arange(1, len(truth) + 1) / len(truth)
    figure, axes = new_figure(7, 3.6)
    axes.step(answered, np.cumsum(wrong[order]), where="post", color=BLUE, linewidth=2, label="most confident first")
    kept = float((familiar & (confidence >= confident)).mean())
    axes.axvline(kept, color=VERMILION, linestyle="--", linewidth=1.4, label=f"{kept:.1%} are confident answers")
    axes.axhline(wrong.sum(), color=GREY, linewidth=1, linestyle=":", label=f"all answers: {wrong.sum()} wrong")
    axes.set(xlim=(0, 1.01), ylim=(-0.2, None))
    axes.legend(frameon=False, fontsize=9, loc="upper left", labelcolor=INK)
    style_axes(axes, "Wrong answers by coverage", "Coverage: share of test photos answered", "Wrong answers so far")
    return figure
