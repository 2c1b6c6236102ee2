"""Metrics of a classifier on labelled photos, each with a 95 % interval.

Everywhere: `probabilities` are float, shape (N, C), C >= 2, in 0..1, each row summing to 1; `labels` are
int, shape (N,), in 0..C-1; N >= 1. The *top-label confidence* of a photo is the largest of its row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from catsdogs_lib.common.errors import CatsdogsError

METRICS = ("accuracy", "log_loss", "roc_auc", "f1", "expected_calibration_error")
"""Names of the metrics, in the order of reports."""
BINS = 15
"""Bins of the expected calibration error, as in Guo et al. (2017)."""
CONFIDENCE_LEVEL = 0.95

_MAX_CELLS = 2_000_000  # resamples x photos in memory at once: 16 MB for each array
_Z = float(ndtri((1 + CONFIDENCE_LEVEL) / 2))

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class EvaluationError(CatsdogsError):
    """Inputs of an evaluation are unusable: wrong shapes, no photos, numbers that are no probabilities."""


@dataclass(frozen=True)
class Interval:
    """A measured value with its 95 % interval; all three NaN if it is not defined."""

    value: float
    low: float
    high: float


def check_answers(probabilities: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.floating], Ints]:
    """Convert probabilities and labels to arrays, and check that they fit.

    Returns
    -------
    ndarray of float (dtype kept), shape (N, C), and ndarray of int64, shape (N,)

    Raises
    ------
    EvaluationError
        See `check_probabilities`; or labels that are not N integers in 0..C-1.
    """
    table, truth = check_probabilities(probabilities), np.asarray(labels)
    if truth.shape != table.shape[:1]:
        raise EvaluationError(f"labels have shape {truth.shape}, the probabilities {table.shape}; give one a photo")
    if truth.dtype.kind not in "iub" or truth.min() < 0 or truth.max() >= table.shape[1]:
        raise EvaluationError(f"labels must be class indices, integers from 0 to {table.shape[1] - 1}")
    return table, truth.astype(np.int64)


def check_probabilities(probabilities: ArrayLike) -> NDArray[np.floating]:
    """Convert probabilities to an array, keeping float32 or float64, and check them.

    Raises
    ------
    EvaluationError
        Not (N, C) with N >= 1 and C >= 2, or not probabilities: outside 0..1 or rows that do not sum to 1.
    """
    table = np.asarray(probabilities)
    if table.dtype not in (np.float32, np.float64):
        table = table.astype(np.float64)
    if table.ndim != 2 or len(table) == 0 or table.shape[1] < 2:
        raise EvaluationError(f"probabilities have shape {table.shape}; give one row a photo, one column a class")
    # NaN fails both comparisons.
    if not (((table >= 0) & (table <= 1 + 1e-6)).all() and (np.abs(table.sum(axis=1) - 1) < 1e-3).all()):
        raise EvaluationError("probabilities must lie in 0..1 and sum to 1 for each photo; were logits given instead?")
    return table


def point(probabilities: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Compute each of `METRICS`.

    Returns
    -------
    dict
        ``accuracy`` (0..1), that of the most probable class. ``log_loss`` (nats, >= 0), with
        probabilities clipped to the machine epsilon of their dtype, as scikit-learn does. ``roc_auc``
        (0..1): with two classes that of class 1, with more the mean of one class against the rest, over
        the classes that have both; NaN where no class has. ``f1`` (0..1): the mean over all classes that
        occur or are predicted (macro-F1), for two classes too, so that no class is the "positive" one.
        ``expected_calibration_error`` (0..1): see `expected_calibration_error`.
    """
    table, truth = check_answers(probabilities, labels)
    once = np.ones((1, len(truth)))
    return {name: float(values[0]) for name, values in weighted_metrics(table, truth, once).items()}


