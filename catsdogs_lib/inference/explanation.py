"""Where a model looked: how much each place of a photo spoke for the answer, as numbers and as a picture.

Numpy and Pillow, no torch: the maps come from the graph itself.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catsdogs_lib.inference.classifier import Classifier, Prediction

PLACES = 7
"""Places along a side that are covered, one after the other, where a network has no map of its own."""
PATCH = 0.25
"""Side of what covers a place, as share of the photo's side."""
RAMP = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
"""Colours from nothing to most: five of matplotlib's inferno, even in lightness and safe for the colour-blind."""
OPACITY = 0.75


@dataclass(frozen=True)
class Explanation:
    """An answer and where it came from.

    Attributes
    ----------
    prediction
        The answer.
    square
        RGB, what the model saw.
    heat
        float32 (h, w): what each place adds to the logit of the answer less the mean logit of the other classes.
        Of an activation map the mean is that difference (less the biases); of occlusion each number is by how much the
        difference falls when the place is covered.
    """

    prediction: Prediction
    square: Image.Image
    heat: NDArray[np.float32]

    def spread(self) -> NDArray[np.float32]:
        """`heat` at the size of `square`, smooth: float32 (height, width)."""
        smooth = Image.fromarray(self.heat).resize(self.square.size, Image.Resampling.BICUBIC)
        return np.asarray(smooth, dtype=np.float32)

    def overlay(self) -> Image.Image:
        """`square` in grey, coloured where the places spoke for the answer: RGB."""
        heat = np.clip(self.spread(), 0, None)
        share = heat / max(float(heat.max()), 1e-9)
        stops = np.linspace(0, 1, len(RAMP))
        colour = np.stack([np.interp(share, stops, channel) for channel in zip(*RAMP, strict=True)], axis=-1)
        grey = np.asarray(self.square.convert("L"), dtype=np.float32)[..., None]
        opacity = OPACITY * share[..., None]
        return Image.fromarray((grey * (1 - opacity) + colour * opacity).astype(np.uint8))


def explain(classifier: Classifier, source: bytes | Path) -> Explanation:
    """Answer for a photo and say where the answer came from.

    Parameters
    ----------
    classifier
        With an activation map one run of the graph does; without one the photo is run again with each of
        `PLACES` x `PLACES` places covered in grey.
    source
        The bytes of a photo, or the path of a file.

    Raises
    ------
    PhotoError
        One of its children, when the photo cannot be used.
    """
    seen = classifier.look(source)
    outputs = classifier.run([seen.input])
    best = int(outputs.probabilities[0].argmax())
    if outputs.activation_map is not None:
        # Class activation map (Zhou et al., 2016), of the answer against the others.
        heat = against_others(outputs.activation_map[0], best)
    else:
        # Occlusion (Zeiler and Fergus, 2014).
        whole = against_others(outputs.logits[0], best)
        covered = classifier.run(_covered(seen.input)).logits
        heat = (whole - against_others(covered.T, best)).reshape(PLACES, PLACES)
    return Explanation(classifier.judge(outputs), seen.square, np.ascontiguousarray(heat, dtype=np.float32))


def against_others(values: NDArray[np.float32], best: int) -> NDArray[np.float32]:
    """Values (classes, ...) of class `best`, less the mean of the others: (...)."""
    others = np.delete(values, best, axis=0).mean(axis=0)
    return np.asarray(values[best] - others, dtype=np.float32)


def _covered(photo: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    side = photo.shape[-1]
    half = round(side * PATCH / 2)
    centres = ((np.arange(PLACES) + 0.5) * side / PLACES).round().astype(int)
    # The photo's own mean: a colour that is not there would be a thing by itself.
    fill = photo.mean(axis=(1, 2), keepdims=True)
    covered = []
    for y in centres:
        for x in centres:
            one = photo.copy()
            one[:, max(0, y - half) : y + half, max(0, x - half) : x + half] = fill
            covered.append(one)
    return covered
