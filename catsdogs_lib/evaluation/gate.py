"""Whether a new model may take the champion's place."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from catsdogs_lib.evaluation.calibration import fit_temperature, softmax
from catsdogs_lib.evaluation.metrics import EvaluationError, check_answers, photo_losses, wilson
from catsdogs_lib.evaluation.robustness import BehaviourReport
from catsdogs_lib.evaluation.slices import holm, slice_masks

REFUSAL = 0.05
"""Chance, at most, that a check of figures refuses a candidate that is as good as the champion."""
MAX_LATENCY_RATIO, MAX_SIZE_RATIO = 2.0, 2.0
"""So many times the champion's latency and bytes a candidate may have."""
EASY_PROBABILITY = 0.99
"""Photos that the champion answers rightly with this probability are easy: their answers must not be lost."""
MAX_EASY_LOST = 0.01
"""Share of easy photos that a candidate may answer wrongly."""
MARGIN, MIN_MARGIN = 0.4, 0.005
"""A log loss that looks worse must surely lie within this share of the champion's, or within so many nats."""
MAX_FLAGGED_DROP = 0.05
"""By so much the share of strangers that are called unfamiliar may fall."""
MIN_PHOTOS = 15
"""Photos that neither has learned from; fewer decide nothing."""
RESAMPLES = 4000


@dataclass(frozen=True)
class GateCheck:
    """One thing that was compared.

    `candidate` and `champion` are figures in `unit`; `sentence` says why a check failed, and is empty where it passed.
    """

    name: str
    candidate: float
    champion: float | None
    unit: str
    sentence: str = ""

    @property
    def passed(self) -> bool:
        """Whether the candidate is not worse here."""
        return not self.sentence


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, and why: `checks` in the order they were made, `sentence` for people."""

    promoted: bool
    checks: tuple[GateCheck, ...]
    sentence: str


def judge(
    candidate: BehaviourReport,
    labels: ArrayLike,
    rows: pd.DataFrame,
    champion: BehaviourReport | None = None,
    slower: float | None = None,
    why_none: str = "there is no champion yet",
) -> Verdict:
    """Promote a candidate that is not worse than the champion in anything that is checked.

    Wrong answers, over all, by slice and on changed photos: exact McNemar test of the pairs, one-sided. Log loss is
    split (Bröcker, 2009): what is left at the best temperature says how well the classes are told apart, what that
    temperature saves is the cost of bad calibration; each is held against the champion's by a paired bootstrap. What
    looks worse must be shown to be worse by at most `MARGIN` of the champion's: few photos prove nothing. Figures
    that are many of one kind share `REFUSAL` by Holm's correction.

    Parameters
    ----------
    candidate, champion
        Answers to the same photos in the same order, none of which either has learned from; None: no champion.
    labels
        int, shape (N,), in 0..C-1.
    rows
        Of the manifest, one a photo, for the slices.
    slower
        Latency of the candidate by that of the champion.
    why_none
        Completes the sentence where there is no champion.

    Raises
    ------
    EvaluationError
        The two answered different photos or classes, too few, or see `metrics.check_answers`.
    """
    table, truth = check_answers(candidate.probabilities, labels)
    if champion is None:
        checks = tuple(_alone(candidate, table, truth))
        return _verdict(checks, f"{why_none}", len(truth))
    if champion.probabilities.shape != candidate.probabilities.shape:
        raise EvaluationError(
            f"the candidate's probabilities have shape {candidate.probabilities.shape}, the champion's "
            f"{champion.probabilities.shape}; let both answer the same photos"
        )
    if len(truth) < MIN_PHOTOS:
        raise EvaluationError(
            f"only {len(truth)} photos are left that neither model has learned from, "
            f"{MIN_PHOTOS} are needed; add photos"
        )
    checks = (
        *_figures(candidate, champion, truth),
        *_slices(candidate, champion, truth, rows),
        *_changed(candidate, champion, truth),
        *_functions(candidate, champion, truth),
        *_costs(candidate, champion, slower),
    )
    return _verdict(checks, "it is not worse than the champion in any check", len(truth))


def _verdict(checks: tuple[GateCheck, ...], why: str, photos: int) -> Verdict:
    failed = [one for one in checks if not one.passed]
    if failed:
        return Verdict(False, checks, f"Not promoted: {'; '.join(one.sentence for one in failed)} ({photos} photos).")
    return Verdict(True, checks, f"Promoted: {why} ({len(checks)} checks, {photos} photos).")


def _alone(candidate: BehaviourReport, table: NDArray[np.floating], truth: NDArray[np.int64]) -> Iterator[GateCheck]:
    """What a first model must do."""
    right, classes = int((table.argmax(axis=1) == truth).sum()), table.shape[1]
    accuracy = wilson(right, len(truth))
    guess = accuracy.low <= 1 / classes
    yield GateCheck("accuracy", accuracy.value, None, "", "it is not surely better than guessing" if guess else "")
    yield _direction(candidate, None, truth)


def _wrong(examined: BehaviourReport, truth: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray(examined.probabilities.argmax(axis=1) != truth)


def _said(p_value: float) -> str:
    return f"p = {p_value:.3f}" if p_value >= 0.001 else "p < 0.001"


def _mcnemar(candidate_wrong: NDArray[np.bool_], champion_wrong: NDArray[np.bool_]) -> float:
    """Probability, if both are as good, of so many more photos that the candidate alone gets wrong (McNemar, 1947)."""
    worse, better = int((candidate_wrong & ~champion_wrong).sum()), int((champion_wrong & ~candidate_wrong).sum())
    return float(binomtest(worse, worse + better, 0.5, "greater").pvalue) if worse + better else 1.0


def _means(difference: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """Means of the bootstrap's resamples of paired differences."""
    rng = np.random.default_rng(seed)
    return np.array([difference[rng.integers(0, len(difference), len(difference))].mean() for _ in range(RESAMPLES)])


