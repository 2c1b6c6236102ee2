"""Image statistics that are logged in place of the image."""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catsdogs_lib.imaging import decoding
from catsdogs_lib.imaging.preprocessing import centre_square


class ImageStatistics(NamedTuple):
    """Statistics of a photo, kept where the photo itself is not.

    Attributes
    ----------
    format
        Name in Pillow.
    width, height
        In pixels, as stored.
    brightness
        Mean luma of the model's centre square, 0 to 1.
    sharpness
        Variance of the Laplacian of that luma.
    """

    format: str
    width: int
    height: int
    brightness: float
    sharpness: float


def luma(square: Image.Image) -> NDArray[np.float32]:
    """Compute the luma of each pixel of an RGB image (ITU-R BT.601): float32 (height, width), 0 to 1."""
    # Not a product of matrices: BLAS would start threads, whose stacks count towards the memory limit of a photo.
    red, green, blue = np.moveaxis(np.asarray(square, dtype=np.float32), 2, 0)
    weighted = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    return np.asarray(weighted / np.float32(255), dtype=np.float32)


def sharpness(luma: NDArray[np.float32]) -> float:
    """Compute the variance of the Laplacian (four neighbours) of a luma of at least 3 x 3 pixels; 0 if it is flat."""
    centre = luma[1:-1, 1:-1]
    return float((luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * centre).var())


def square_with_statistics(
    source: bytes | Path, size: int, formats: Collection[str] = decoding.FORMATS
) -> tuple[ImageStatistics, bytes]:
    """Read a photo as the centre square that the model gets, with its statistics.

    Returns
    -------
    statistics, pixels
        RGB, `size` x `size` x 3 bytes.

    Raises
    ------
    PhotoError
        The photo cannot be used.
    """
    image = decoding.open_photo(source, formats)
    header = decoding.read_header(image)
    square = centre_square(decoding.decode(image, size), size)
    grey = luma(square)
    statistics = ImageStatistics(header.format, header.width, header.height, float(grey.mean()), sharpness(grey))
    return statistics, square.tobytes()
