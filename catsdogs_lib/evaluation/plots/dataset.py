"""Plots of a dataset: photos by class and split, distributions of one number."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from catsdogs_lib.evaluation.plots.style import BLUE, GREY, INK, PALETTE, VERMILION, add_legend, new_figure, style_axes


def counts_figure(table: pd.DataFrame, title: str = "Photos by class and split") -> Figure:
    """Plot photo counts as bars: a group for each class (rows), a colour for each split (columns)."""
    figure, axes = new_figure(max(5.5, 1.6 + 0.55 * table.size), 3.8)
    width = 0.8 / max(1, table.shape[1])
    for i, split in enumerate(table.columns):
        lefts = np.arange(len(table)) + (i - (table.shape[1] - 1) / 2) * width
        bars = axes.bar(lefts, table[split], width * 0.94, color=PALETTE[i % len(PALETTE)], label=str(split))
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=9, color=INK, padding=2)
    style_axes(axes, title, "Class", "Photos")
    axes.set_xticks(range(len(table)), [str(name) for name in table.index])
    axes.margins(y=0.12)
    axes.grid(visible=False, axis="x")
    legend = axes.legend(
        loc="upper left", bbox_to_anchor=(1.0, 1.0), title="Split", fontsize=9, frameon=False, labelcolor=INK
    )
    legend.get_title().set_color(INK)
    return figure


def histogram_figure(values: ArrayLike, xlabel: str, title: str) -> Figure:
    """Plot a histogram with its median; values that are not finite are left out and counted in the label."""
    numbers = np.asarray(values, dtype=np.float64).ravel()
    finite = numbers[np.isfinite(numbers)]
    figure, axes = new_figure(6.0, 3.6)
    note = f" ({len(numbers) - len(finite)} unknown left out)" if len(finite) < len(numbers) else ""
    style_axes(axes, title, xlabel + note, "Photos")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    if len(finite) == 0:
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color=GREY)
        return figure
    bins = int(np.clip(2 * len(finite) ** 0.5, 5, 40))
    axes.hist(finite, bins=bins, color=BLUE, edgecolor="white", linewidth=0.5)
    median = float(np.median(finite))
    axes.axvline(median, color=VERMILION, linestyle="--", linewidth=1.6, label=f"median {median:.4g}")
    add_legend(axes, "best")
    return figure
