"""Temperature scaling: calibrated probabilities from logits."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from catsdogs_lib.evaluation.metrics import EvaluationError, check_answers

TEMPERATURES = (0.05, 20.0)
"""Range of the search."""
PRIOR_WIDTH = 1.0
"""Standard deviation of the prior on log T: a factor of e either way costs half a nat in all."""


def softmax(logits: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """Compute the softmax of `logits` / `temperature` over the last axis: float64 of the same shape.

    Raises
    ------
    EvaluationError
        The temperature is not above 0, or a logit is not finite.
    """
    scores = np.asarray(logits, dtype=np.float64)
    if not temperature > 0:
        raise EvaluationError(f"the temperature is {temperature}; it must be above 0")
    if not np.isfinite(scores).all():
        raise EvaluationError("a logit is not a finite number; the model that gave it is broken")
    # Subtract before dividing: a small temperature must not overflow.
    return np.asarray(special.softmax((scores - scores.max(axis=-1, keepdims=True)) / temperature, axis=-1))


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Find the temperature T for which `softmax(logits, T)` fits validation labels best.

    Temperature scaling (Guo et al., 2017, "On calibration of modern neural networks"): the T that
    minimises the negative log likelihood, which never changes an answer. If every validation photo is
    right, the likelihood keeps growing as T falls, so a log-normal prior around T = 1 of width `PRIOR_WIDTH`
    is added. It weighs less than one wrong photo, so it only decides where the photos do not.

    Parameters
    ----------
    logits
        float, shape (N, C), of photos that the model was not trained on.
    labels
        int, shape (N,), in 0..C-1.

    Returns
    -------
    float
        T > 0, within `TEMPERATURES`; above 1 for an overconfident model.

    Raises
    ------
    EvaluationError
        Shapes do not match, or values are not finite.
    """
    scores = np.asarray(logits, dtype=np.float64)
    _, truth = check_answers(softmax(scores) if scores.ndim == 2 and scores.size else scores, labels)
    scores = scores - scores.max(axis=1, keepdims=True)
    of_truth = scores[np.arange(len(truth)), truth]

    def cost(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        nll = np.log(np.exp(scores * inverse).sum(axis=1)) - of_truth * inverse
        return float(nll.sum() + (log_temperature / PRIOR_WIDTH) ** 2 / 2)

    minimum = optimize.minimize_scalar(cost, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(minimum.x))
