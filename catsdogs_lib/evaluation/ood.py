"""Out-of-distribution scores: numbers that should be high for photos of other things, compared on one model.

The exported graph carries one of them, `PROTOTYPES`; the comparison shows whether it is still the best choice for these
classes and this network. Every threshold is the conformal quantile of the validation photos' scores, so all scores flag
the same share of in-distribution photos.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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

from catsdogs_lib.data.synthetic.out_of_distribution import FAMILIES, draw_others
from catsdogs_lib.data.synthetic.render import KINDS, draw
from catsdogs_lib.evaluation.metrics import EvaluationError
from catsdogs_lib.evaluation.selective import familiar_limit
from catsdogs_lib.imaging.decoding import SUFFIXES
from catsdogs_lib.training.checkpoint import TrainedModel
from catsdogs_lib.training.models import imagenet_classifier
from catsdogs_lib.training.trainer import label_indices, photo_paths

Features = NDArray[np.float32]
Score = Callable[[Features], NDArray[np.float64]]

PROTOTYPES = "nearest prototype"
NEIGHBOURS = 5
MIN_CLASS_SHARE = 1 / 500
"""An ImageNet class is in-distribution if it is the top answer for at least this share of the train photos."""
DRAWN_EACH = 12
MAX_KNOWN_PHOTOS = 500
"""Train photos that the scores learn from, about."""
EXPOSED_FAMILIES = FAMILIES[::2]
"""Families of drawn pictures for outlier exposure: half, so that most of what is judged is new to that score, too."""


@dataclass(frozen=True)
class KnownFeatures:
    """Features that scores are fitted on.

    Attributes
    ----------
    features, labels
        float32 (N, F) and int64 (N,), of train photos.
    others
        float32 (M, F), of drawn pictures for outlier exposure, none of which is judged later.
    imagenet
        Weight (1000, F) and bias (1000,) of the backbone's ImageNet classifier; None if it has none.
    """

    features: Features
    labels: NDArray[np.int64]
    others: Features
    imagenet: tuple[Features, Features] | None = None


def known_features(trained: TrainedModel, rows: pd.DataFrame, raw: Path) -> KnownFeatures:
    """Compute the features that scores are fitted on.

    Parameters
    ----------
    trained
        The model.
    rows
        Train photos of the manifest, of which about `MAX_KNOWN_PHOTOS` are taken evenly.
    raw
        Folder that the manifest's paths start from.
    """
    rows = rows.iloc[:: max(1, len(rows) // MAX_KNOWN_PHOTOS)]
    drawn = draw_others(20 * len(FAMILIES), seed=0)
    exposed = [png_bytes(other.picture) for other in drawn if other.family in EXPOSED_FAMILIES]
    return KnownFeatures(
        features=trained.features(photo_paths(rows, raw), what="features of train photos"),
        labels=label_indices(rows, trained.record.classes),
        others=trained.features(exposed, what="features of drawn pictures"),
        imagenet=imagenet_classifier(trained.record.settings.model),
    )


def scores(trained: TrainedModel, known: KnownFeatures) -> dict[str, Score]:
    """Build the scores by name; each maps features (N, F) to N numbers, higher for more unfamiliar photos."""

    def logits(features: Features) -> NDArray[np.float64]:
        return trained.logits(features).astype(np.float64)

    by_name: dict[str, Score] = {
        # Hendrycks and Gimpel, 2017, "A baseline for detecting misclassified and out-of-distribution examples".
        "maximum softmax": lambda features: -softmax(logits(features), axis=1).max(axis=1),
        # Liu et al., 2020, "Energy-based out-of-distribution detection".
        "energy": lambda features: -logsumexp(logits(features), axis=1),
        "Mahalanobis": _mahalanobis(known),
        "nearest neighbours": _nearest_neighbours(known),
        PROTOTYPES: lambda features: trained.unfamiliarity(features).astype(np.float64),
        "outlier exposure": _outlier_exposure(known),
    }
    if known.imagenet is not None:
        by_name["mass on ImageNet's classes"] = _imagenet_mass(known, known.imagenet)
    return by_name


def _mahalanobis(known: KnownFeatures) -> Score:
    """Fit the distance to the nearest class mean under one Ledoit-Wolf covariance (Lee et al., 2018)."""
    means = np.stack([known.features[known.labels == label].mean(axis=0) for label in np.unique(known.labels)])
    covariance = LedoitWolf(assume_centered=True).fit(known.features - means[known.labels])
    return lambda features: np.min([covariance.mahalanobis(features - mean) for mean in means], axis=0)


def _nearest_neighbours(known: KnownFeatures) -> Score:
    """Fit the cosine distance to the fifth nearest train photo (Sun et al., 2022)."""
    neighbours = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(known.features))).fit(normalize(known.features))
    return lambda features: neighbours.kneighbors(normalize(features))[0][:, -1] ** 2 / 2


def _outlier_exposure(known: KnownFeatures) -> Score:
    """Fit the log odds of being a drawn picture (Hendrycks et al., 2019, on frozen features)."""
    features = np.concatenate([known.features, known.others])
    is_other = np.r_[np.zeros(len(known.features)), np.ones(len(known.others))]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000)).fit(features, is_other)
    return lambda features: np.asarray(model.decision_function(features), dtype=np.float64)


def _imagenet_mass(known: KnownFeatures, imagenet: tuple[Features, Features]) -> Score:
    """Fit the log odds, by the backbone's ImageNet classifier, of the classes that no train photo looks like."""
    weight, bias = (part.astype(np.float64) for part in imagenet)
    top = (known.features @ weight.T + bias).argmax(axis=1)
    own = np.bincount(top, minlength=len(bias)) >= MIN_CLASS_SHARE * len(top)

    def score(features: Features) -> NDArray[np.float64]:
        logits = features @ weight.T + bias
        return np.asarray(logsumexp(logits[:, ~own], axis=1) - logsumexp(logits[:, own], axis=1))

    return score