def with_intervals(
    probabilities: ArrayLike, labels: ArrayLike, resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Compute each of `METRICS` with a 95 % interval: percentile bootstrap over photos (Efron, 1979).

    Three points differ from the textbook:

    - accuracy has Wilson's interval, because the bootstrap of a flawless test set is [1, 1];
    - a resample that misses a class is skipped for ``roc_auc``;
    - resampling adds noise that can only raise a calibration error, so its resamples are shifted to have
      the measured value as their mean, and cut at 0.

    Returns
    -------
    dict of Interval
    """
    table, truth = check_answers(probabilities, labels)
    measured = point(table, truth)
    present = np.unique(truth)
    parts: dict[str, list[Floats]] = {name: [] for name in METRICS}
    for counts in _resampled_counts(len(truth), resamples, seed):
        values = weighted_metrics(table, truth, counts)
        complete = np.all([counts[:, truth == label].any(axis=1) for label in present], axis=0)
        values["roc_auc"] = values["roc_auc"][complete]
        for name in METRICS:
            parts[name].append(values[name])
    drawn = {name: np.concatenate(part) for name, part in parts.items()}
    calibration = drawn["expected_calibration_error"]
    drawn["expected_calibration_error"] = np.maximum(
        calibration - calibration.mean() + measured["expected_calibration_error"], 0
    )
    result = {name: percentiles(measured[name], drawn[name]) for name in METRICS}
    result["accuracy"] = wilson(round(measured["accuracy"] * len(truth)), len(truth))
    return result


def bootstrap_mean(values: ArrayLike, resamples: int = 1000, seed: int = 0) -> Interval:
    """Average `values`, shape (N,), N >= 1, with a 95 % percentile bootstrap interval."""
    sample = np.asarray(values, dtype=np.float64)
    drawn = [counts @ sample / len(sample) for counts in _resampled_counts(len(sample), resamples, seed)]
    return percentiles(float(sample.mean()), np.concatenate(drawn))


def percentiles(value: float, drawn: Floats) -> Interval:
    """Give `value` the central 95 % of `drawn` as its interval; NaN if nothing was drawn or the value is NaN."""
    if np.isnan(value) or len(drawn) == 0:
        return Interval(value, float("nan"), float("nan"))
    tail = (1 - CONFIDENCE_LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def wilson(successes: float, trials: float) -> Interval:
    """Compute a share of `trials` with Wilson's 95 % score interval (Wilson, 1927); [0, 1] of no trials.

    It stays within 0..1 and keeps a width where all or none succeed.
    """
    if trials == 0:
        return Interval(float("nan"), 0.0, 1.0)
    share = successes / trials
    centre = (share + _Z**2 / (2 * trials)) / (1 + _Z**2 / trials)
    half = _Z / (1 + _Z**2 / trials) * sqrt(share * (1 - share) / trials + _Z**2 / (4 * trials**2))
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def photo_losses(probabilities: ArrayLike, labels: ArrayLike) -> Floats:
    """Compute the log loss of each photo in nats, shape (N,), clipped as in `point`."""
    table, truth = check_answers(probabilities, labels)
    epsilon = np.finfo(table.dtype).eps
    of_truth = table[np.arange(len(truth)), truth].clip(epsilon, 1 - epsilon)
    return np.asarray(-np.log(of_truth, dtype=np.float64))


def confusion_matrix(probabilities: ArrayLike, labels: ArrayLike) -> Ints:
    """Count the photos of each true class (rows) by answer (columns): int64, shape (C, C)."""
    table, truth = check_answers(probabilities, labels)
    classes = table.shape[1]
    cells = np.bincount(truth * classes + table.argmax(axis=1), minlength=classes**2)
    return cells.reshape(classes, classes).astype(np.int64)


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> float:
    """Average the distance between confidence and accuracy, 0..1, over bins of equal mass.

    Naeini et al. (2015), with the photos in order of top-label confidence cut into `bins` groups of
    equal size (+-1), because bins of equal width are nearly all empty for a good model. Photos of the
    same confidence share their mean accuracy, so the order of photos does not matter. The value of a
    perfectly calibrated model is above 0 for finite N: see `calibrated_ece_quantile`.
    """
    table, truth = check_answers(probabilities, labels)
    confidence, correct = _top(table, truth)
    return float(_ece(confidence, correct, np.ones((1, len(truth))), bins)[0])


def calibrated_ece_quantile(
    probabilities: ArrayLike, quantile: float = 0.95, draws: int = 1000, seed: int = 0, bins: int = BINS
) -> float:
    """Compute the calibration error that a perfectly calibrated model with these probabilities still shows.

    Labels are drawn from the probabilities themselves (consistency resampling: Bröcker and Smith, 2007);
    only whether the top label is right matters, and it is with the probability of the confidence.

    Returns
    -------
    float
        That quantile of the calibration error over `draws`; a model above the 0.95 quantile is miscalibrated.
    """
    confidence = np.minimum(check_probabilities(probabilities).max(axis=1).astype(np.float64), 1)
    random, size = np.random.default_rng(seed), len(confidence)
    drawn = ((random.random((rows, size)) < confidence).astype(np.float64) for rows in _chunks(draws, size))
    errors = [_ece(confidence, correct, np.ones((1, size)), bins) for correct in drawn]
    return float(np.quantile(np.concatenate(errors), quantile))


def reliability_bins(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS, *, equal_width: bool = False
) -> pd.DataFrame:
    """Compare confidence with accuracy in bins of the top-label confidence.

    Parameters
    ----------
    probabilities, labels
        As everywhere in this module.
    bins
        Number of bins; empty ones are left out.
    equal_width
        False: the bins of `expected_calibration_error`. True: cut 1/C..1 into parts of equal width, which
        draws better where most photos have nearly the same confidence.

    Returns
    -------
    DataFrame
        In order of confidence: ``confidence`` (mean, 0..1), ``accuracy`` (0..1), ``count`` (photos).
    """
    table, truth = check_answers(probabilities, labels)
    confidence, correct = _top(table, truth)
    if equal_width:
        floor = 1 / table.shape[1]
        part = np.clip(((confidence - floor) / (1 - floor) * bins).astype(int), 0, bins - 1)
        counts = np.bincount(part, minlength=bins)
        sums = [np.bincount(part, weights=values, minlength=bins) for values in (confidence, correct)]
    else:
        ones = np.ones((1, len(truth)))
        counts = np.diff(_edges(len(truth), bins))
        sums = [_bin_sums(confidence, values, ones, bins)[0] for values in (confidence, correct)]
    filled = counts > 0
    confidences, accuracies = (total[filled] / counts[filled] for total in sums)
    return pd.DataFrame({"confidence": confidences, "accuracy": accuracies, "count": counts[filled]})


def weighted_metrics(table: NDArray[np.floating], truth: Ints, counts: Floats) -> dict[str, Floats]:
    """Compute each of `METRICS` for R weightings of the photos at once: `counts` (R, N), each row summing to N."""
    size, classes = table.shape
    confidence, correct = _top(table, truth)
    is_true, is_answer = np.eye(classes)[truth], np.eye(classes)[table.argmax(axis=1)]  # (N, C) each
    hits, halves = counts @ (is_true * is_answer), counts @ (is_true + is_answer) / 2  # (R, C)
    used = halves > 0
    f1 = np.divide(hits, halves, out=np.zeros_like(hits), where=used).sum(axis=1) / used.sum(axis=1)
    return {
        "accuracy": counts @ correct / size,
        "log_loss": counts @ photo_losses(table, truth) / size,
        "roc_auc": _roc_auc(table, truth, counts),
        "f1": f1,
        "expected_calibration_error": _ece(confidence, correct, counts, BINS),
    }


def _roc_auc(table: NDArray[np.floating], truth: Ints, counts: Floats) -> Floats:
    """Compute the chance that a photo of the class scores above one of the rest, ties counting half: shape (R,)."""
    labels = range(1, 2) if table.shape[1] == 2 else range(table.shape[1])
    total, defined = np.zeros(len(counts)), np.zeros(len(counts))
    for label in labels:
        order, starts = _ties(table[:, label])
        positive = np.add.reduceat(counts[:, order] * (truth[order] == label), starts, axis=1)
        negative = np.add.reduceat(counts[:, order] * (truth[order] != label), starts, axis=1)
        below = np.cumsum(negative, axis=1) - negative / 2
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        total += np.divide((positive * below).sum(axis=1), pairs, out=np.zeros(len(counts)), where=pairs > 0)
        defined += pairs > 0
    return np.asarray(np.divide(total, defined, out=np.full(len(counts), np.nan), where=defined > 0))


def _ece(confidence: Floats, correct: Floats, counts: Floats, bins: int) -> Floats:
    """Compute the calibration error, shape (R,), from `counts` (R or 1, N) and `correct` (N,) or (R, N)."""
    sums = _bin_sums(confidence, confidence - correct, counts, bins)
    return np.asarray(np.abs(sums).sum(axis=1) / len(confidence))


def _bin_sums(confidence: Floats, values: Floats, counts: Floats, bins: int) -> Floats:
    """Sum `values` in each bin of equal mass: shape (R, bins).

    Read off the running sum as a function of the photos so far; between two distinct confidences it is a
    straight line, which is what shares a tie among bins.
    """
    order, starts = _ties(confidence)
    shape = (max(len(counts), len(np.atleast_2d(values))), len(starts) + 1)
    mass, running = np.zeros((len(counts), shape[1])), np.zeros(shape)
    np.cumsum(np.add.reduceat(counts[:, order], starts, axis=1), axis=1, out=mass[:, 1:])
    weighted = counts[:, order] * np.atleast_2d(values)[:, order]
    np.cumsum(np.add.reduceat(weighted, starts, axis=1), axis=1, out=running[:, 1:])
    edges = _edges(len(confidence), bins)
    mass = np.broadcast_to(mass, shape)
    read = np.array([np.interp(edges, x, y) for x, y in zip(mass, running, strict=True)])
    return np.asarray(np.diff(read, axis=1))


def _edges(size: int, bins: int) -> Ints:
    return np.round(np.linspace(0, size, bins + 1)).astype(np.int64)


def _top(table: NDArray[np.floating], truth: Ints) -> tuple[Floats, Floats]:
    return table.max(axis=1).astype(np.float64), (table.argmax(axis=1) == truth).astype(np.float64)


def _ties(values: NDArray[np.floating]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Sort `values`: the ascending order, and where in it each distinct value starts."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    return order, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


def _chunks(rows: int, columns: int) -> Iterator[int]:
    step = max(1, _MAX_CELLS // columns)
    for start in range(0, rows, step):
        yield min(step, rows - start)


def _resampled_counts(size: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Count how often each photo is in each resample: chunks of shape (R, N), `resamples` rows in all."""
    random = np.random.default_rng(seed)
    for rows in _chunks(resamples, size):
        drawn = random.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size).astype(np.float64)
