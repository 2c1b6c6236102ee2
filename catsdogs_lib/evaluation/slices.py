"""Slices: accuracy and log loss on groups of similar test photos."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import fisher_exact

from catsdogs_lib.evaluation.metrics import EvaluationError, bootstrap_mean, check_answers, photo_losses, wilson

SIGNIFICANCE = 0.05
"""Probability of flagging any slice if the model is equally good on all."""
MAX_SQUARE_RATIO = 1.1
"""A photo counts as square if its longer side is at most this many times the shorter one."""
COLUMNS = ("width", "height", "brightness", "sharpness", "grayscale", "orientation")

_UNKNOWN = "unknown"


def slice_table(
    manifest_rows: pd.DataFrame, probabilities: ArrayLike, labels: ArrayLike, seed: int = 0
) -> pd.DataFrame:
    """Measure accuracy and log loss by resolution, brightness, aspect ratio, grayscale and sharpness.

    A slice is flagged as worse than the rest if a one-sided Fisher exact test of its wrong answers
    against those of all other photos stays below `SIGNIFICANCE` after Holm's correction (1979) for the
    number of slices. The test is exact, so it is safe on a slice of three photos, and hardly ever flags one.

    Parameters
    ----------
    manifest_rows
        One row a photo, with `COLUMNS`: ``width`` and ``height`` as stored (pixels), ``orientation``
        (EXIF, 1 to 8), ``brightness`` (0..1), ``sharpness`` (any scale), ``grayscale`` (bool).
    probabilities, labels
        float (N, C) and int (N,), in the order of the rows.
    seed
        Seed of the bootstrap of the log loss.

    Returns
    -------
    DataFrame
        One row for each slice that holds photos: ``slice``, ``value``, ``photos``; ``accuracy`` with
        ``accuracy_low`` and ``accuracy_high`` (Wilson, 95 %); ``log_loss`` (nats) with ``log_loss_low`` and
        ``log_loss_high`` (bootstrap, 95 %); ``p_value`` (Holm-corrected; NaN where the slice is all
        photos); ``worse`` (bool).

    Raises
    ------
    EvaluationError
        A column is missing, the numbers of photos differ, or see `metrics.check_answers`.
    """
    table, truth = check_answers(probabilities, labels)
    masks = _masks(manifest_rows)
    if len(manifest_rows) != len(truth):
        raise EvaluationError(f"{len(manifest_rows)} manifest rows, but {len(truth)} photos were answered")
    right, losses = table.argmax(axis=1) == truth, photo_losses(table, truth)
    rows = []
    for (name, value), inside in masks.items():
        accuracy = wilson(int(right[inside].sum()), int(inside.sum()))
        loss = bootstrap_mean(losses[inside], seed=seed)
        rows.append(
            {
                "slice": name,
                "value": value,
                "photos": int(inside.sum()),
                "accuracy": accuracy.value,
                "accuracy_low": accuracy.low,
                "accuracy_high": accuracy.high,
                "log_loss": loss.value,
                "log_loss_low": loss.low,
                "log_loss_high": loss.high,
                "p_value": _worse_than_rest(right, inside),
            }
        )
    result = pd.DataFrame(rows)
    result["p_value"] = holm(result["p_value"].to_numpy())
    result["worse"] = result["p_value"] < SIGNIFICANCE
    return result


def slice_masks(manifest_rows: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """Compute a mask, bool (N,), for each slice of `slice_table` that holds some photos but not all.

    Raises
    ------
    EvaluationError
        A column is missing.
    """
    masks = _masks(manifest_rows)
    return {f"{name} {value}": inside for (name, value), inside in masks.items() if not inside.all()}


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Correct p-values for multiple tests (Holm, 1979).

    The family-wise error rate stays below a level if results below it are rejected. NaN is no test and stays NaN.
    """
    raw = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(raw.shape, np.nan)
    # NaN sorts last.
    order = np.argsort(raw, kind="stable")[: np.count_nonzero(~np.isnan(raw))]
    corrected[order] = np.maximum.accumulate(np.minimum(raw[order] * np.arange(len(order), 0, -1), 1.0))
    return corrected


def _worse_than_rest(right: NDArray[np.bool_], inside: NDArray[np.bool_]) -> float:
    if inside.all():
        return float("nan")
    wrong = ~right
    square = [[(wrong & inside).sum(), (right & inside).sum()], [(wrong & ~inside).sum(), (right & ~inside).sum()]]
    return float(fisher_exact(square, alternative="greater").pvalue)


def _masks(rows: pd.DataFrame) -> dict[tuple[str, str], NDArray[np.bool_]]:
    """Compute a mask, bool (N,), for each slice that holds photos, by dimension and category."""
    if missing := sorted(set(COLUMNS) - set(rows.columns)):
        raise EvaluationError(f"the manifest has no column {', '.join(missing)}; prepare the data again")
    masks = {
        (name, value): (values == value).to_numpy()
        for name, values in _slices(rows).items()
        for value in values.cat.categories
    }
    return {key: inside for key, inside in masks.items() if inside.any()}


def _slices(rows: pd.DataFrame) -> "dict[str, pd.Series[str]]":
    """Assign each photo its category in each dimension, as ordered categoricals."""
    # EXIF orientations 5 to 8 need a quarter turn.
    turned = rows["orientation"].between(5, 8).to_numpy()
    width = np.where(turned, rows["height"], rows["width"]).astype(np.float64)
    height = np.where(turned, rows["width"], rows["height"]).astype(np.float64)
    ratio = width / height
    aspect = np.select(
        [ratio < 1 / MAX_SQUARE_RATIO, ratio > MAX_SQUARE_RATIO, np.isfinite(ratio)],
        ["portrait", "landscape", "square"],
        _UNKNOWN,
    )
    grey = np.where(rows["grayscale"].isna(), _UNKNOWN, np.where(rows["grayscale"] == True, "grey", "colour"))  # noqa: E712
    return {
        "resolution": _terciles(np.sqrt(width * height), ("small", "medium", "large"), "{:.0f}", " px"),
        "brightness": _terciles(rows["brightness"], ("dark", "medium", "bright"), "{:.2f}", ""),
        "aspect ratio": _ordered(aspect, ["portrait", "square", "landscape", _UNKNOWN]),
        "grayscale": _ordered(grey, ["colour", "grey", _UNKNOWN]),
        "sharpness": _terciles(rows["sharpness"], ("blurred", "medium", "sharp"), "{:.3g}", ""),
    }


def _terciles(values: ArrayLike, names: tuple[str, str, str], form: str, unit: str) -> "pd.Series[str]":
    """Cut values into three parts of equal size, named with their limits; fewer if many photos share a value."""
    numbers = np.asarray(values, dtype=np.float64)
    known = np.isfinite(numbers)
    if not known.any():
        return _ordered(np.full(len(numbers), _UNKNOWN), [_UNKNOWN])
    cuts = np.quantile(numbers[known], [1 / 3, 2 / 3])
    low, high = map(form.format, cuts)
    categories = [
        f"{names[0]} (up to {low}{unit})",
        f"{names[1]} ({low} to {high}{unit})",
        f"{names[2]} (over {high}{unit})",
        _UNKNOWN,
    ]
    part = np.where(known, np.searchsorted(cuts, np.where(known, numbers, 0.0), side="left"), 3)
    return _ordered(np.asarray(categories)[part], categories)


def _ordered(values: NDArray[np.str_], categories: list[str]) -> "pd.Series[str]":
    return pd.Series(pd.Categorical(values, categories=categories, ordered=True))