def comparison(
    scores: Mapping[str, Score], validation: Features, test: Features, others: Mapping[str, Features]
) -> pd.DataFrame:
    """Compare the shares of in-distribution and of other photos that each score flags.

    Parameters
    ----------
    scores
        From `scores`.
    validation, test
        float32 (N, F), in-distribution: photos to set each threshold on, and to measure it on.
    others
        float32 (M, F) for each kind of material that is out of distribution.

    Returns
    -------
    DataFrame
        One row for each score, the best first: ``test`` and each name of `others` hold shares flagged (0..1),
        ``others`` their mean over the materials; ``auc`` (0..1) is the area under the ROC curve of test photos against
        all others.

    Raises
    ------
    EvaluationError
        There are no pictures of other things.
    """
    if not others or any(len(part) == 0 for part in others.values()):
        raise EvaluationError("there are no pictures of other things to compare scores on")
    rows = []
    for name, score in scores.items():
        limit, _ = familiar_limit(score(validation))
        inside, outside = score(test), {material: score(part) for material, part in others.items()}
        flagged = {material: float((part > limit).mean()) for material, part in outside.items()}
        is_other = np.r_[np.zeros(len(inside)), np.ones(sum(len(part) for part in outside.values()))]
        rows.append(
            {
                "score": name,
                "test": float((inside > limit).mean()),
                "others": float(np.mean(list(flagged.values()))),
                "auc": float(roc_auc_score(is_other, np.concatenate([inside, *outside.values()]))),
                **flagged,
            }
        )
    return pd.DataFrame(rows).set_index("score").sort_values(["others", "auc"], ascending=False)


def materials(classes: Sequence[str], folder: Path | None = None) -> dict[str, Sequence[Path | bytes]]:
    """Collect out-of-distribution pictures by material: drawn ones as PNG, and the photos of a folder.

    Animals that are none of `classes` are drawn, and every family of other things. A class counts as drawn if its name
    begins like a kind that the library draws (``cats``, ``cat``).
    """
    own = [kind for kind in KINDS if any(name.lower().startswith(kind) for name in classes)]
    pictures: dict[str, list[Path | bytes]] = {
        f"drawn {kind}s": [png_bytes(draw(kind, 5000 + number)) for number in range(DRAWN_EACH)]
        for kind in sorted(set(KINDS) - set(own))
    }
    for other in draw_others(DRAWN_EACH * len(FAMILIES), seed=1):
        pictures.setdefault(other.family, []).append(png_bytes(other.picture))
    if folder is not None:
        pictures[folder.name] = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return {name: files for name, files in pictures.items() if files}


def png_bytes(picture: Image.Image) -> bytes:
    """Encode a picture as PNG."""
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
