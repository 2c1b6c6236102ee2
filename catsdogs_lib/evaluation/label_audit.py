"""The dataset doctor: photos that are probably labelled wrongly, hold two classes, are drawings, or fit in nowhere.

It proposes; a person confirms. Everything is judged on the features of a frozen network, by heads that have not seen
the photo: what a head has learned by heart it would defend.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from catsdogs_lib.common.progress import track
from catsdogs_lib.evaluation.metrics import EvaluationError
from catsdogs_lib.imaging import decoding

Features = NDArray[np.float32]
Parts = Callable[[Sequence[Path]], Features]
"""Features of parts of photos: float32 (photos, parts, features)."""

FOLDS = 5
STRENGTH = 0.001
"""Inverse strength of the heads' penalty: weaker ones believe wrong labels (docs/data-doctor.md)."""
NEIGHBOURS = 5
MAX_OUTLIER_SHARE = 0.01
"""Share of the photos that are called outliers, at most: the farthest."""
MIN_OUTLIER_DISTANCE = 4.0
"""An outlier is also this many robust standard deviations (1.48 MAD) from the middle."""
FEW_COLOURS = 0.5
"""Share of the pixels that the four commonest of 4096 colours make up in a drawing, at least."""
PARTS_BELOW_PROBABILITY = 0.95
"""Photos whose label is less probable are looked at in parts."""
MIN_PART_PROBABILITY = 0.9
"""Two parts of a photo name two classes with this probability each: both are there."""
KINDS = ("wrong label", "both", "drawing", "outlier", "doubtful label")
"""What is found, the gravest first."""
COLUMNS = ("path", "sha256", "label", "finding", "score", "reason", "proposal", "action")


@dataclass(frozen=True)
class AuditData:
    """What the doctor looks at, a row each.

    Attributes
    ----------
    paths
        Where they lie.
    names, sha256
        What the report calls them, and what they hold.
    labels
        int64 (N,), positions in `classes`.
    groups
        Near-duplicates share one; they are never on two sides of a fold.
    classes
        Names.
    features
        float32 (N, 2, F): of the photo and of its mirror image.
    """

    paths: Sequence[Path]
    names: Sequence[str]
    sha256: Sequence[str]
    labels: NDArray[np.int64]
    groups: Sequence[str]
    classes: tuple[str, ...]
    features: Features


def _head() -> "LogisticRegression":
    return make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=1000))


def cross_validated(photos: AuditData, seed: int = 0) -> NDArray[np.float64]:
    """Probabilities of each photo by heads that have seen neither it nor a near-duplicate, float64 (N, C).

    Raises
    ------
    EvaluationError
        A class has fewer photos, or groups of them, than there are folds.
    """
    count = len(photos.classes)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    answers = np.zeros((len(photos.labels), count))
    if min(np.bincount(photos.labels, minlength=count)) < FOLDS:
        raise EvaluationError(f"a class has fewer than {FOLDS} photos; add photos before asking the doctor")
    for inside, outside in folds.split(photos.features, photos.labels, list(photos.groups)):
        flat = photos.features[inside].reshape(-1, photos.features.shape[-1])
        head = _head().fit(flat, np.repeat(photos.labels[inside], 2))
        for view in (0, 1):
            answers[np.ix_(outside, head.classes_)] += head.predict_proba(photos.features[outside, view]) / 2
    return answers