def _split_losses(
    examined: BehaviourReport, truth: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Losses of each photo in nats: as answered, at the best temperature, and what that saves."""
    logits = np.log(np.clip(examined.probabilities.astype(np.float64), 1e-12, 1))
    best = photo_losses(softmax(logits, fit_temperature(logits, truth)), truth)
    whole = photo_losses(softmax(logits), truth)
    return whole, best, whole - best


def _figures(candidate: BehaviourReport, champion: BehaviourReport, truth: NDArray[np.int64]) -> Iterator[GateCheck]:
    wrong, bar = _wrong(candidate, truth), _wrong(champion, truth)
    found, held = 1 - float(wrong.mean()), 1 - float(bar.mean())
    p_value = _mcnemar(wrong, bar)
    said = f"accuracy {found:.4f} is worse than the champion's {held:.4f} (McNemar, {_said(p_value)})"
    yield GateCheck("accuracy", found, held, "", said if p_value < REFUSAL else "")
    (ours, ours_best, ours_cost), (theirs, theirs_best, theirs_cost) = (
        _split_losses(one, truth) for one in (candidate, champion)
    )
    # The whole is judged by its parts, so that the reason is named once.
    yield GateCheck("log loss", float(ours.mean()), float(theirs.mean()), "nats")
    allowed = max(MARGIN * float(theirs.mean()), MIN_MARGIN)
    yield _loss("log loss at its best temperature", ours_best, theirs_best, allowed)
    yield _loss("cost of bad calibration", ours_cost, theirs_cost, allowed)


def _loss(name: str, ours: NDArray[np.float64], theirs: NDArray[np.float64], allowed: float) -> GateCheck:
    """Refuse what is surely worse, and what looks worse and may be worse by more than is allowed, for all one knows."""
    found, held = float(ours.mean()), float(theirs.mean())
    means = _means(ours - theirs)
    least, most = np.quantile(means, [REFUSAL, 1 - REFUSAL])
    said = ""
    if least > 1e-9:
        said = f"{name} {found:.4f} is worse than the champion's {held:.4f}"
    elif found > held and most > allowed:
        said = (
            f"{name} {found:.4f} looks worse than the champion's {held:.4f}, and may be worse by {most:.4f}, "
            f"where {allowed:.4f} is allowed"
        )
    return GateCheck(name, found, held, "nats", said)


def _family(
    pairs: dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]], kind: str
) -> Iterator[GateCheck]:  # pairs of (candidate wrong, champion wrong)
    corrected = holm([_mcnemar(*pair) for pair in pairs.values()])
    for (name, (wrong, bar)), p_value in zip(pairs.items(), corrected, strict=True):
        found, held = 1 - float(wrong.mean()), 1 - float(bar.mean())
        said = f"accuracy {found:.4f} on {kind} '{name}' is worse than the champion's {held:.4f} ({_said(p_value)})"
        yield GateCheck(f"{kind}: {name}", found, held, "", said if p_value < REFUSAL else "")


def _slices(
    candidate: BehaviourReport, champion: BehaviourReport, truth: NDArray[np.int64], rows: pd.DataFrame
) -> Iterator[GateCheck]:
    wrong, bar = _wrong(candidate, truth), _wrong(champion, truth)
    masks = slice_masks(rows)
    yield from _family({name: (wrong[inside], bar[inside]) for name, inside in masks.items()}, "slice")


def _changed(candidate: BehaviourReport, champion: BehaviourReport, truth: NDArray[np.int64]) -> Iterator[GateCheck]:
    those = truth[candidate.chosen]
    pairs = {
        name: (ours.argmax(axis=1) != those, champion.changed[name].argmax(axis=1) != those)
        for name, ours in candidate.changed.items()
    }
    yield from _family(pairs, "photos")


def _functions(candidate: BehaviourReport, champion: BehaviourReport, truth: NDArray[np.int64]) -> Iterator[GateCheck]:
    sure = (champion.probabilities.max(axis=1) >= EASY_PROBABILITY) & ~_wrong(champion, truth)
    lost = float(_wrong(candidate, truth)[sure].mean()) if sure.any() else 0.0
    said = f"{lost:.1%} of the photos that are easy for the champion are answered wrongly, {MAX_EASY_LOST:.0%} may be"
    yield GateCheck("easy photos answered rightly", 1 - lost, 1.0, "", said if lost > MAX_EASY_LOST else "")
    yield _direction(candidate, champion, truth)
    found, held = float(candidate.flagged.mean()), float(champion.flagged.mean())
    said = f"{found:.1%} of drawn strangers are called unfamiliar, the champion flags {held:.1%}"
    yield GateCheck("strangers flagged", found, held, "", said if found < held - MAX_FLAGGED_DROP else "")


def _direction(candidate: BehaviourReport, champion: BehaviourReport | None, truth: NDArray[np.int64]) -> GateCheck:
    def fall(examined: BehaviourReport) -> float:
        those = truth[examined.chosen], np.arange(len(examined.chosen))
        plain = examined.probabilities[examined.chosen][those[1], those[0]]
        return float((plain - examined.blurred[those[1], those[0]]).mean())

    found = fall(candidate)
    said = "confidence in the truth does not fall where next to nothing is left of the photo"
    held = fall(champion) if champion is not None else None
    return GateCheck("fall of confidence when blurred", found, held, "", said if found <= 0 else "")


def _costs(candidate: BehaviourReport, champion: BehaviourReport, slower: float | None) -> Iterator[GateCheck]:
    if slower is not None:
        said = f"it takes {slower:.2f} times the champion's time, {MAX_LATENCY_RATIO:g} times is allowed"
        yield GateCheck("latency by the champion's", slower, 1.0, "times", said if slower > MAX_LATENCY_RATIO else "")
    ratio = candidate.megabytes / champion.megabytes
    said = f"the graph is {ratio:.2f} times as large as the champion's, {MAX_SIZE_RATIO:g} times is allowed"
    yield GateCheck(
        "size of the graph", candidate.megabytes, champion.megabytes, "MB", said if ratio > MAX_SIZE_RATIO else ""
    )
