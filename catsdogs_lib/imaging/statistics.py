"""What a photo measures, without what is on it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catsdogs_lib.imaging import decoding
from catsdogs_lib.imaging.decoding import Preprocessing


class ImageStatistics(NamedTuple):
    """What a photo is, without what is on it: kept of an answer when the photo itself is not.

    Attributes
    ----------
    format
        Pillow's name.
    width, height
        In pixels, as stored.
    brightness
        Mean luma of the square that the model saw, 0 to 1.
    sharpness
        Variance of the Laplacian of that luma.
    """

    format: str
    width: int
    height: int
    brightness: float
    sharpness: float


def luma(square: Image.Image) -> NDArray[np.float32]:
    """Brightness of each pixel of an RGB image (ITU-R BT.601), float32 (height, width), 0 to 1."""
    weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return np.asarray(np.asarray(square, dtype=np.float32) @ weights / np.float32(255), dtype=np.float32)


def sharpness(luma: NDArray[np.float32]) -> float:
    """Variance of the Laplacian (four neighbours) of a luma of at least 3 x 3 pixels: 0 where all is flat."""
    centre = luma[1:-1, 1:-1]
    return float((luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * centre).var())


def read_with_statistics(source: bytes | Path, preprocessing: Preprocessing) -> tuple[Image.Image, ImageStatistics]:
    """Read a photo as the square of RGB pixels that a model sees, and measure it; errors as in `model_input`."""
    image = decoding.open_photo(source)
    header = decoding.read_header(image)
    square = decoding.centre_square(decoding.decode(image, preprocessing.size), preprocessing.size)
    light = luma(square)
    return square, ImageStatistics(header.format, header.width, header.height, float(light.mean()), sharpness(light))
