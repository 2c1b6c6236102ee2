"""Whether a new model may take the champion's place."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from catsdogs_lib.evaluation.metrics import EvaluationError, photo_losses


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, and why.

    Parameters
    ----------
    promoted
        The candidate may become champion.
    candidate_log_loss, champion_log_loss
        In nats, on the same photos; None where there is no champion.
    sentence
        The decision for people.
    """

    promoted: bool
    candidate_log_loss: float
    champion_log_loss: float | None
    sentence: str


def judge(candidate_probabilities: ArrayLike, labels: ArrayLike, champion_probabilities: ArrayLike | None) -> Verdict:
    """Promote the candidate when its log loss is not worse than the champion's on the same photos.

    Parameters
    ----------
    candidate_probabilities
        float, shape (N, C).
    labels
        int, shape (N,), in 0..C-1.
    champion_probabilities
        float, shape (N, C), of the same photos in the same order; None: there is no champion yet.

    Raises
    ------
    EvaluationError
        The two answered different photos or classes, or see `metrics.check`.
    """
    # One dtype for both: the clipping of the log loss depends on it.
    candidate = np.asarray(candidate_probabilities, dtype=np.float32)
    loss = float(photo_losses(candidate, labels).mean())
    photos = f"{len(candidate)} photo{'s' if len(candidate) != 1 else ''}"
    if champion_probabilities is None:
        return Verdict(True, loss, None, f"Promoted: log loss {loss:.4f} on {photos}, and there is no champion yet.")
    champion = np.asarray(champion_probabilities, dtype=np.float32)
    if champion.shape != candidate.shape:
        raise EvaluationError(
            f"the candidate's probabilities have shape {candidate.shape}, the champion's {champion.shape}; "
            "let both answer the same photos"
        )
    bar = float(photo_losses(champion, labels).mean())
    if loss <= bar:
        reason = "equal to" if loss == bar else "better than"
        sentence = f"Promoted: log loss {loss:.4f} is {reason} the champion's {bar:.4f} on the same {photos}."
    else:
        sentence = f"Not promoted: log loss {loss:.4f} is worse than the champion's {bar:.4f} on the same {photos}."
    return Verdict(loss <= bar, loss, bar, sentence)
