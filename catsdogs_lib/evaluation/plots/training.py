"""Plots of training runs."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from catsdogs_lib.evaluation.plots.style import (
    BLUE,
    GREY,
    ORANGE,
    VERMILION,
    add_legend,
    new_panels,
    style_axes,
)


def loss_figure(history: pd.DataFrame, title: str = "Training") -> Figure:
    """Plot loss and validation accuracy by epoch, marking the epoch with the lowest validation loss.

    `history` has the columns ``epoch``, ``train_loss``, ``val_loss`` (nats) and ``val_accuracy`` (0..1).
    """
    figure, (losses, accuracies) = new_panels(9.0, 3.6, title, ncols=2)
    epochs = history["epoch"]
    losses.plot(epochs, history["train_loss"], color=ORANGE, marker="s", markersize=4, label="training")
    losses.plot(epochs, history["val_loss"], color=BLUE, marker="o", markersize=4, label="validation")
    accuracies.plot(epochs, history["val_accuracy"], color=BLUE, marker="o", markersize=4, label="validation")
    style_axes(losses, "Loss", "Epoch", "Log loss (nats)")
    style_axes(accuracies, "Accuracy", "Epoch", "Accuracy on validation photos")
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
        add_legend(axes, "best")
    return figure
