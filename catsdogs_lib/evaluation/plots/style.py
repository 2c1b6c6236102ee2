"""The style of all figures: white background, dark text, colours that colour-blind readers can tell apart.

The palette is that of Okabe and Ito (2008). Blue is normal; vermilion marks what needs attention.
"""

from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY, GREY, INK = "#CC79A7", "#56B4E9", "#8A8A8A", "#1A1A1A"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)
"""Colours of series, in order."""
MARKERS = ("o", "s", "^", "D", "v", "P")
"""Markers of series, in order, for readers who cannot tell the colours apart."""
DPI = 110


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Create an empty figure with one pair of axes; sizes in inches."""
    return new_panels(width, height)


def new_panels(width: float, height: float, title: str = "", **panels: Any) -> tuple[Figure, Any]:
    """Create a figure of empty axes with a title above all panels; `panels` are arguments of `Figure.subplots`."""
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout=layout)
    if title:
        set_title(figure, title)
    return figure, figure.subplots(**panels)


def set_title(figure: Figure, title: str) -> None:
    """Set a title above all panels."""
    figure.suptitle(title, color=INK, fontsize=12, fontweight="bold")


def style_axes(axes: Axes, title: str, xlabel: str, ylabel: str, grid: bool = True) -> None:
    """Apply the common style. Every colour is explicit, so that a user's dark matplotlib style cannot hide text."""
    axes.set(facecolor="white", axisbelow=True)
    axes.set_title(title, fontsize=12, fontweight="bold", color=INK)
    axes.set_xlabel(xlabel, fontsize=10, color=INK)
    axes.set_ylabel(ylabel, fontsize=10, color=INK)
    axes.tick_params(colors=INK, labelsize=9)
    if grid:
        axes.grid(color="#E3E3E3", linewidth=0.8)
    for side, spine in axes.spines.items():
        spine.set(color=GREY, visible=side in ("left", "bottom"))


def add_legend(axes: Axes, location: Literal["best", "upper left", "lower right"]) -> None:
    """Add a legend inside the axes."""
    axes.legend(loc=location, fontsize=9, facecolor="white", edgecolor="none", framealpha=0.85, labelcolor=INK)
