"""From the bytes of a photo to what a model sees. The one place that decodes a photo.

Training, evaluation and serving all come through here, so they cannot disagree. Only Pillow and numpy
are needed. What a stranger sends is judged by its header before a pixel is decoded.
"""

import io
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.imaging import header_limits

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Pillow's names of the formats that are read; nothing else is even tried.

AVIF is not among them: a file of 3 KB that claims 300 x 300 pixels can make its decoder take 400 MB, and Pillow gives
no way to know before.
"""
SUFFIXES = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".apng": "PNG",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
    ".heic": "HEIC",
    ".heif": "HEIC",
}
"""File endings that are taken for photos when a folder is walked, and the format each promises.

Photos in a format that is not read are among them: they are refused by name, not passed over in silence.
"""

MAX_BYTES = 64 * 2**20
"""A larger file is not read."""
MAX_PIXELS_BASELINE_JPEG = 50_000_000
"""JPEG is decoded at a fraction of its size (`Image.draft`), so it may be large."""
MAX_PIXELS_PROGRESSIVE_JPEG = 25_000_000
"""A progressive JPEG, or one with a scan for each colour, is held whole in memory: up to 8 bytes a pixel."""
MAX_PIXELS = 12_600_000
"""Any other format is decoded whole, at up to 17 bytes a pixel (WebP); 12-megapixel phone photos still pass."""
MAX_SCANS = 32
"""Each scan goes over the whole photo again; encoders write about ten."""
MAX_PARTS = 2000
"""Segments before the pixels of a JPEG; depth maps take some hundred."""
MAX_EXIF_PARTS = 4
"""Segments of a JPEG with EXIF; there is one."""
MAX_EXIF_BYTES = 2**20
"""Longer EXIF is not read; that of a JPEG has 64 kB."""
MAX_CHUNKS = 20_000
"""Chunks of a PNG, blocks before the first frame of a GIF; encoders write one for every 8 kB or more."""
MAX_NUMBERS = 2**18
"""Numbers in the directories of a TIFF; a palette of 16 bits alone has 196 608."""

EXIF_ORIENTATION = 0x0112


class PhotoError(CatsdogsError):
    """A photo cannot be used; ``str()`` says why in one sentence.

    Attributes
    ----------
    kind
        Names the problem for programs.
    """

    kind: ClassVar[str] = "undecodable"


class NotAnImageError(PhotoError):
    """The bytes are not a photo in a format that is read."""

    kind = "not-a-photo"


class PhotoTooLargeError(PhotoError):
    """The photo is larger than what is decoded."""

    kind = "too-large"


class UndecodableError(PhotoError):
    """The photo has a header that can be read, but its pixels cannot be decoded."""


@dataclass(frozen=True)
class Preprocessing:
    """How upright RGB pixels become the input of a model: centre square, resize, normalise.

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


class Header(NamedTuple):
    """What a photo says about itself before its pixels are decoded.

    `width` and `height` are in pixels as stored, before the EXIF `orientation` (1 to 8; 1 where it is
    missing or invalid) is applied; `mode` is Pillow's, e.g. ``"CMYK"``.
    """

    format: str
    width: int
    height: int
    mode: str
    orientation: int


def open_photo(source: bytes | Path) -> Image.Image:
    """Open a photo and judge its header; no pixel is decoded yet.

    Parameters
    ----------
    source
        The bytes of a photo, or the path of a file.

    Returns
    -------
    PIL.Image.Image
        Lazily opened, of an allowed format and size.

    Raises
    ------
    NotAnImageError
        Nothing there, or not in one of `FORMATS`.
    PhotoTooLargeError
        More bytes or pixels than are decoded.
    """
    data = _bytes(source)
    if not data:
        raise NotAnImageError("the file is empty; choose another photo")
    jpeg = header_limits.jpeg(data, MAX_PARTS)
    _refuse_costly(data, jpeg)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PhotoTooLargeError("the photo has far more pixels than are decoded; scale it down") from None
    except MemoryError:
        raise
    except Exception:
        # Whatever a plugin raises on a broken header, the answer to the sender is the same.
        names = ", ".join("WebP" if name == "WEBP" else name for name in FORMATS)
        found = header_limits.unread_format(data)
        said = f"{found} is not read" if found else "not a photo that can be read"
        raise NotAnImageError(f"{said}; use one of {names}") from None
    pixels, limit = image.width * image.height, _max_pixels(image, jpeg)
    if pixels > limit:
        raise PhotoTooLargeError(
            f"the photo has {image.width} x {image.height} pixels ({pixels / 1e6:.1f} megapixels), more than the "
            f"{limit / 1e6:.4g} megapixels read of this format; scale it down"
        )
    return image


