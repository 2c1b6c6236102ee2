"""Selective prediction: thresholds from validation photos, and a bound on the risk of confident answers."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

from catsdogs_lib.evaluation.metrics import EvaluationError, check_answers
from catsdogs_lib.inference.description import RiskBound, Thresholds

CONFIDENCE_LEVEL = 0.95
"""Probability, over the draw of the validation photos, that the risk bound holds."""
TARGET_RISKS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Shares of wrong answers to aim at among confident ones; the tightest with enough coverage is taken."""
MIN_COVERAGE = 0.5
"""Share of the validation photos that must get confident answers."""
MAX_FALSE_UNFAMILIAR = 0.01
"""Probability, at most, that an in-distribution photo is flagged as unfamiliar."""


def choose_thresholds(
    probabilities: ArrayLike, labels: ArrayLike, unfamiliarity: ArrayLike
) -> tuple[Thresholds, RiskBound]:
    """Choose the thresholds of confident answers, and bound the risk of such answers.

    A photo is familiar up to the conformal quantile of the validation photos' unfamiliarity (Vovk et al., 2005): an
    in-distribution photo exceeds it with probability at most `MAX_FALSE_UNFAMILIAR`, or 1 / (N + 1) if N is too small.

    Among familiar photos, the confidence threshold is the lowest at which the mean probability of a wrong answer, as
    the calibrated model states it, stays within the tightest of `TARGET_RISKS` with a coverage of `MIN_COVERAGE`. The
    labels choose nothing here but the one temperature, so counting wrong answers afterwards is an honest test: the
    exact upper bound of their share (Clopper and Pearson, 1934) holds with probability `CONFIDENCE_LEVEL`, even if
    each photo has its own risk (Hoeffding, 1956). A threshold at the first wrong validation answer would be tighter
    on paper, but depend on a single photo.

    Parameters
    ----------
    probabilities
        float, shape (N, C), calibrated, of photos that the model was not trained on.
    labels
        int, shape (N,), in 0..C-1.
    unfamiliarity
        float, shape (N,), of the same photos.

    Raises
    ------
    EvaluationError
        Shapes do not match, or values are not finite.
    """
    table, truth = check_answers(probabilities, labels)
    distance = np.asarray(unfamiliarity, dtype=np.float64)
    if distance.shape != truth.shape or not np.isfinite(distance).all():
        raise EvaluationError(f"{len(truth)} photos need as many finite values of unfamiliarity, not {distance.shape}")
    limit, chance = familiar_limit(distance)
    familiar = distance <= limit
    confidence = table.max(axis=1).astype(np.float64)
    aim, threshold = confident_from(confidence[familiar])
    confident = familiar & (confidence >= threshold)
    wrong = int((confident & (table.argmax(axis=1) != truth)).sum())
    risk_bound = RiskBound(
        aim=aim,
        level=upper_bound(wrong, int(confident.sum())),
        trust=CONFIDENCE_LEVEL,
        photos=len(truth),
        confident=int(confident.sum()),
        wrong=wrong,
        floor=upper_bound(0, len(truth)),
        unfamiliar=chance,
    )
    return Thresholds(confident=threshold, unfamiliar=limit), risk_bound


def familiar_limit(unfamiliarity: NDArray[np.float64], chance: float = MAX_FALSE_UNFAMILIAR) -> tuple[float, float]:
    """Compute the conformal quantile of N values, and the probability, at most, that another one exceeds it."""
    count = len(unfamiliarity)
    rank = min(count, math.ceil((count + 1) * (1 - chance)))
    return float(np.sort(unfamiliarity)[rank - 1]), max(chance, 1 / (count + 1))


def confident_from(confidence: NDArray[np.float64]) -> tuple[float, float]:
    """Choose a target risk, and the confidence from which answers are expected to keep it.

    Parameters
    ----------
    confidence
        float64 (N,), calibrated top probabilities in 0..1, N at least 1.

    Returns
    -------
    level, threshold
        If no target leaves enough answers: the loosest, and the confidence that keeps it, or the highest there is.
    """
    ranked = np.sort(confidence)[::-1]
    expected = np.cumsum(1 - ranked) / np.arange(1, len(ranked) + 1)
    # Photos of equal confidence are all in or all out: only the last of each tie is a candidate.
    last = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
    for level in TARGET_RISKS:
        # Expected risk rises along the ranking.
        kept = last[expected[last] <= level]
        if kept.size and kept[-1] + 1 >= MIN_COVERAGE * len(ranked):
            break
    return level, float(ranked[kept[-1] if kept.size else 0])


def upper_bound(wrong: int, photos: int, trust: float = CONFIDENCE_LEVEL) -> float:
    """Compute the exact one-sided bound of the share behind `wrong` of `photos` (Clopper and Pearson, 1934), 0..1."""
    return 1.0 if wrong >= photos else float(beta.ppf(trust, wrong + 1, photos - wrong))


def risk_bound_sentence(bound: RiskBound) -> str:
    """Describe a risk bound, and the best one that so many photos could prove."""
    return (
        f"of confident answers at most {bound.level:.2%} are wrong, with {bound.trust:.0%} trust: of {bound.photos} "
        f"validation photos {bound.confident} are answered confidently, {bound.wrong} of them wrongly; so many photos "
        f"could prove {bound.floor:.2%} at best"
    )
