"""Conversion of decoded pixels to 8-bit RGB."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert decoded pixels of any mode to 8-bit RGB, transparency flattened onto white."""
    if image.mode.startswith(("I", "F")):
        image = _to_8_bits(image)
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")  # convert always copies
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    # 16 bits and more: Pillow's own conversion clips everything above 255 to white. A band of rows at a time,
    # since the whole photo in float64 takes 8 bytes a pixel.
    values = np.asarray(image)
    bands = range(0, image.height, max(1, 2**19 // image.width))
    height = bands.step

    def finite(top: int) -> NDArray[np.float64]:
        band = values[top : top + height].astype(np.float64)
        return np.nan_to_num(band, copy=False, nan=0.0, posinf=0.0, neginf=0.0)

    brightest = max(float(finite(top).max()) for top in bands)
    unit = image.mode == "F" and brightest <= 1.0
    scale = 255.0 if unit else 1.0 if brightest <= 255.0 else 255.0 / max(brightest, 65535.0)
    grey = np.empty(values.shape, np.uint8)
    for top in bands:
        grey[top : top + height] = np.clip(finite(top) * scale, 0, 255)
    return Image.fromarray(grey)
