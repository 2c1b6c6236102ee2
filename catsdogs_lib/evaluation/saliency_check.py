"""Whether a map of where a model looked is true: covering what it calls important must hurt more than chance does."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catsdogs_lib.common.progress import track
from catsdogs_lib.evaluation.metrics import Interval, bootstrap_mean
from catsdogs_lib.imaging.decoding import normalise
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.inference.explanation import against_others, explain

COVERED_SHARE = 0.1
"""Part of the square that is covered."""
RANDOM_PATCHES = 8
"""Random patches that each photo is compared with."""


def most_important(heat: NDArray[np.float32], share: float = COVERED_SHARE) -> NDArray[np.bool_]:
    """The `share` of the places (h, w) with the most heat, bool (h, w)."""
    count = max(1, round(share * heat.size))
    chosen = np.zeros(heat.size, dtype=bool)
    chosen[np.argsort(heat.ravel(), kind="stable")[-count:]] = True
    return chosen.reshape(heat.shape)


def random_patch(size: int, rng: np.random.Generator, share: float = COVERED_SHARE) -> NDArray[np.bool_]:
    """A square patch at random within `size` x `size` that makes up `share` of it, bool (size, size)."""
    side = round(size * share**0.5)
    top, left = rng.integers(0, size - side + 1, 2)
    chosen = np.zeros((size, size), dtype=bool)
    chosen[top : top + side, left : left + side] = True
    return chosen


def deletion_test(classifier: Classifier, photos: Sequence[bytes | Path], seed: int = 0) -> Interval:
    """By how much more the answer's logit falls when the most important tenth is covered than a random patch.

    The logit is that of the answer less the mean of the others; what is covered takes the photo's mean colour.

    Parameters
    ----------
    classifier
        What answers and explains.
    photos
        At least one.
    seed
        Of the patches and the bootstrap.

    Returns
    -------
    Interval
        Mean over the photos, in logits, with its bootstrap 95 % interval: above 0 the maps say something true.
    """
    rng = np.random.default_rng(seed)
    preprocessing = classifier.bundle.description.preprocessing
    more = []
    for photo in track(photos, "covering what matters", len(photos)):
        found = explain(classifier, photo)
        plain = normalise(found.square, preprocessing)
        masks = [most_important(found.spread()), *(random_patch(plain.shape[-1], rng) for _ in range(RANDOM_PATCHES))]
        fill = plain.mean(axis=(1, 2), keepdims=True)
        logits = classifier.run([plain, *(np.where(mask, fill, plain) for mask in masks)]).logits
        values = against_others(logits.T, int(logits[0].argmax()))
        falls = values[0] - values[1:]
        more.append(float(falls[0] - falls[1:].mean()))
    return bootstrap_mean(more, seed=seed)
