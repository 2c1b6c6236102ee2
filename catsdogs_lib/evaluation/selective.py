"""When to trust an answer: thresholds from validation photos, and what these prove of later answers."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

from catsdogs_lib.evaluation.metrics import EvaluationError, check_answers
from catsdogs_lib.inference.bundle import RiskBound, Thresholds

CONFIDENCE_LEVEL = 0.95
"""Probability with which a certified level holds, over the draw of the validation photos."""
LEVELS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Shares of wrong answers among confident ones that are aimed at: the tightest that leaves enough of them."""
MIN_CONFIDENT_SHARE = 0.5
"""Share of the validation photos that confident answers must make up."""
UNFAMILIAR = 0.01
"""Chance that a photo like the validation photos is called unfamiliar, at most."""


def choose_thresholds(
    probabilities: ArrayLike, labels: ArrayLike, unfamiliarity: ArrayLike
) -> tuple[Thresholds, RiskBound]:
    """Choose when an answer counts as confident, and say what the validation photos prove of such answers.

    A photo is familiar up to the conformal quantile of the validation photos' unfamiliarity (Vovk et al., 2005): a
    photo of the same world exceeds it with a chance of at most `UNFAMILIAR`, or 1 / (N + 1) where N is too small.

    Of the familiar photos those count as confident whose mean probability of being wrong, as the calibrated model
    itself says, is within the tightest of `LEVELS` that leaves `MIN_CONFIDENT_SHARE` of them. So the labels choose
    nothing here but the one temperature, and counting wrong answers afterwards is an honest test: the exact upper
    bound of their share (Clopper and Pearson, 1934) holds with probability `CONFIDENCE_LEVEL`, also when each photo
    has a risk of its own (Hoeffding, 1956). A threshold at the first wrong validation answer would be tighter on
    paper, and hang on a single photo.

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
        Shapes or values that cannot be used.
    """
    table, truth = check_answers(probabilities, labels)
    distance = np.asarray(unfamiliarity, dtype=np.float64)
    if distance.shape != truth.shape or not np.isfinite(distance).all():
        raise EvaluationError(f"{len(truth)} photos need as many finite values of unfamiliarity, not {distance.shape}")
    limit, chance = familiar_limit(distance)
    familiar = distance <= limit
    confidence, right = table.max(axis=1).astype(np.float64), table.argmax(axis=1) == truth
    aim, threshold = confident_from(confidence[familiar])
    confident = familiar & (confidence >= threshold)
    certificate = RiskBound(
        aim=aim,
        level=upper_bound(int((confident & ~right).sum()), int(confident.sum())),
        trust=CONFIDENCE_LEVEL,
        photos=len(truth),
        confident=int(confident.sum()),
        wrong=int((confident & ~right).sum()),
        floor=upper_bound(0, len(truth)),
        unfamiliar=chance,
    )
    return Thresholds(confident=threshold, unfamiliar=limit), certificate


def familiar_limit(unfamiliarity: NDArray[np.float64], chance: float = UNFAMILIAR) -> tuple[float, float]:
    """The conformal quantile of N values, and the chance, at most, that another of their kind exceeds it."""
    count = len(unfamiliarity)
    rank = min(count, math.ceil((count + 1) * (1 - chance)))
    return float(np.sort(unfamiliarity)[rank - 1]), max(chance, 1 / (count + 1))


def confident_from(confidence: NDArray[np.float64]) -> tuple[float, float]:
    """The level that is aimed at, and the confidence from which on answers are expected to keep it.

    Parameters
    ----------
    confidence
        float64 (N,), calibrated top probabilities in 0..1, N at least 1.

    Returns
    -------
    level, threshold
        Where no level leaves enough answers, the loosest, and whatever confidence keeps it, or the highest there is.
    """
    ranked = np.sort(confidence)[::-1]
    expected = np.cumsum(1 - ranked) / np.arange(1, len(ranked) + 1)
    # A threshold takes all photos of its confidence: only the last of each tie is a candidate.
    last = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
    for level in LEVELS:
        # Rising, since each next answer is less certain than those before it.
        kept = last[expected[last] <= level]
        if kept.size and kept[-1] + 1 >= MIN_CONFIDENT_SHARE * len(ranked):
            break
    return level, float(ranked[kept[-1] if kept.size else 0])


def upper_bound(wrong: int, photos: int, trust: float = CONFIDENCE_LEVEL) -> float:
    """Exact one-sided bound of the share behind `wrong` of `photos` (Clopper and Pearson, 1934), 0..1."""
    return 1.0 if wrong >= photos else float(beta.ppf(trust, wrong + 1, photos - wrong))


def risk_bound_sentence(proof: RiskBound) -> str:
    """Say for people what a certificate proves, and what it could at best."""
    return (
        f"of confident answers at most {proof.level:.2%} are wrong, with {proof.trust:.0%} trust: of {proof.photos} "
        f"validation photos {proof.confident} are answered confidently, {proof.wrong} of them wrongly; so many photos "
        f"could prove {proof.floor:.2%} at best"
    )
