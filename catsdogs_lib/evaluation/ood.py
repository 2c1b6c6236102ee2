"""Scores that should be high for photos of other things, side by side on one model.

The graph carries one of them (`PROTOTYPES`); the table says whether it is still the one to carry for these classes and
this network. Every threshold is the conformal quantile of validation photos, so each score may call as many familiar
photos unfamiliar as any other.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy.special import logsumexp, softmax
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from catsdogs_lib.data.synthetic.out_of_distribution import FAMILIES, OtherPicture, draw_others
from catsdogs_lib.data.synthetic.render import KINDS, draw
from catsdogs_lib.evaluation.metrics import EvaluationError
from catsdogs_lib.evaluation.selective import familiar_limit
from catsdogs_lib.training.checkpoint import TrainedModel

Features = NDArray[np.float32]
Score = Callable[[Features], NDArray[np.float64]]

PROTOTYPES = "nearest prototype"
NEIGHBOURS = 5
OWN_SHARE = 1 / 500
"""An ImageNet class is one of ours when it is the first answer for this share of our train photos."""


@dataclass(frozen=True)
class KnownFeatures:
    """What scores may learn from: train photos, and pictures that are known to be of other things.

    Attributes
    ----------
    features, labels
        float32 (N, F) and int64 (N,), of train photos.
    others
        float32 (M, F), of drawn pictures, for outlier exposure; none of them may be among what is judged.
    imagenet
        Weight (1000, F) and bias (1000,) of the backbone's own classifier; None where it has none.
    """

    features: Features
    labels: NDArray[np.int64]
    others: Features
    imagenet: tuple[Features, Features] | None = None


def scores(trained: TrainedModel, known: KnownFeatures) -> dict[str, Score]:
    """Build the scores by name; each maps features (N, F) to N numbers, higher for less familiar photos."""

    def logits(features: Features) -> NDArray[np.float64]:
        return trained.logits(features).astype(np.float64)

    found: dict[str, Score] = {
        # Hendrycks and Gimpel, 2017, "A baseline for detecting misclassified and out-of-distribution examples".
        "maximum softmax": lambda features: -softmax(logits(features), axis=1).max(axis=1),
        # Liu et al., 2020, "Energy-based out-of-distribution detection".
        "energy": lambda features: -logsumexp(logits(features), axis=1),
        "Mahalanobis": _mahalanobis(known),
        "nearest neighbours": _neighbours(known),
        PROTOTYPES: lambda features: trained.unfamiliarity(features).astype(np.float64),
        "outlier exposure": _exposure(known),
    }
    if known.imagenet is not None:
        found["mass on ImageNet's classes"] = _mass(known, known.imagenet)
    return found


def _mahalanobis(known: KnownFeatures) -> Score:
    """Distance to the nearest class mean under one covariance, shrunk as Ledoit and Wolf (Lee et al., 2018)."""
    means = np.stack([known.features[known.labels == label].mean(axis=0) for label in np.unique(known.labels)])
    covariance = LedoitWolf(assume_centered=True).fit(known.features - means[known.labels])
    return lambda features: np.min([covariance.mahalanobis(features - mean) for mean in means], axis=0)


def _neighbours(known: KnownFeatures) -> Score:
    """Cosine distance to the fifth nearest of all train photos (Sun et al., 2022)."""
    neighbours = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(known.features))).fit(normalize(known.features))
    return lambda features: neighbours.kneighbors(normalize(features))[0][:, -1] ** 2 / 2


def _exposure(known: KnownFeatures) -> Score:
    """Log odds of being one of the drawn pictures (Hendrycks et al., 2019, on frozen features)."""
    both = np.concatenate([known.features, known.others])
    other = np.r_[np.zeros(len(known.features)), np.ones(len(known.others))]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000)).fit(both, other)
    return lambda features: np.asarray(model.decision_function(features), dtype=np.float64)


def _mass(known: KnownFeatures, imagenet: tuple[Features, Features]) -> Score:
    """Log odds, by the backbone's own classifier, that the photo is of a class that no train photo looks like."""
    weight, bias = (part.astype(np.float64) for part in imagenet)
    first = (known.features @ weight.T + bias).argmax(axis=1)
    own = np.bincount(first, minlength=len(bias)) >= OWN_SHARE * len(first)

    def score(features: Features) -> NDArray[np.float64]:
        answers = features @ weight.T + bias
        return np.asarray(logsumexp(answers[:, ~own], axis=1) - logsumexp(answers[:, own], axis=1))

    return score


def comparison(
    scores: Mapping[str, Score], validation: Features, test: Features, others: Mapping[str, Features]
) -> pd.DataFrame:
    """Which share of familiar and of other photos each score calls unfamiliar.

    Parameters
    ----------
    scores
        From `scores`.
    validation, test
        float32 (N, F): of the model's own world, to set each threshold, and to measure it.
    others
        Of each other material, float32 (M, F).

    Returns
    -------
    DataFrame
        A row a score, the best first: ``test`` and each name of `others` hold shares flagged (0..1); ``others`` that
        of all together, each material weighing the same; ``auc`` (0..1) the area under the ROC curve of test photos
        against all others.

    Raises
    ------
    EvaluationError
        There is nothing to compare on.
    """
    if not others or any(len(part) == 0 for part in others.values()):
        raise EvaluationError("there are no pictures of other things to compare scores on")
    rows = []
    for name, score in scores.items():
        limit, _ = familiar_limit(score(validation))
        familiar, foreign = score(test), {material: score(part) for material, part in others.items()}
        flagged = {material: float((part > limit).mean()) for material, part in foreign.items()}
        truth = np.r_[np.zeros(len(familiar)), np.ones(sum(len(part) for part in foreign.values()))]
        rows.append(
            {
                "score": name,
                "test": float((familiar > limit).mean()),
                "others": float(np.mean(list(flagged.values()))),
                "auc": float(roc_auc_score(truth, np.concatenate([familiar, *foreign.values()]))),
                **flagged,
            }
        )
    return pd.DataFrame(rows).set_index("score").sort_values(["others", "auc"], ascending=False)


def drawn_others(classes: Sequence[str], each: int = 12, seed: int = 1) -> dict[str, list[bytes]]:
    """Pictures of other things by material, as PNG: animals that are none of `classes`, and every family of strangers.

    A class counts as drawn where its name begins like a kind that the library draws (``cats``, ``cat``).
    """
    kinds = [kind for kind in KINDS if any(name.lower().startswith(kind) for name in classes)]
    found: dict[str, list[bytes]] = {}
    for kind in sorted(set(KINDS) - set(kinds)):
        found[f"drawn {kind}s"] = [_png(draw(kind, 5000 + number)) for number in range(each)]
    for stranger in draw_others(each * len(FAMILIES), seed):
        found.setdefault(stranger.family, []).append(_png(stranger.picture))
    return found


def exposed(each: int = 20, seed: int = 0) -> list[bytes]:
    """Pictures for outlier exposure: of every second family of strangers, none of them in `drawn_others`."""
    half = FAMILIES[::2]
    return as_png([one for one in draw_others(each * len(FAMILIES), seed) if one.family in half])


def as_png(drawn: Sequence[OtherPicture]) -> list[bytes]:
    """Strangers as files."""
    return [_png(one.picture) for one in drawn]


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
