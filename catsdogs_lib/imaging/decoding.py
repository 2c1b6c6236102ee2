"""Decoding of photos, within limits: the only place that does it, for training as for serving.

Images that would be expensive to decode are rejected from their headers.
"""

import errno
import io
import stat
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catsdogs_lib.common import malloc
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.imaging import header_limits

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats that are decoded, by their names in Pillow.

AVIF is not among them: a file of 3 KB that claims 300 x 300 pixels can make its decoder allocate 400 MB, and Pillow
offers no way to find out beforehand.
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
"""File suffixes that count as photos when a folder is scanned, and the format each implies.

They include formats that are not decoded, so that such files are reported instead of skipped in silence.
"""

MAX_BYTES = 64 * 2**20
"""Largest file that is read."""
MAX_PIXELS_BASELINE_JPEG = 50_000_000
"""A JPEG is decoded at a fraction of its size (`Image.draft`), so it may be large."""
MAX_PIXELS_PROGRESSIVE_JPEG = 25_000_000
"""A progressive JPEG, or one with a scan for each component, is held in memory whole: up to 8 bytes a pixel."""
MAX_PIXELS = 12_600_000
"""Other formats are decoded whole, at up to 17 bytes a pixel (WebP); 12-megapixel phone photos still pass."""
MAX_JPEG_SCANS = 32
"""Each scan decodes the whole photo again; encoders write about ten."""
MAX_JPEG_SEGMENTS = 2000
"""Segments before the pixels of a JPEG; depth maps take a few hundred."""
MAX_EXIF_SEGMENTS = 4
"""Segments of a JPEG that hold EXIF; encoders write one."""
MAX_EXIF_BYTES = 2**20
"""Longer EXIF is not parsed; a JPEG segment holds 64 kB."""
MAX_CHUNKS = 20_000
"""Chunks of a PNG, blocks before the first frame of a GIF; encoders write one for every 8 kB or more."""
MAX_TIFF_NUMBERS = 2**18
"""Numbers in the directories of a TIFF; a 16-bit palette alone has 196,608."""

OUT_OF_MEMORY = "the photo takes more memory to decode than is allowed; scale it down, or save it as a baseline JPEG"

EXIF_ORIENTATION = 0x0112


class PhotoError(CatsdogsError):
    """A photo that cannot be used; ``str()`` says why in one sentence.

    Attributes
    ----------
    kind
        Name of the problem, for programs.
    """

    kind: ClassVar[str] = "undecodable"


class NotAnImageError(PhotoError):
    """The bytes are not a photo in one of `FORMATS`."""

    kind = "not-a-photo"


class PhotoTooLargeError(PhotoError):
    """The photo exceeds a limit on bytes, pixels or structure."""

    kind = "too-large"


class UndecodableError(PhotoError):
    """The photo has a valid header, but its pixels cannot be decoded."""


class Header(NamedTuple):
    """A photo's header, readable before its pixels are decoded.

    `width` and `height` are in pixels as stored, before the EXIF `orientation` (1 to 8; 1 where it is
    missing or invalid) is applied; `mode` is Pillow's, e.g. ``"CMYK"``.
    """

    format: str
    width: int
    height: int
    mode: str
    orientation: int


def open_photo(source: bytes | Path) -> Image.Image:
    """Open a photo and check its header against the limits, without decoding pixels.

    Parameters
    ----------
    source
        The bytes of a photo, or the path of a file.

    Returns
    -------
    PIL.Image.Image
        Opened lazily, in an allowed format and size.

    Raises
    ------
    NotAnImageError
        The photo is empty, missing, or not in one of `FORMATS`.
    PhotoTooLargeError
        The photo has too many bytes or pixels.
    """
    data = _read_bytes(source)
    if not data:
        raise NotAnImageError("the file is empty; choose another photo")
    jpeg = header_limits.read_jpeg(data, MAX_JPEG_SEGMENTS)
    _reject_costly(data, jpeg)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PhotoTooLargeError("the photo has far more pixels than are decoded; scale it down") from None
    except MemoryError:
        raise
    except Exception:
        # Plugins raise all kinds of errors on a broken header.
        names = ", ".join("WebP" if name == "WEBP" else name for name in FORMATS)
        unread = header_limits.unread_format(data)
        reason = f"{unread} is not read" if unread else "not a photo that can be read"
        raise NotAnImageError(f"{reason}; use one of {names}") from None
    pixels, limit = image.width * image.height, _max_pixels(image, jpeg)
    if pixels > limit:
        raise PhotoTooLargeError(
            f"the photo has {image.width} x {image.height} pixels ({pixels / 1e6:.1f} megapixels), more than the "
            f"{limit / 1e6:.4g} megapixels read of this format; scale it down"
        )
    return image