def margins(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probability of each label less that of the likeliest other class, -1..1; the lowest are the likeliest errors."""
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = -1
    return np.asarray(probabilities[rows, labels] - others.max(axis=1))


def confident_other(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The class that each photo confidently belongs to instead of its label; -1 where there is none.

    Confident learning (Northcutt et al., 2021, eq. 1-2): a photo counts for class j when its probability of j reaches
    the mean probability of j over the photos labelled j; of several such classes the likeliest counts.
    """
    count = probabilities.shape[1]
    levels = np.array([probabilities[labels == j, j].mean() for j in range(count)])
    reached = np.where(probabilities >= levels, probabilities, -1)
    other = reached.argmax(axis=1)
    return np.where((reached.max(axis=1) < 0) | (other == labels), -1, other)


def neighbour_distance(features: Features) -> NDArray[np.float64]:
    """Cosine distance of each photo (N, F) to its fifth nearest neighbour among the others, float64 (N,)."""
    unit = normalize(features)
    count = min(NEIGHBOURS + 1, len(unit))
    distances = NearestNeighbors(n_neighbors=count).fit(unit).kneighbors(unit)[0][:, -1]
    return np.asarray(distances**2 / 2, dtype=np.float64)


def colour_share(path: Path) -> float:
    """Share of the pixels of a photo's square that its four commonest colours of 16 x 16 x 16 make up, 0..1."""
    square = np.asarray(decoding.centre_square(decoding.read(path, 224), 224)).astype(np.int64) >> 4
    counts = np.bincount((square @ np.array([256, 16, 1])).ravel(), minlength=4096)
    return float(np.sort(counts)[-4:].sum() / counts.sum())


def audit(photos: AuditData, parts: Parts | None = None, seed: int = 0) -> pd.DataFrame:
    """Find what a person should look at.

    Parameters
    ----------
    photos
        What to look at.
    parts
        Gives the features of parts of photos, to look for two classes in one; None leaves that out.
    seed
        Of the folds.

    Returns
    -------
    DataFrame
        With `COLUMNS`, a row a finding, by kind, the most striking first; ``action`` is empty: it is a person's.
        ``score`` is higher for what is more striking within its kind.
    """
    probabilities = cross_validated(photos, seed)
    rows: list[dict[str, object]] = []

    def add(index: int, finding: str, score: float, reason: str, proposal: str) -> None:
        rows.append(
            {
                "path": photos.names[index],
                "sha256": photos.sha256[index],
                "label": photos.classes[photos.labels[index]],
                "finding": finding,
                "score": round(score, 4),
                "reason": reason,
                "proposal": proposal,
                "action": "",
            }
        )

    margin, other = margins(probabilities, photos.labels), confident_other(probabilities, photos.labels)
    distance = neighbour_distance(photos.features[:, 0])
    both = _both(photos, probabilities, parts) if parts is not None else {}
    far = _far(distance)
    drawings = {index: share for index in far if (share := colour_share(photos.paths[index])) >= FEW_COLOURS}
    for index in np.argsort(margin, kind="stable"):
        if margin[index] >= 0:
            break
        if index in both:
            continue
        best = int(probabilities[index].argmax())
        said = f"heads that have not seen it say {photos.classes[best]} with {probabilities[index, best]:.1%}"
        if other[index] >= 0:
            add(int(index), "wrong label", -float(margin[index]), said, f"relabel:{photos.classes[other[index]]}")
        else:
            add(int(index), "doubtful label", -float(margin[index]), f"{said}, less than is usual there", "keep")
    for index, names in both.items():
        add(index, "both", 1 - abs(float(margin[index])), f"one part shows {names[0]}, another {names[1]}", "exclude")
    for index, share in drawings.items():
        add(index, "drawing", share, f"four colours make up {share:.0%} of it, and few photos are like it", "exclude")
    for index in far:
        if index not in drawings:
            add(
                index,
                "outlier",
                float(distance[index]),
                f"its nearest neighbours are {distance[index]:.2f} away, usual is {np.median(distance):.2f}",
                "keep",
            )
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values(
        "finding", key=lambda kind: kind.map(KINDS.index), kind="stable", ignore_index=True
    )


def _far(distance: NDArray[np.float64]) -> list[int]:
    """The photos far from all others, the farthest first."""
    middle = np.median(distance)
    spread = 1.4826 * np.median(np.abs(distance - middle))
    limit = max(float(np.quantile(distance, 1 - MAX_OUTLIER_SHARE)), float(middle + MIN_OUTLIER_DISTANCE * spread))
    return [int(index) for index in np.argsort(-distance, kind="stable") if distance[index] >= limit]


def _both(photos: AuditData, probabilities: NDArray[np.float64], parts: Parts) -> dict[int, tuple[str, str]]:
    """Photos whose parts name two classes, with these."""
    rows = np.arange(len(photos.labels))
    doubtful = [int(index) for index in np.flatnonzero(probabilities[rows, photos.labels] < PARTS_BELOW_PROBABILITY)]
    if not doubtful:
        return {}
    clear = np.setdiff1d(rows, doubtful)
    if len(np.unique(photos.labels[clear])) < 2:
        return {}
    head = _head().fit(photos.features[clear, 0], photos.labels[clear])
    found = parts([photos.paths[index] for index in doubtful])
    answers = np.stack([head.predict_proba(found[:, part]) for part in range(found.shape[1])], axis=1)
    named: dict[int, tuple[str, str]] = {}
    for index, one in zip(doubtful, track(answers, "looking for two in one photo", len(doubtful)), strict=True):
        sure = [int(head.classes_[part.argmax()]) for part in one if part.max() >= MIN_PART_PROBABILITY]
        if len(kinds := sorted(set(sure))) > 1:
            named[index] = photos.classes[kinds[0]], photos.classes[kinds[1]]
    return named
