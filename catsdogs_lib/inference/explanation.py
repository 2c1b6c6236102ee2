"""Saliency maps: how much each part of a photo contributed to the prediction, as numbers and as an overlay.

The maps come from the graph itself, so numpy and Pillow are enough.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catsdogs_lib.inference.classifier import Classifier, InferenceError, Prediction

GRID = 7
"""Patches along a side that are occluded, one at a time, for a network without an activation map."""
PATCH_SHARE = 0.25
"""Side of a patch, as a share of the photo's side."""
COLOUR_STOPS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
"""Colours from the lowest to the highest value: five stops of matplotlib's inferno, safe for the colour-blind."""
OPACITY = 0.75


class Explanation(NamedTuple):
    """A prediction with its saliency map.

    Attributes
    ----------
    prediction
        The prediction that is explained.
    square
        The model's centre square, RGB.
    heat
        float32 (h, w): contribution of each part to the logit of the predicted class less the mean logit of the
        other classes. The mean of an activation map is that difference (without the biases); with occlusion each
        value is the drop of the difference when the part is covered.
    """

    prediction: Prediction
    square: Image.Image
    heat: NDArray[np.float32]

    def upsampled_heat(self) -> NDArray[np.float32]:
        """Resize `heat` to the size of `square` (bicubic): float32 (height, width)."""
        smooth = Image.fromarray(self.heat).resize(self.square.size, Image.Resampling.BICUBIC)
        return np.asarray(smooth, dtype=np.float32)

    def overlay(self) -> Image.Image:
        """Colour the parts of the greyed `square` that contributed to the prediction: RGB."""
        heat = np.clip(self.upsampled_heat(), 0, None)
        share = heat / max(float(heat.max()), 1e-9)
        stops = np.linspace(0, 1, len(COLOUR_STOPS))
        colour = np.stack([np.interp(share, stops, channel) for channel in zip(*COLOUR_STOPS, strict=True)], axis=-1)
        grey = np.asarray(self.square.convert("L"), dtype=np.float32)[..., None]
        opacity = OPACITY * share[..., None]
        return Image.fromarray((grey * (1 - opacity) + colour * opacity).astype(np.uint8))


def explain(classifier: Classifier, source: bytes | Path) -> Explanation:
    """Classify a photo and compute the saliency map of the prediction.

    Parameters
    ----------
    classifier
        With an activation map, one run of the graph is enough. Without one, the photo is run again with each of
        `GRID` x `GRID` patches occluded.
    source
        The bytes of a photo, or the path of a file.

    Raises
    ------
    PhotoError
        The photo cannot be used.
    InferenceError
        The graph gives no usable answer to it.
    """
    image = classifier.prepare(source)
    outputs = classifier.run([image.input])
    best = int(outputs.probabilities[0].argmax())
    # Finite logits may differ by more than float32 holds.
    with np.errstate(over="ignore", invalid="ignore"):
        if outputs.activation_map is not None:
            # Class activation map (Zhou et al., 2016), of the predicted class against the others.
            heat = class_contrast(outputs.activation_map[0], best)
        else:
            # Occlusion (Zeiler and Fergus, 2014).
            contrast = class_contrast(outputs.logits[0], best)
            occluded = classifier.run(occlude(image.input)).logits
            heat = (contrast - class_contrast(occluded.T, best)).reshape(GRID, GRID)
    if not np.isfinite(heat).all():
        raise InferenceError("the model gives no usable answer: its saliency map is not finite")
    return Explanation(classifier.interpret(outputs), image.square, np.ascontiguousarray(heat, dtype=np.float32))


def class_contrast(values: NDArray[np.float32], best: int) -> NDArray[np.float32]:
    """Subtract the mean of the other classes from the values (classes, ...) of class `best`: (...)."""
    others = np.delete(values, best, axis=0).mean(axis=0)
    return np.asarray(values[best] - others, dtype=np.float32)


def occlude(photo: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Copy a model input (3, side, side) with each of `GRID` x `GRID` patches replaced by the photo's mean."""
    side = photo.shape[-1]
    half = round(side * PATCH_SHARE / 2)
    centres = ((np.arange(GRID) + 0.5) * side / GRID).round().astype(int)
    # A colour from outside the photo would be a feature of its own.
    fill = photo.mean(axis=(1, 2), keepdims=True)
    copies = []
    for y in centres:
        for x in centres:
            copy = photo.copy()
            copy[:, max(0, y - half) : y + half, max(0, x - half) : x + half] = fill
            copies.append(copy)
    return copies
