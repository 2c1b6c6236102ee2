"""Plots of the monitoring report."""

import pandas as pd
from matplotlib.figure import Figure

from catsdogs_lib.evaluation.plots.style import BLUE, GREY, INK, VERMILION, new_figure, style_axes


def drift_figure(signals: pd.DataFrame, title: str = "Change of each signal since validation") -> Figure:
    """Plot the effect size of each signal as a bar, the largest on top; alarms stand out."""
    ranked = signals.sort_values("effect", kind="stable").reset_index(drop=True)
    figure, axes = new_figure(7.5, 1.2 + 0.34 * len(ranked))
    colours = [VERMILION if alarm else GREY for alarm in ranked["alarm"]]
    axes.barh(range(len(ranked)), ranked["effect"], color=colours, height=0.62)
    for row, (before, now, effect, alarm) in enumerate(ranked[["reference", "window", "effect", "alarm"]].to_numpy()):
        change = f"{before:.3g} → {now:.3g}" + ("  look at it" if alarm else "")
        axes.text(float(effect) + 0.01, row, change, va="center", fontsize=9, color=INK)
    longest = max(0.2, float(ranked["effect"].max()))
    axes.set(yticks=range(len(ranked)), yticklabels=ranked["signal"], xlim=(0, 1.3 * longest))
    style_axes(axes, title, "Effect: distance of distributions, or change of a share (0 to 1)", "")
    return figure


def volume_figure(volume: "pd.Series[int]", title: str = "Answers by day") -> Figure:
    """Plot the number of answers on each day as bars."""
    figure, axes = new_figure(7.5, 3)
    axes.bar(range(len(volume)), volume.to_numpy(), color=BLUE, width=0.7)
    step = max(1, len(volume) // 10)
    axes.set_xticks(range(0, len(volume), step), list(volume.index[::step]), rotation=30, ha="right")
    style_axes(axes, title, "Day (UTC)", "Answers")
    return figure
