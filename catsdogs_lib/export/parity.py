"""Parity: whether an exported graph gives the probabilities of the model it was made from."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.common.progress import track
from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.evaluation.calibration import softmax
from catsdogs_lib.inference.classifier import Classifier, Outputs
from catsdogs_lib.inference.description import Parity
from catsdogs_lib.training.checkpoint import TrainedModel

PARITY_TOLERANCE = 1e-3
PARITY_PHOTOS = 128
"""Photos for the comparison; drawn pictures make up for missing ones."""
PICTURE_SIDE = 160


class ParityError(CatsdogsError):
    """The exported graph gives other outputs than the trained model."""


def check_parity(trained: TrainedModel, classifier: Classifier, photos: Sequence[Path]) -> Parity:
    """Compare probabilities and unfamiliarity between torch and ONNX Runtime, photo by photo.

    Parameters
    ----------
    trained
        The model.
    classifier
        Runs the graph exported from it.
    photos
        Real photos; drawn pictures are added up to `PARITY_PHOTOS`.

    Raises
    ------
    ParityError
        They differ by more than `PARITY_TOLERANCE`, or a number of either is not finite.
    InferenceError
        The graph gives no usable answer to a photo.
    """
    sources = _with_drawn(photos)
    outputs = graph_outputs(classifier, sources, "parity: ONNX Runtime")
    features = trained.features(sources, what="parity: torch")
    expected = softmax(trained.logits(features), classifier.bundle.description.temperature)
    difference = float(np.abs(outputs.probabilities - expected).max())
    # Unlike the built-in max, numpy's gives NaN if either is NaN.
    worst = float(np.maximum(difference, np.abs(outputs.unfamiliarity - trained.unfamiliarity(features)).max()))
    if not worst <= PARITY_TOLERANCE:
        raise ParityError(
            f"the exported graph differs from the trained model by {worst:.2g} in a probability or the unfamiliarity "
            f"({PARITY_TOLERANCE:g} allowed); check that every layer of '{trained.record.settings.model}' exports"
        )
    return Parity(photos=len(sources), max_difference=difference)


def quantization_parity(
    parity: Parity, classifier: Classifier, quantized: Classifier, photos: Sequence[Path]
) -> Parity:
    """Add the largest difference of a probability that quantization makes to the parity of the graph before it.

    Raises
    ------
    InferenceError
        One of the graphs gives no usable answer to a photo.
    """
    sources = _with_drawn(photos)
    before, after = (
        graph_outputs(each, sources, "parity: quantization").probabilities for each in (classifier, quantized)
    )
    return Parity(photos=len(sources), max_difference=parity.max_difference + float(np.abs(before - after).max()))


def graph_outputs(classifier: Classifier, sources: Sequence[Path | bytes], label: str) -> Outputs:
    """Run a graph on N photos, one at a time as in serving, without activation maps; `label` is for the progress."""
    parts = [classifier.run([classifier.load(source)])[:3] for source in track(sources, label)]
    logits, probabilities, unfamiliarity = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Outputs(logits, probabilities, unfamiliarity, None)


def drawn_picture(kind: str, seed: int) -> bytes:
    """Draw a picture of a ``cat`` or ``dog`` as PNG, the same for the same seed."""
    stream = io.BytesIO()
    draw(kind, seed, (PICTURE_SIDE, PICTURE_SIDE)).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _with_drawn(photos: Sequence[Path]) -> list[Path | bytes]:
    missing = range(max(0, PARITY_PHOTOS - len(photos)))
    return [*photos, *(drawn_picture(("cat", "dog")[number % 2], 1000 + number // 2) for number in missing)]
