"""Promotion gate: a candidate must not be worse than the champion in anything that is checked.

Comparisons read `not a <= b` where NaN must fail.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from catsdogs_lib.evaluation.calibration import fit_temperature, softmax
from catsdogs_lib.evaluation.metrics import EvaluationError, check_answers, check_probabilities, photo_losses, wilson
from catsdogs_lib.evaluation.robustness import BehaviourReport
from catsdogs_lib.evaluation.slices import holm, slice_masks

SIGNIFICANCE = 0.05
"""Probability, at most, that a check refuses a candidate that is as good as the champion."""
MAX_LATENCY_RATIO, MAX_SIZE_RATIO = 2.0, 2.0
"""Latency and size of a candidate, at most, relative to the champion's."""
EASY_PROBABILITY = 0.99
"""Photos that the champion answers rightly with at least this probability are easy."""
MAX_EASY_LOST = 0.01
"""Share of easy photos, at most, that a candidate may answer wrongly."""
LOSS_MARGIN, MIN_LOSS_MARGIN = 0.4, 0.005
"""A log loss that looks worse must be shown to be within this share of the champion's, or within so many nats."""
MAX_FLAGGED_DROP = 0.05
"""The flagged share of pictures of other things may fall by this much."""
MIN_PHOTOS = 15
"""Photos that neither model was trained on; fewer decide nothing."""
RESAMPLES = 4000


@dataclass(frozen=True)
class GateCheck:
    """One comparison of a candidate with the champion.

    `candidate` and `champion` are metrics in `unit`; `sentence` says why the check failed, and is empty if it passed.
    """

    name: str
    candidate: float
    champion: float | None
    unit: str
    sentence: str = ""

    @property
    def passed(self) -> bool:
        """True if the candidate is not worse in this check."""
        return not self.sentence


@dataclass(frozen=True)
class Verdict:
    """A decision of the gate: all checks in their order, and a sentence for people."""

    promoted: bool
    checks: tuple[GateCheck, ...]
    sentence: str

    @classmethod
    def of(cls, checks: tuple[GateCheck, ...], reason: str, photos: int) -> "Verdict":
        """Promote if every check passed; `reason` completes that sentence, `photos` is their number."""
        failures = [check.sentence for check in checks if not check.passed]
        if failures:
            return cls(False, checks, f"Not promoted: {'; '.join(failures)} ({photos} photos).")
        return cls(True, checks, f"Promoted: {reason} ({len(checks)} checks, {photos} photos).")


def judge(
    candidate: BehaviourReport,
    labels: ArrayLike,
    rows: pd.DataFrame,
    champion: BehaviourReport | None = None,
    latency_ratio: float | None = None,
    why_none: str = "there is no champion yet",
) -> Verdict:
    """Promote a candidate that is not worse than the champion in any check.

    Wrong answers in total, by slice and on changed photos: exact McNemar test of the pairs, one-sided. Log loss is
    split (Bröcker, 2009): the loss at the best temperature measures how well the classes are told apart, and what that
    temperature saves is the cost of bad calibration. Each is compared with the champion's by a paired bootstrap; a loss
    that looks worse must be shown to be worse by at most `LOSS_MARGIN` of the champion's, since few photos prove
    nothing. Checks of many slices or changes share `SIGNIFICANCE` by Holm's correction. A number that is not finite
    passes no check.

    Parameters
    ----------
    candidate, champion
        Answers to the same photos in the same order, which neither model was trained on; None: no champion.
    labels
        int, shape (N,), in 0..C-1.
    rows
        Manifest rows of the photos, for the slices.
    latency_ratio
        Latency of the candidate divided by that of the champion.
    why_none
        Completes the sentence if there is no champion.

    Raises
    ------
    EvaluationError
        The two answered different photos or classes, or too few; or see `metrics.check_answers`, for the answers to
        the photos and to their changes.
    """
    table, truth = check_answers(candidate.probabilities, labels)
    _check_report(candidate)
    if champion is None:
        return Verdict.of(tuple(_first_model_checks(candidate, table, truth)), why_none, len(truth))
    if champion.probabilities.shape != candidate.probabilities.shape:
        raise EvaluationError(
            f"the candidate's probabilities have shape {candidate.probabilities.shape}, the champion's "
            f"{champion.probabilities.shape}; let both answer the same photos"
        )
    _check_report(champion)
    if len(truth) < MIN_PHOTOS:
        raise EvaluationError(
            f"only {len(truth)} photos are left that neither model has learned from, "
            f"{MIN_PHOTOS} are needed; add photos"
        )
    checks = (
        *_metric_checks(candidate, champion, truth),
        *_accuracy_checks(candidate, champion, truth, rows),
        *_behaviour_checks(candidate, champion, truth),
        *_cost_checks(candidate, champion, latency_ratio),
    )
    return Verdict.of(checks, "it is not worse than the champion in any check", len(truth))


