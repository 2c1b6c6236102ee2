"""Deletion test of saliency maps: covering what a map calls important must hurt more than covering a random patch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catsdogs_lib.common.progress import track
from catsdogs_lib.evaluation.metrics import Interval, bootstrap_mean
from catsdogs_lib.imaging.preprocessing import normalise
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.inference.explanation import class_contrast, explain

COVERED_SHARE = 0.1
"""Share of the square that is covered."""
RANDOM_PATCHES = 8
"""Random patches for comparison, for each photo."""


def most_important(heat: NDArray[np.float32], share: float = COVERED_SHARE) -> NDArray[np.bool_]:
    """Mask the `share` of a map (h, w) with the most heat: bool (h, w)."""
    count = max(1, round(share * heat.size))
    mask = np.zeros(heat.size, dtype=bool)
    mask[np.argsort(heat.ravel(), kind="stable")[-count:]] = True
    return mask.reshape(heat.shape)


def random_patch(size: int, rng: np.random.Generator, share: float = COVERED_SHARE) -> NDArray[np.bool_]:
    """Mask a random square patch that covers `share` of `size` x `size`: bool (size, size)."""
    side = round(size * share**0.5)
    top, left = rng.integers(0, size - side + 1, 2)
    mask = np.zeros((size, size), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def deletion_test(classifier: Classifier, photos: Sequence[bytes | Path], seed: int = 0) -> Interval:
    """Measure how much more the answer's logit falls if the most important tenth is covered than a random patch.

    The logit is that of the answer minus the mean of the others; covered pixels take the photo's mean colour.

    Parameters
    ----------
    classifier
        Predicts and explains.
    photos
        At least one.
    seed
        Seed of the patches and of the bootstrap.

    Returns
    -------
    Interval
        Mean over the photos, in logits, with its bootstrap 95 % interval; above 0, the maps are informative.
    """
    rng = np.random.default_rng(seed)
    preprocessing = classifier.bundle.description.preprocessing
    differences = []
    for photo in track(photos, "covering what matters", len(photos)):
        explanation = explain(classifier, photo)
        plain = normalise(explanation.square, preprocessing)
        masks = [
            most_important(explanation.upsampled_heat()),
            *(random_patch(plain.shape[-1], rng) for _ in range(RANDOM_PATCHES)),
        ]
        fill = plain.mean(axis=(1, 2), keepdims=True)
        logits = classifier.run([plain, *(np.where(mask, fill, plain) for mask in masks)]).logits
        values = class_contrast(logits.T, int(logits[0].argmax()))
        falls = values[0] - values[1:]
        differences.append(float(falls[0] - falls[1:].mean()))
    return bootstrap_mean(differences, seed=seed)
