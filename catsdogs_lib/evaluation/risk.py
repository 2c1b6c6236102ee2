"""When to trust an answer: thresholds from validation photos, and what these prove of later answers."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

from catsdogs_lib.bundle import Certificate, Thresholds
from catsdogs_lib.evaluation.calibration import choose_threshold
from catsdogs_lib.evaluation.metrics import EvaluationError, check

TRUST = 0.95
"""Probability with which a certified level holds, over the draw of the validation labels."""
LEVELS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Shares of wrong answers that may be certified."""
FIRST = 0.8
"""Part of 1 - `TRUST` that is spent on the tightest level; the rest is for the next, should that fail."""
UNFAMILIAR = 0.01
"""Chance that a photo like the validation photos is called unfamiliar, at most."""


def choose_thresholds(
    probabilities: ArrayLike, labels: ArrayLike, unfamiliarity: ArrayLike
) -> tuple[Thresholds, Certificate]:
    """Choose when an answer counts as confident, and say what the validation photos prove of such answers.

    A photo is familiar up to the conformal quantile of the validation photos' unfamiliarity (Vovk et al., 2005): a
    photo of the same world exceeds it with a chance of at most `UNFAMILIAR`, or 1 / (N + 1) where N is too small.

    Of the familiar photos the k most confident are confident ones. Whether a wrong answer among such is rarer than a
    level is tested for k, k + 1, ... until a test fails (Learn then Test with fixed-sequence testing: Angelopoulos et
    al., 2021): no test is corrected for the others, since each is only made when all before have been passed. The
    first k is the smallest for which no wrong answer at all would do. The p-value is the binomial probability of so
    few wrong answers at that level; given the confidences the labels are independent, and it is valid though each
    photo has a risk of its own (Hoeffding, 1956). The tightest level that N photos can certify is tried, then the
    next one, with `FIRST` and the rest of the failure probability.

    Parameters
    ----------
    probabilities
        float, shape (N, C), calibrated, of photos that the model was not trained on.
    labels
        int, shape (N,), in 0..C-1.
    unfamiliarity
        float, shape (N,), of the same photos.

    Returns
    -------
    Thresholds, Certificate
        Where no level can be certified, the threshold is that of `calibration.choose_threshold`, and the
        certificate's level None.

    Raises
    ------
    EvaluationError
        Shapes or values that cannot be used.
    """
    table, truth = check(probabilities, labels)
    distance = np.asarray(unfamiliarity, dtype=np.float64)
    if distance.shape != truth.shape or not np.isfinite(distance).all():
        raise EvaluationError(f"{len(truth)} photos need as many finite values of unfamiliarity, not {distance.shape}")
    limit, chance = familiar_limit(distance)
    familiar = distance <= limit
    confidence, right = table.max(axis=1).astype(np.float64), table.argmax(axis=1) == truth
    level, threshold = None, choose_threshold(table[familiar], truth[familiar])
    for tried, failure in _levels(int(familiar.sum())):
        found = certify(confidence[familiar], right[familiar], tried, failure)
        if found is not None:
            level, threshold = tried, found
            break
    confident = familiar & (confidence >= threshold)
    certificate = Certificate(
        level=level,
        trust=TRUST,
        photos=len(truth),
        confident=int(confident.sum()),
        wrong=int((confident & ~right).sum()),
        floor=1 - ((1 - TRUST) * FIRST) ** (1 / int(familiar.sum())),
        unfamiliar=chance,
    )
    return Thresholds(confident=threshold, unfamiliar=limit), certificate


def familiar_limit(unfamiliarity: NDArray[np.float64], chance: float = UNFAMILIAR) -> tuple[float, float]:
    """The conformal quantile of N values, and the chance, at most, that another of their kind exceeds it."""
    count = len(unfamiliarity)
    rank = min(count, math.ceil((count + 1) * (1 - chance)))
    return float(np.sort(unfamiliarity)[rank - 1]), max(chance, 1 / (count + 1))


def certify(confidence: NDArray[np.float64], right: NDArray[np.bool_], level: float, failure: float) -> float | None:
    """The lowest confidence from which on answers are certified to be wrong in at most `level` of cases.

    Parameters
    ----------
    confidence
        float64 (N,), in 0..1.
    right
        bool (N,): whether each answer is.
    level, failure
        In 0..1: the share of wrong answers, and the chance to certify it wrongly.

    Returns
    -------
    float or None
        None where not even the most confident pass.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked, wrong = confidence[order], np.cumsum(~right[order])
    # A threshold takes all photos of its confidence: only the last of each tie is a candidate.
    counts = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True]) + 1
    counts = counts[counts >= _fewest(level, failure)]
    passed = binom.cdf(wrong[counts - 1], counts, level) <= failure
    until = len(passed) if passed.all() else int(np.argmin(passed))
    return float(ranked[counts[until - 1] - 1]) if until else None


def _fewest(level: float, failure: float) -> int:
    """How many photos without a wrong answer certify a level: the least n with (1 - level)^n <= failure."""
    return math.ceil(math.log(failure) / math.log1p(-level))


def _levels(count: int) -> list[tuple[float, float]]:
    """The levels to try on `count` photos, each with its failure probability."""
    first, rest = (1 - TRUST) * FIRST, (1 - TRUST) * (1 - FIRST)
    within = [level for level in LEVELS if _fewest(level, first) <= count]
    return list(zip(within[:2], (first, rest), strict=False))


def certificate_sentence(proof: Certificate) -> str:
    """Say for people what a certificate proves, and what it could at best."""
    proven = (
        "no share of wrong answers among confident ones could be certified"
        if proof.level is None
        else f"of confident answers at most {proof.level:.1%} are wrong, certified with {proof.trust:.0%} trust"
    )
    return (
        f"{proven}: of {proof.photos} validation photos {proof.confident} are answered confidently, {proof.wrong} of "
        f"them wrongly; so many photos could certify {proof.floor:.2%} at best"
    )
