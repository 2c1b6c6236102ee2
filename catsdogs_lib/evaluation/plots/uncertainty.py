"""Figures of doubt: what is unfamiliar, which score sees it, and what being choosy buys."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from catsdogs_lib.evaluation.plots.style import BLUE, GREY, INK, ORANGE, VERMILION, dress, new_figure


def scores_figure(table: pd.DataFrame, title: str = "Share called unfamiliar, by score and material") -> Figure:
    """Draw `unfamiliar.comparison` as a map: a row a score, a column a material; familiar test photos come first."""
    shown = table.drop(columns=["others", "auc"])
    figure, axes = new_figure(2.6 + 0.62 * len(shown.columns), 1.5 + 0.38 * len(shown))
    axes.imshow(shown.to_numpy(), cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    for (row, column), share in np.ndenumerate(shown.to_numpy()):
        colour = "white" if share > 0.6 else INK
        axes.text(column, row, f"{share:.0%}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(shown.columns)), shown.columns, rotation=40, ha="right")
    axes.set_yticks(range(len(shown)), shown.index)
    dress(axes, title, "", "", grid=False)
    axes.axvline(0.5, color="white", linewidth=4)
    return figure


def unfamiliarity_figure(
    familiar: ArrayLike, others: Mapping[str, NDArray[np.float32]], limit: float, title: str = "How unfamiliar?"
) -> Figure:
    """Spread of the unfamiliarity of test photos and of each other material; the limit as a line."""
    rows = {"test photos": np.asarray(familiar), **others}
    figure, axes = new_figure(8, 1.4 + 0.34 * len(rows))
    for row, values in enumerate(rows.values()):
        middle, colour = np.quantile(values, [0.05, 0.5, 0.95]), BLUE if row == 0 else ORANGE
        axes.plot(values, np.full(len(values), row), "|", color=colour, alpha=0.25, markersize=11)
        axes.plot(middle[[0, 2]], [row, row], color=colour, linewidth=3, solid_capstyle="round")
        axes.plot(middle[1], row, "o", color=colour, markeredgecolor="white", markersize=7)
    axes.axvline(limit, color=VERMILION, linestyle="--", linewidth=1.4)
    axes.text(limit, -0.75, f" unfamiliar from {limit:.3f}", color=VERMILION, fontsize=9, va="center")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.4, -1.2)
    dress(axes, title, "Unfamiliarity (cosine distance to the nearest prototype); bar: 5 % to 95 %", "")
    return figure


def coverage_figure(
    probabilities: ArrayLike, labels: ArrayLike, unfamiliarity: ArrayLike, confident: float, limit: float
) -> Figure:
    """Wrong answers among the k most confident, over the share that they are; and where the thresholds stand.

    Parameters
    ----------
    probabilities, labels, unfamiliarity
        float (N, C), int (N,) and float (N,), of test photos.
    confident, limit
        The thresholds of confidence and of unfamiliarity.
    """
    table, truth, distance = np.asarray(probabilities), np.asarray(labels), np.asarray(unfamiliarity)
    confidence, wrong = table.max(axis=1), table.argmax(axis=1) != truth
    familiar = distance <= limit
    # Unfamiliar photos come last, whatever their confidence.
    order = np.lexsort((-confidence, ~familiar))
    answered = np.arange(1, len(truth) + 1) / len(truth)
    figure, axes = new_figure(7, 3.6)
    axes.step(answered, np.cumsum(wrong[order]), where="post", color=BLUE, linewidth=2, label="most confident first")
    kept = float((familiar & (confidence >= confident)).mean())
    axes.axvline(kept, color=VERMILION, linestyle="--", linewidth=1.4, label=f"{kept:.1%} are confident answers")
    axes.axhline(wrong.sum(), color=GREY, linewidth=1, linestyle=":", label=f"all answers: {wrong.sum()} wrong")
    axes.set_xlim(0, 1.01)
    axes.set_ylim(bottom=-0.2)
    axes.legend(frameon=False, fontsize=9, loc="upper left", labelcolor=INK)
    dress(axes, "Wrong answers by how many are given", "Share of test photos answered", "Wrong answers so far")
    return figure
