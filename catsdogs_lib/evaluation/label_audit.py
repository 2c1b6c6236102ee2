"""Label audit: photos that are probably mislabelled, show two classes, are drawings, or are outliers.

The audit proposes and a person decides. It works on features of a frozen network. Labels are checked by heads that were
not trained on the photo, because a head reproduces the labels that it has memorised.
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
from catsdogs_lib.data import manifest
from catsdogs_lib.evaluation.metrics import EvaluationError
from catsdogs_lib.imaging import decoding
from catsdogs_lib.imaging.preprocessing import centre_square
from catsdogs_lib.training import feature_extractor
from catsdogs_lib.training.features import FeatureCache, part_features
from catsdogs_lib.training.models import LITE0, build
from catsdogs_lib.training.trainer import label_indices, photo_paths

Features = NDArray[np.float32]

FOLDS = 5
HEAD_C = 0.001
"""Inverse strength of the heads' L2 penalty; a weaker penalty memorises wrong labels (docs/data-doctor.md)."""
NEIGHBOURS = 5
MAX_OUTLIER_SHARE = 0.01
"""At most this share of the photos, the farthest, are outliers."""
MIN_OUTLIER_DISTANCE = 4.0
"""An outlier is at least this many robust standard deviations (1.48 MAD) from the median."""
MIN_DRAWING_COLOUR_SHARE = 0.5
"""In a drawing, the four commonest of 4096 colours cover at least this share of the pixels."""
PARTS_BELOW_PROBABILITY = 0.95
"""Photos whose label is less probable than this are examined in parts."""
MIN_PART_PROBABILITY = 0.9
"""A photo shows two classes if two of its parts each have one with at least this probability."""
FINDINGS = ("wrong label", "both", "drawing", "outlier", "doubtful label")
"""Kinds of findings, the gravest first."""
COLUMNS = ("path", "sha256", "label", "finding", "score", "reason", "proposal", "action")


@dataclass(frozen=True)
class AuditData:
    """Photos to audit, with their labels and features.

    Attributes
    ----------
    paths, names, sha256
        Of each photo: its file, its path in the manifest, and the digest of its bytes.
    labels
        int64 (N,), positions in `classes`.
    groups
        Near-duplicates share one; no fold separates them.
    classes
        Names of the classes.
    features
        float32 (N, 2, F): of the photo and of its mirror image.
    parts
        Computes features of parts of photos, float32 (photos, parts, F), to find two classes in one photo; None skips
        that.
    """

    paths: Sequence[Path]
    names: Sequence[str]
    sha256: Sequence[str]
    labels: NDArray[np.int64]
    groups: Sequence[str]
    classes: tuple[str, ...]
    features: Features
    parts: Callable[[Sequence[Path]], Features] | None = None


def audit_data(table: pd.DataFrame, raw: Path, cache: Path) -> AuditData:
    """Select the train and validation photos of a manifest, and compute their features with a frozen network.

    Parameters
    ----------
    table
        The manifest.
    raw
        Folder that its paths start from.
    cache
        Folder where features are cached.
    """
    rows = manifest.used(table)
    rows = rows[rows["split"] != "test"]
    classes, paths, sha256 = manifest.classes(table), photo_paths(rows, raw), rows["sha256"].tolist()
    network = build(LITE0, len(classes))

    def parts(paths: Sequence[Path]) -> Features:
        return part_features(network, paths, feature_extractor.resolve("auto", 4 * len(paths)))

    return AuditData(
        paths=paths,
        names=rows["path"].tolist(),
        sha256=sha256,
        labels=label_indices(rows, classes),
        groups=rows["group"].tolist(),
        classes=classes,
        features=FeatureCache(cache, network, feature_extractor.resolve("auto", len(rows))).get(paths, sha256),
        parts=parts,
    )


def _new_head() -> "LogisticRegression":
    return make_pipeline(StandardScaler(), LogisticRegression(C=HEAD_C, max_iter=1000))


def cross_validated(photos: AuditData, seed: int = 0) -> NDArray[np.float64]:
    """Predict each photo with a head trained on neither it nor its near-duplicates: probabilities, float64 (N, C).

    Raises
    ------
    EvaluationError
        A class has fewer photos, or groups of them, than there are folds.
    """
    count = len(photos.classes)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    probabilities = np.zeros((len(photos.labels), count))
    if min(np.bincount(photos.labels, minlength=count)) < FOLDS:
        raise EvaluationError(f"a class has fewer than {FOLDS} photos; add photos before asking the doctor")
    for train, held_out in folds.split(photos.features, photos.labels, list(photos.groups)):
        views = photos.features[train].reshape(-1, photos.features.shape[-1])
        head = _new_head().fit(views, np.repeat(photos.labels[train], 2))
        for view in (0, 1):
            probabilities[np.ix_(held_out, head.classes_)] += head.predict_proba(photos.features[held_out, view]) / 2
    return probabilities