def _bytes(source: bytes | Path) -> bytes:
    if isinstance(source, bytes):
        data = source
    else:
        try:
            found = source.stat()
            if not stat.S_ISREG(found.st_mode):
                raise NotAnImageError("not a regular file; name a photo")
            # One byte more than allowed is enough to know; a file may also grow while it is read.
            with source.open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
        except OSError as error:
            raise NotAnImageError(f"cannot be read ({error.strerror}); check the path and its permissions") from None
    if len(data) > MAX_BYTES:
        raise PhotoTooLargeError(f"the file is larger than {MAX_BYTES >> 20} MiB; scale the photo down")
    return data


def _refuse_costly(data: bytes, jpeg: header_limits.Jpeg | None) -> None:
    # What would cost much before or in spite of a small header.
    if jpeg is not None and (jpeg.parts > MAX_PARTS or jpeg.exif > MAX_EXIF_PARTS or jpeg.scans > MAX_SCANS):
        raise PhotoTooLargeError("the JPEG is made of far too many parts; save it anew")
    if header_limits.png_parts(data, MAX_CHUNKS) > MAX_CHUNKS:
        raise PhotoTooLargeError("the PNG is made of far too many parts; save it anew")
    if header_limits.gif_parts(data, MAX_CHUNKS) > MAX_CHUNKS:
        raise PhotoTooLargeError("the GIF is made of far too many parts; save it anew")
    tiff = header_limits.tiff(data)
    if tiff is not None and (tiff.numbers > MAX_NUMBERS or tiff.tile_pixels > MAX_PIXELS):
        raise PhotoTooLargeError("the TIFF is made of far too many or too large parts; save it as JPEG")


def _max_pixels(image: Image.Image, jpeg: header_limits.Jpeg | None) -> int:
    if image.format not in ("JPEG", "MPO"):
        return MAX_PIXELS
    if jpeg is None:
        raise UndecodableError("the photo ends before its first pixel; send it again whole")
    return MAX_PIXELS_BASELINE_JPEG if jpeg.streamed else MAX_PIXELS_PROGRESSIVE_JPEG


def read_header(image: Image.Image) -> Header:
    """Read format, stored size, mode and EXIF orientation of an opened photo."""
    try:
        long = len(image.info.get("exif", b"")) > MAX_EXIF_BYTES
        orientation = 1 if long else image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:
        orientation = 1  # EXIF that cannot be parsed is no reason to refuse a photo
    valid = isinstance(orientation, int) and 1 <= orientation <= 8
    name = "JPEG" if image.format == "MPO" else str(image.format)
    return Header(name, image.width, image.height, image.mode, int(orientation) if valid else 1)


def decode(image: Image.Image, short_side: int | None = None) -> Image.Image:
    """Decode an opened photo: first frame, upright, RGB, transparency flattened onto white.

    Parameters
    ----------
    image
        From `open_photo`; used up by this call.
    short_side
        The shorter side that is needed, in pixels. A large JPEG is then decoded at 1/2, 1/4 or 1/8 of
        its size, never below this. None decodes every pixel.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.

    Raises
    ------
    UndecodableError
        The pixels are truncated or corrupt.
    """
    orientation = read_header(image).orientation
    try:
        if short_side is not None:
            image.draft(None, (short_side, short_side))
        image.load()
        rgb = _to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:
        # Decoders raise half a dozen kinds of error on hostile bytes; all mean the same here.
        raise UndecodableError(f"the photo is damaged and cannot be decoded ({error}); send it again whole") from None
    # Pillow turns a TIFF by itself when it loads it.
    transpose = None if image.format == "TIFF" else _TRANSPOSE.get(orientation)
    return rgb.transpose(transpose) if transpose is not None else rgb


_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = _to_8_bits(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    # 16 bits and more: Pillow's own conversion would clip everything above 255 to white. A band of rows at a
    # time, since the photo as float64 alone would be 8 bytes a pixel.
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


def read(source: bytes | Path, short_side: int | None = None) -> Image.Image:
    """Open and decode a photo in one step; see `open_photo` and `decode`."""
    return decode(open_photo(source), short_side)


def centre_square(image: Image.Image, size: int) -> Image.Image:
    """Cut the centre square of an RGB image and resize it (bicubic, antialiased) to `size` x `size`.

    Cut and resize are one step on the square alone, so that an extreme strip costs no more than a photo.
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
    # One pass a plane, scaled and shifted in place: a tenth of the time of the formula on the whole picture.
    for plane, mean, std, values in zip(planes, preprocessing.mean, preprocessing.std, pixels.T, strict=True):
        np.multiply(values.T, np.float32(1 / (255 * std)), out=plane)
        np.subtract(plane, np.float32(mean / std), out=plane)
    return planes


def model_input(source: bytes | Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Read a photo as the input of a model.

    Parameters
    ----------
    source
        The bytes of a photo, or the path of a file.
    preprocessing
        What the model expects.

    Returns
    -------
    ndarray of float32, shape (3, size, size)

    Raises
    ------
    PhotoError
        One of its children, when the photo cannot be used.
    """
    return normalise(centre_square(read(source, preprocessing.size), preprocessing.size), preprocessing)
