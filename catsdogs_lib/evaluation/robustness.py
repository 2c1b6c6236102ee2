"""Behavioural tests: answers to changed photos, which must keep or lose confidence, and to pictures of other things."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from catsdogs_lib.common.progress import track
from catsdogs_lib.data.synthetic.out_of_distribution import FAMILIES, draw_others
from catsdogs_lib.imaging.preprocessing import normalise
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier

Change = Callable[[Image.Image], Image.Image]

CHANGED_PHOTOS = 200
"""Photos to change, evenly spaced; the same for every bundle."""
OTHERS_PER_FAMILY = 6
BATCH_SIZE = 16


def _brightness(factor: float) -> Change:
    return lambda square: ImageEnhance.Brightness(square).enhance(factor)


def _cropped(square: Image.Image) -> Image.Image:
    edge = square.width * 0.05
    box = (edge, edge, square.width - edge, square.height - edge)
    return square.resize(square.size, Image.Resampling.BICUBIC, box=box)


def _jpeg(square: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    square.save(stream, "JPEG", quality=50)
    return Image.open(stream).convert("RGB")


INVARIANCES: dict[str, Change] = {
    "mirrored": ImageOps.mirror,
    "cropped to 90 %": _cropped,
    "brightness x 0.7": _brightness(0.7),
    "brightness x 1.3": _brightness(1.3),
    "dark, x 0.3": _brightness(0.3),
    "JPEG quality 50": _jpeg,
}
"""Changes that must not change the answer; squares in, squares of the same size out."""


def blurred(square: Image.Image) -> Image.Image:
    """Blur a square over a tenth of its side, which must lower confidence."""
    return square.filter(ImageFilter.GaussianBlur(square.width / 10))


@dataclass(frozen=True)
class BehaviourReport:
    """Answers of one bundle to photos, changed photos and pictures of other things.

    Attributes
    ----------
    probabilities, unfamiliarity
        Of all photos unchanged: float32 (N, C) and (N,).
    chosen
        Positions of the photos that were changed: int64 (M,).
    changed
        Probabilities of these under each of `INVARIANCES`: float32 (M, C).
    blurred
        Their probabilities after `blurred`: float32 (M, C).
    flagged
        Drawn pictures of other things that are flagged as unfamiliar: bool.
    megabytes
        Size of the graph.
    """

    probabilities: NDArray[np.float32]
    unfamiliarity: NDArray[np.float32]
    chosen: NDArray[np.int64]
    changed: dict[str, NDArray[np.float32]]
    blurred: NDArray[np.float32]
    flagged: NDArray[np.bool_]
    megabytes: float


def examine_behaviour(bundle: Bundle, photos: Sequence[Path], name: str) -> BehaviourReport:
    """Classify photos, changed photos and drawn pictures of other things with a bundle.

    Parameters
    ----------
    bundle
        Candidate or champion.
    photos
        At least one; the bundle was trained on none of them.
    name
        Name of the bundle in progress messages.

    Raises
    ------
    InferenceError
        The graph gives no usable answer to a photo.
    """
    classifier = Classifier(bundle)
    squares = [classifier.prepare(photo).square for photo in track(photos, f"reading photos for {name}")]
    probabilities, unfamiliarity = _run(classifier, squares, f"{name}: as they are")
    chosen = np.unique(np.linspace(0, len(squares) - 1, min(CHANGED_PHOTOS, len(squares))).round().astype(np.int64))
    sample = [squares[index] for index in chosen]
    drawn = [other.picture for other in draw_others(OTHERS_PER_FAMILY * len(FAMILIES), seed=7)]
    size = bundle.description.preprocessing.size
    others = [ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC) for picture in drawn]
    return BehaviourReport(
        probabilities=probabilities,
        unfamiliarity=unfamiliarity,
        chosen=chosen,
        changed={
            kind: _run(classifier, [change(square) for square in sample], f"{name}: {kind}")[0]
            for kind, change in INVARIANCES.items()
        },
        blurred=_run(classifier, [blurred(square) for square in sample], f"{name}: blurred")[0],
        # Finite: `Classifier.run` raises otherwise.
        flagged=_run(classifier, others, f"{name}: pictures of other things")[1]
        > bundle.description.thresholds.unfamiliar,
        megabytes=bundle.description.graph.bytes / 1e6,
    )


def _run(
    classifier: Classifier, squares: Sequence[Image.Image], label: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    preprocessing = classifier.bundle.description.preprocessing
    batches = [
        classifier.run([normalise(square, preprocessing) for square in squares[begin : begin + BATCH_SIZE]])
        for begin in track(range(0, len(squares), BATCH_SIZE), label)
    ]
    return (
        np.concatenate([batch.probabilities for batch in batches]),
        np.concatenate([batch.unfamiliarity for batch in batches]),
    )