def margins(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Subtract from each label's probability that of the likeliest other class: -1..1, the likeliest errors lowest."""
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = -1
    return np.asarray(probabilities[rows, labels] - others.max(axis=1))


def confident_other(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the class that each photo confidently belongs to instead of its label; -1 where there is none.

    Confident learning (Northcutt et al., 2021, eq. 1-2): a photo counts for class j when its probability of j reaches
    the mean probability of j over the photos labelled j; of several such classes the likeliest counts.
    """
    count = probabilities.shape[1]
    levels = np.array([probabilities[labels == j, j].mean() for j in range(count)])
    reached = np.where(probabilities >= levels, probabilities, -1)
    other = reached.argmax(axis=1)
    return np.where((reached.max(axis=1) < 0) | (other == labels), -1, other)


def neighbour_distance(features: Features) -> NDArray[np.float64]:
    """Compute the cosine distance of each photo (N, F) to its fifth nearest neighbour: float64 (N,)."""
    unit = normalize(features)
    count = min(NEIGHBOURS + 1, len(unit))
    distances = NearestNeighbors(n_neighbors=count).fit(unit).kneighbors(unit)[0][:, -1]
    return np.asarray(distances**2 / 2, dtype=np.float64)


def colour_share(path: Path) -> float:
    """Compute the share of pixels in a photo's square that its four commonest of 16 x 16 x 16 colours cover, 0..1."""
    square = np.asarray(centre_square(decoding.read(path, 224), 224)).astype(np.int64) >> 4
    counts = np.bincount((square @ np.array([256, 16, 1])).ravel(), minlength=4096)
    return float(np.sort(counts)[-4:].sum() / counts.sum())


def audit(photos: AuditData, seed: int = 0) -> pd.DataFrame:
    """List the photos that a person should check.

    Parameters
    ----------
    photos
        From `audit_data`.
    seed
        Seed of the folds.

    Returns
    -------
    DataFrame
        With `COLUMNS`: one row for each finding, by kind, the highest ``score`` first. ``action`` is empty, for a
        person to fill in.
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
    two_classes = _two_classes(photos, probabilities)
    outliers = _outliers(distance)
    colour_shares = {index: colour_share(photos.paths[index]) for index in outliers}
    drawings = {index: share for index, share in colour_shares.items() if share >= MIN_DRAWING_COLOUR_SHARE}
    ranked = np.argsort(margin, kind="stable").tolist()
    for index in (index for index in ranked if margin[index] < 0 and index not in two_classes):
        best = int(probabilities[index].argmax())
        reason = f"heads that have not seen it say {photos.classes[best]} with {probabilities[index, best]:.1%}"
        if other[index] >= 0:
            add(index, "wrong label", -float(margin[index]), reason, f"relabel:{photos.classes[other[index]]}")
        else:
            add(index, "doubtful label", -float(margin[index]), f"{reason}, less than is usual there", "keep")
    for index, names in two_classes.items():
        add(index, "both", 1 - abs(float(margin[index])), f"one part shows {names[0]}, another {names[1]}", "exclude")
    for index, share in drawings.items():
        add(index, "drawing", share, f"four colours make up {share:.0%} of it, and few photos are like it", "exclude")
    for index in outliers:
        if index not in drawings:
            add(
                index,
                "outlier",
                float(distance[index]),
                f"its nearest neighbours are {distance[index]:.2f} away, usual is {np.median(distance):.2f}",
                "keep",
            )
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values(
        "finding", key=lambda kind: kind.map(FINDINGS.index), kind="stable", ignore_index=True
    )


def _outliers(distance: NDArray[np.float64]) -> list[int]:
    """Find the photos far from all others, the farthest first."""
    median = np.median(distance)
    deviation = 1.4826 * np.median(np.abs(distance - median))
    limit = max(float(np.quantile(distance, 1 - MAX_OUTLIER_SHARE)), float(median + MIN_OUTLIER_DISTANCE * deviation))
    return [int(index) for index in np.argsort(-distance, kind="stable") if distance[index] >= limit]


def _two_classes(photos: AuditData, probabilities: NDArray[np.float64]) -> dict[int, tuple[str, str]]:
    """Find photos whose parts show two classes, and name these."""
    rows = np.arange(len(photos.labels))
    doubtful = [int(index) for index in np.flatnonzero(probabilities[rows, photos.labels] < PARTS_BELOW_PROBABILITY)]
    clear = np.setdiff1d(rows, doubtful)
    if photos.parts is None or not doubtful or len(np.unique(photos.labels[clear])) < 2:
        return {}
    head = _new_head().fit(photos.features[clear, 0], photos.labels[clear])
    parts = photos.parts([photos.paths[index] for index in doubtful])
    answers = np.stack([head.predict_proba(parts[:, part]) for part in range(parts.shape[1])], axis=1)
    named: dict[int, tuple[str, str]] = {}
    for index, answer in zip(doubtful, track(answers, "looking for two in one photo", len(doubtful)), strict=True):
        shown = {int(head.classes_[part.argmax()]) for part in answer if part.max() >= MIN_PART_PROBABILITY}
        if len(shown) > 1:
            first, second, *_ = sorted(shown)
            named[index] = photos.classes[first], photos.classes[second]
    return named
