"""Plots that show photos: samples, answers, augmentation."""

from collections.abc import Sequence
from math import ceil
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from catsdogs_lib.evaluation.plots.style import GREY, INK, VERMILION, new_panels

THUMBNAIL = 256
"""Side of the square that a photo is drawn in, in pixels: reports must stay small."""


class GalleryItem(NamedTuple):
    """A photo and its answer with its `probability`, 0..1; a plain tuple in this order works too."""

    image: Image.Image
    true: str
    predicted: str
    probability: float
    path: str


def gallery_figure(items: Sequence[tuple[Image.Image, str, str, float, str]], title: str, columns: int = 6) -> Figure:
    """Show photos with their answers, each a `GalleryItem`; wrong answers are framed in vermilion."""
    figure, cells = _photo_grid(len(items), columns, title, 2.35)
    for axes, (image, true, predicted, probability, path) in zip(cells, items, strict=False):
        wrong = true != predicted
        # Never "100.0%" for an answer that is not certain.
        percent = f"{min(probability, 0.999):.1%}" if probability < 1 else "100%"
        text = f"{predicted} {percent}" + (f"\nbut is {true}" if wrong else "")
        _show(axes, image)
        axes.set_title(text, fontsize=10, color=VERMILION if wrong else INK)
        axes.set_xlabel(_shortened(PurePath(path).name), fontsize=8, color=INK)
        _frame(axes, VERMILION if wrong else GREY, 3.0 if wrong else 0.8)
    return figure


def photos_figure(photos: Sequence[tuple[Image.Image, str]], title: str, columns: int = 6) -> Figure:
    """Show photos, each with its caption."""
    figure, cells = _photo_grid(len(photos), columns, title, 2.0)
    for axes, (image, caption) in zip(cells, photos, strict=False):
        _show(axes, image)
        axes.set_title(caption, fontsize=10, color=INK)
        _frame(axes, GREY, 0.8)
    return figure


def augmentation_figure(
    rows: Sequence[Sequence[Image.Image]], title: str = "What training sees: one photo, drawn again and again"
) -> Figure:
    """Show one photo in each row: the original, then augmented versions of it."""
    columns = max((len(row) for row in rows), default=1)
    figure, cells = _photo_grid(len(rows) * columns, columns, title, 1.9)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            axes = cells[i * columns + j]
            _show(axes, image)
            _frame(axes, INK if j == 0 else GREY, 1.8 if j == 0 else 0.8)
            if i == 0:
                axes.set_title("as it is" if j == 0 else f"drawn {j}", fontsize=10, color=INK)
    return figure


def _photo_grid(count: int, columns: int, title: str, side: float) -> tuple[Figure, list[Axes]]:
    columns = max(1, min(columns, count))
    rows = max(1, ceil(count / columns))
    width = max(5.0, 1.85 * columns)
    figure, grid = new_panels(width, side * rows + 0.5, title, nrows=rows, ncols=columns, squeeze=False)
    cells = list(grid.flat)
    for axes in cells:
        axes.axis("off")
    if count == 0:
        cells[0].text(0.5, 0.5, "no photos to show", ha="center", va="center", color=GREY)
    return figure, cells


def _show(axes: Axes, image: Image.Image) -> None:
    # Pad to a square, so that photos of all shapes align.
    small = ImageOps.pad(image.convert("RGB"), (THUMBNAIL, THUMBNAIL), color="#F2F2F2")
    axes.axis("on")
    axes.imshow(np.asarray(small))
    axes.set(xticks=[], yticks=[])


def _frame(axes: Axes, colour: str, width: float) -> None:
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=width)


def _shortened(name: str, limit: int = 24) -> str:
    return name if len(name) <= limit else f"{name[: limit - 9]}…{name[-8:]}"
