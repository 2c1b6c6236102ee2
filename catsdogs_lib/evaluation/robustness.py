"""What a model must do whatever its test figures say: an answer survives what does not change the animal."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from catsdogs_lib.common.progress import track
from catsdogs_lib.data.synthetic.out_of_distribution import FAMILIES, draw_others
from catsdogs_lib.imaging.decoding import normalise
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier

Change = Callable[[Image.Image], Image.Image]

CHANGED_PHOTOS = 200
"""Photos that are changed; taken evenly, the same for every bundle."""
OTHERS_PER_FAMILY = 6
BATCH = 16


def _bright(factor: float) -> Change:
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
    "brightness x 0.7": _bright(0.7),
    "brightness x 1.3": _bright(1.3),
    "dark, x 0.3": _bright(0.3),
    "JPEG quality 50": _jpeg,
}
"""What leaves the animal what it is; squares in, squares of the same size out."""


def blurred(square: Image.Image) -> Image.Image:
    """A square with so little left that confidence must fall: blurred over a tenth of its side."""
    return square.filter(ImageFilter.GaussianBlur(square.width / 10))


@dataclass(frozen=True)
class BehaviourReport:
    """How one bundle answers the photos that it is judged by.

    Attributes
    ----------
    probabilities, unfamiliarity
        Of all photos as they are: float32 (N, C) and (N,).
    chosen
        Positions of the photos that were changed: int64 (M,).
    changed
        Probabilities of these under each of `INVARIANCES`: float32 (M, C).
    blurred
        Their probabilities with next to nothing left: float32 (M, C).
    flagged
        Whether each drawn stranger is called unfamiliar: bool.
    megabytes
        Of the graph.
    """

    probabilities: NDArray[np.float32]
    unfamiliarity: NDArray[np.float32]
    chosen: NDArray[np.int64]
    changed: dict[str, NDArray[np.float32]]
    blurred: NDArray[np.float32]
    flagged: NDArray[np.bool_]
    megabytes: float


def examine_behaviour(bundle: Bundle, photos: Sequence[Path], what: str) -> BehaviourReport:
    """Ask a bundle about photos, changed photos and drawn strangers.

    Parameters
    ----------
    bundle
        Candidate or champion.
    photos
        At least one, none of those that it has learned from.
    what
        Says in the progress who is asked.
    """
    classifier = Classifier(bundle)
    squares = [classifier.look(photo).square for photo in track(photos, f"reading photos for {what}")]
    plain, distance = _run(classifier, squares, f"{what}: as they are")
    chosen = np.unique(np.linspace(0, len(squares) - 1, min(CHANGED_PHOTOS, len(squares))).round().astype(np.int64))
    some = [squares[index] for index in chosen]
    drawn = [one.picture for one in draw_others(OTHERS_PER_FAMILY * len(FAMILIES), seed=7)]
    size = bundle.description.preprocessing.size
    others = [ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC) for picture in drawn]
    return BehaviourReport(
        probabilities=plain,
        unfamiliarity=distance,
        chosen=chosen,
        changed={
            name: _run(classifier, [change(one) for one in some], f"{what}: {name}")[0]
            for name, change in INVARIANCES.items()
        },
        blurred=_run(classifier, [blurred(one) for one in some], f"{what}: blurred")[0],
        flagged=_run(classifier, others, f"{what}: strangers")[1] > bundle.description.thresholds.unfamiliar,
        megabytes=bundle.description.graph.bytes / 1e6,
    )


def _run(
    classifier: Classifier, squares: Sequence[Image.Image], what: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    preprocessing = classifier.bundle.description.preprocessing
    parts = [
        classifier.run([normalise(one, preprocessing) for one in squares[begin : begin + BATCH]])
        for begin in track(range(0, len(squares), BATCH), what)
    ]
    return np.concatenate([one.probabilities for one in parts]), np.concatenate([one.unfamiliarity for one in parts])
