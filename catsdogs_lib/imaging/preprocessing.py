"""From a photo to the input of a model. Training, evaluation and serving share it, so that they cannot disagree."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Preprocessing:
    """Parameters that turn upright RGB pixels into the input of a model: centre crop, resize, normalise.

    Parameters
    ----------
    size
        Height and width of the input, in pixels.
    mean, std
        For each of R, G, B on the scale 0..1: the input is ``(pixel / 255 - mean) / std``.
    """

    size: int = 224
    mean: tuple[float, float, float] = (127 / 255, 127 / 255, 127 / 255)
    std: tuple[float, float, float] = (128 / 255, 128 / 255, 128 / 255)


def centre_square(image: Image.Image, size: int) -> Image.Image:
    """Crop the centre square of an RGB image and resize it (bicubic, antialiased) to `size` x `size`.

    Cropping and resizing are one step, so that an extreme strip costs no more than a photo.
    """
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)


def normalise(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Turn an RGB image into model input.

    Returns
    -------
    ndarray of float32, shape (3, height, width)
        ``(pixel / 255 - mean) / std`` for each channel.
    """
    pixels = np.asarray(image)
    planes = np.empty((3, image.height, image.width), np.float32)
    # In place, a plane at a time: a tenth of the time of the formula on the whole image.
    for plane, mean, std, values in zip(planes, preprocessing.mean, preprocessing.std, pixels.T, strict=True):
        np.multiply(values.T, np.float32(1 / (255 * std)), out=plane)
        np.subtract(plane, np.float32(mean / std), out=plane)
    return planes