def _check_report(report: BehaviourReport) -> None:
    for table in (report.probabilities, *report.changed.values(), report.blurred):
        check_probabilities(table)


def _first_model_checks(
    candidate: BehaviourReport, table: NDArray[np.floating], truth: NDArray[np.int64]
) -> Iterator[GateCheck]:
    right, classes = int((table.argmax(axis=1) == truth).sum()), table.shape[1]
    accuracy = wilson(right, len(truth))
    reason = "it is not surely better than guessing" if not accuracy.low > 1 / classes else ""
    yield GateCheck("accuracy", accuracy.value, None, "", reason)
    yield _blur_check(candidate, None, truth)


def _wrong(report: BehaviourReport, truth: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray(report.probabilities.argmax(axis=1) != truth)


def _p_text(p_value: float) -> str:
    return f"p = {p_value:.3f}" if p_value >= 0.001 else "p < 0.001"


def _mcnemar(candidate_wrong: NDArray[np.bool_], champion_wrong: NDArray[np.bool_]) -> float:
    """Test whether the candidate alone gets more photos wrong than the champion alone (McNemar, 1947): p-value."""
    worse, better = int((candidate_wrong & ~champion_wrong).sum()), int((champion_wrong & ~candidate_wrong).sum())
    return float(binomtest(worse, worse + better, 0.5, "greater").pvalue) if worse + better else 1.0


def _bootstrap_means(difference: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return np.array([difference[rng.integers(0, len(difference), len(difference))].mean() for _ in range(RESAMPLES)])


def _split_losses(
    report: BehaviourReport, truth: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Compute the losses of each photo in nats: as answered, at the best temperature, and the difference."""
    logits = np.log(np.clip(report.probabilities.astype(np.float64), 1e-12, 1))
    best = photo_losses(softmax(logits, fit_temperature(logits, truth)), truth)
    answered = photo_losses(softmax(logits), truth)
    return answered, best, answered - best


def _metric_checks(
    candidate: BehaviourReport, champion: BehaviourReport, truth: NDArray[np.int64]
) -> Iterator[GateCheck]:
    ours, theirs = _wrong(candidate, truth), _wrong(champion, truth)
    accuracy, champion_accuracy = 1 - float(ours.mean()), 1 - float(theirs.mean())
    p_value = _mcnemar(ours, theirs)
    reason = (
        f"accuracy {accuracy:.4f} is worse than the champion's {champion_accuracy:.4f} (McNemar, {_p_text(p_value)})"
    )
    yield GateCheck("accuracy", accuracy, champion_accuracy, "", reason if not p_value >= SIGNIFICANCE else "")
    loss, best_loss, calibration_cost = _split_losses(candidate, truth)
    champion_loss, champion_best, champion_cost = _split_losses(champion, truth)
    # The total is judged by its two parts, so that a failure names its cause once.
    yield GateCheck("log loss", float(loss.mean()), float(champion_loss.mean()), "nats")
    margin = max(LOSS_MARGIN * float(champion_loss.mean()), MIN_LOSS_MARGIN)
    yield _loss_check("log loss at its best temperature", best_loss, champion_best, margin)
    yield _loss_check("cost of bad calibration", calibration_cost, champion_cost, margin)


def _loss_check(name: str, ours: NDArray[np.float64], theirs: NDArray[np.float64], margin: float) -> GateCheck:
    """Refuse a loss that is surely worse, or that looks worse and may be worse by more than the margin."""
    loss, champion_loss = float(ours.mean()), float(theirs.mean())
    lowest, highest = np.quantile(_bootstrap_means(ours - theirs), [SIGNIFICANCE, 1 - SIGNIFICANCE])
    reason = ""
    if not lowest <= 1e-9:
        reason = f"{name} {loss:.4f} is worse than the champion's {champion_loss:.4f}"
    elif not (loss <= champion_loss or highest <= margin):
        reason = (
            f"{name} {loss:.4f} looks worse than the champion's {champion_loss:.4f}, and may be worse by "
            f"{highest:.4f}, where {margin:.4f} is allowed"
        )
    return GateCheck(name, loss, champion_loss, "nats", reason)


def _accuracy_checks(
    candidate: BehaviourReport, champion: BehaviourReport, truth: NDArray[np.int64], rows: pd.DataFrame
) -> Iterator[GateCheck]:
    """Compare accuracies on each slice of the photos, and on the photos after each change."""
    ours, theirs = _wrong(candidate, truth), _wrong(champion, truth)
    slices = {name: (ours[mask], theirs[mask]) for name, mask in slice_masks(rows).items()}
    labels = truth[candidate.chosen]
    changed = {
        name: (probabilities.argmax(axis=1) != labels, champion.changed[name].argmax(axis=1) != labels)
        for name, probabilities in candidate.changed.items()
    }
    for kind, wrong in (("slice", slices), ("photos", changed)):
        corrected = holm([_mcnemar(*pair) for pair in wrong.values()])
        for (name, pair), p_value in zip(wrong.items(), corrected, strict=True):
            accuracy, champion_accuracy = (1 - float(errors.mean()) for errors in pair)
            reason = (
                f"accuracy {accuracy:.4f} on {kind} '{name}' is worse than the champion's {champion_accuracy:.4f} "
                f"({_p_text(p_value)})"
            )
            yield GateCheck(
                f"{kind}: {name}", accuracy, champion_accuracy, "", reason if not p_value >= SIGNIFICANCE else ""
            )


def _behaviour_checks(
    candidate: BehaviourReport, champion: BehaviourReport, truth: NDArray[np.int64]
) -> Iterator[GateCheck]:
    easy = (champion.probabilities.max(axis=1) >= EASY_PROBABILITY) & ~_wrong(champion, truth)
    lost = float(_wrong(candidate, truth)[easy].mean()) if easy.any() else 0.0
    reason = f"{lost:.1%} of the photos that are easy for the champion are answered wrongly, {MAX_EASY_LOST:.0%} may be"
    yield GateCheck("easy photos answered rightly", 1 - lost, 1.0, "", reason if not lost <= MAX_EASY_LOST else "")
    yield _blur_check(candidate, champion, truth)
    flagged, champion_flagged = float(candidate.flagged.mean()), float(champion.flagged.mean())
    reason = f"{flagged:.1%} of drawn strangers are called unfamiliar, the champion flags {champion_flagged:.1%}"
    yield GateCheck(
        "strangers flagged",
        flagged,
        champion_flagged,
        "",
        reason if not flagged >= champion_flagged - MAX_FLAGGED_DROP else "",
    )


def _blur_check(candidate: BehaviourReport, champion: BehaviourReport | None, truth: NDArray[np.int64]) -> GateCheck:
    """Require that confidence in the true class falls when a photo is blurred beyond recognition."""

    def confidence_drop(report: BehaviourReport) -> float:
        labels, positions = truth[report.chosen], np.arange(len(report.chosen))
        plain = report.probabilities[report.chosen]
        return float((plain[positions, labels] - report.blurred[positions, labels]).mean())

    drop = confidence_drop(candidate)
    champion_drop = confidence_drop(champion) if champion is not None else None
    reason = "confidence in the truth does not fall where next to nothing is left of the photo"
    return GateCheck("fall of confidence when blurred", drop, champion_drop, "", reason if not drop > 0 else "")


def _cost_checks(
    candidate: BehaviourReport, champion: BehaviourReport, latency_ratio: float | None
) -> Iterator[GateCheck]:
    if latency_ratio is not None:
        reason = f"it takes {latency_ratio:.2f} times the champion's time, {MAX_LATENCY_RATIO:g} times is allowed"
        yield GateCheck(
            "latency by the champion's",
            latency_ratio,
            1.0,
            "times",
            reason if not latency_ratio <= MAX_LATENCY_RATIO else "",
        )
    size_ratio = candidate.megabytes / champion.megabytes
    reason = f"the graph is {size_ratio:.2f} times as large as the champion's, {MAX_SIZE_RATIO:g} times is allowed"
    yield GateCheck(
        "size of the graph",
        candidate.megabytes,
        champion.megabytes,
        "MB",
        reason if not size_ratio <= MAX_SIZE_RATIO else "",
    )