def _read_bytes(source: bytes | Path) -> bytes:
    if isinstance(source, bytes):
        data = source
    else:
        try:
            if not stat.S_ISREG(source.stat().st_mode):
                raise NotAnImageError("not a regular file; name a photo")
            # One byte too many is enough to know, whatever stat says: the file may be growing.
            with source.open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
        except OSError as error:
            raise NotAnImageError(f"cannot be read ({error.strerror}); check the path and its permissions") from None
    if len(data) > MAX_BYTES:
        raise PhotoTooLargeError(f"the file is larger than {MAX_BYTES >> 20} MiB; scale the photo down")
    return data


def _reject_costly(data: bytes, jpeg: header_limits.JpegStructure | None) -> None:
    # Costs that the size in the header does not show.
    if jpeg is not None and (
        jpeg.segments > MAX_JPEG_SEGMENTS or jpeg.exif_segments > MAX_EXIF_SEGMENTS or jpeg.scans > MAX_JPEG_SCANS
    ):
        raise PhotoTooLargeError("the JPEG is made of far too many parts; save it anew")
    if header_limits.count_png_chunks(data, MAX_CHUNKS) > MAX_CHUNKS:
        raise PhotoTooLargeError("the PNG is made of far too many parts; save it anew")
    if header_limits.count_gif_blocks(data, MAX_CHUNKS) > MAX_CHUNKS:
        raise PhotoTooLargeError("the GIF is made of far too many parts; save it anew")
    tiff = header_limits.read_tiff(data)
    if tiff is not None and (tiff.numbers > MAX_TIFF_NUMBERS or tiff.tile_pixels > MAX_PIXELS):
        raise PhotoTooLargeError("the TIFF is made of far too many or too large parts; save it as JPEG")


def _max_pixels(image: Image.Image, jpeg: header_limits.JpegStructure | None) -> int:
    if image.format not in ("JPEG", "MPO"):
        return MAX_PIXELS
    if jpeg is None:
        raise UndecodableError("the photo ends before its first pixel; send it again whole")
    return MAX_PIXELS_BASELINE_JPEG if jpeg.streamed else MAX_PIXELS_PROGRESSIVE_JPEG


def read_header(image: Image.Image) -> Header:
    """Read format, stored size, mode and EXIF orientation of an opened photo."""
    try:
        too_long = len(image.info.get("exif", b"")) > MAX_EXIF_BYTES
        orientation = 1 if too_long else image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:
        orientation = 1  # a photo with broken EXIF is still a photo
    valid = isinstance(orientation, int) and 1 <= orientation <= 8
    name = "JPEG" if image.format == "MPO" else str(image.format)
    return Header(name, image.width, image.height, image.mode, int(orientation) if valid else 1)


def decode(image: Image.Image, short_side: int | None = None) -> Image.Image:
    """Decode an opened photo to RGB: its first frame, upright, transparency flattened onto white.

    Parameters
    ----------
    image
        From `open_photo`; this call consumes it.
    short_side
        Shorter side that you need, in pixels: a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, but
        never smaller than this. None decodes every pixel.

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
    c_errno = malloc.c_errno()
    c_errno.value = 0
    try:
        if short_side is not None:
            image.draft(None, (short_side, short_side))
        image.load()
        rgb = _to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:
        # Decoders in C report a failed allocation as damage.
        if c_errno.value == errno.ENOMEM:
            raise PhotoTooLargeError(OUT_OF_MEMORY) from None
        # Decoders raise half a dozen kinds of errors on hostile bytes.
        raise UndecodableError(f"the photo is damaged and cannot be decoded ({error}); send it again whole") from None
    # Pillow transposes a TIFF itself when it loads it.
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


def read(source: bytes | Path, short_side: int | None = None) -> Image.Image:
    """Open and decode a photo; see `open_photo` and `decode`."""
    return decode(open_photo(source), short_side)
