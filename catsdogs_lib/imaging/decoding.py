"""Decoding of photos, within limits: the only place that does it, for training as for serving.

Images that would be expensive to decode are rejected from their headers.
"""

import errno
import io
import stat
from collections.abc import Collection
from pathlib import Path
from typing import ClassVar, NamedTuple

from PIL import Image

from catsdogs_lib.common import malloc
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.imaging import causes, header_limits, heic, structure_limits
from catsdogs_lib.imaging.pixels import to_rgb

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIC")
"""Formats that are decoded, by their names in Pillow; HEIC where the extra ``heic`` is installed.

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
MAX_SIDE = 65_535
"""Pillow keeps a pointer for each row; those of a photo one pixel wide would fill the memory."""
MAX_JPEG_SCANNED_PIXELS = 450_000_000
"""Pixels of all scans of a JPEG together, at 1.5 ns each: 25 megapixels in the 18 scans that libjpeg writes of CMYK."""
MAX_EXIF_BYTES = 2**20
"""Longer EXIF is not parsed; a JPEG segment holds 64 kB."""

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


class Base64Error(NotAnImageError):
    """The bytes are a photo in base64."""

    kind = "text-encoded"


class MangledError(NotAnImageError):
    """The bytes were treated as text on the way, which destroyed them."""

    kind = "body-as-text"


class UnsupportedVariantError(PhotoError):
    """The photo is in one of `FORMATS`, in a variant that no decoder here reads."""

    kind = "unsupported-variant"


class PhotoTooLargeError(PhotoError):
    """The photo exceeds a limit on bytes, pixels or structure."""

    kind = "too-large"


class UndecodableError(PhotoError):
    """The photo is damaged: its header or its pixels cannot be decoded."""


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


def display_name(name: str) -> str:
    """Return the name of a format in its usual spelling."""
    return "WebP" if name == "WEBP" else name


def open_photo(source: bytes | Path, formats: Collection[str] = FORMATS) -> Image.Image:
    """Open a photo and check its header against the limits, without decoding pixels.

    Parameters
    ----------
    source
        The bytes of a photo, or the path of a file.
    formats
        Those of `FORMATS` that are read.

    Returns
    -------
    PIL.Image.Image
        Opened lazily, in an allowed format and size.

    Raises
    ------
    NotAnImageError
        The photo is empty, missing, in base64, or not in one of `formats`.
    PhotoTooLargeError
        The photo has too many bytes, pixels or parts.
    UnsupportedVariantError
        No decoder reads this variant of the format.
    UndecodableError
        The header is damaged.
    """
    data = _read_bytes(source)
    if not data:
        raise NotAnImageError("the file is empty; choose another photo")
    if causes.is_mangled(data):
        raise MangledError(
            "the photo is damaged: a gateway treated the body as text; set binary media types there "
            "(image/*, multipart/form-data)"
        )
    jpeg = header_limits.read_jpeg(data, structure_limits.MAX_JPEG_SEGMENTS)
    variant = causes.unsupported_jpeg(data)
    if variant is not None and "JPEG" in formats:
        raise _unsupported("JPEG", variant)
    excess = structure_limits.excess(data, jpeg)
    if excess is not None:
        raise PhotoTooLargeError(excess)
    try:
        image = _open(data, formats)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PhotoTooLargeError("the photo has far more pixels than are decoded; scale it down") from None
    except MemoryError:
        raise
    except Exception:
        # Plugins raise all kinds of errors on a broken header.
        raise _unopened(data, formats) from None
    if image.mode == "LAB":
        raise _unsupported(str(image.format), "CIELAB")
    _reject_large(image, jpeg)
    return image


def _open(data: bytes, formats: Collection[str]) -> Image.Image:
    if "HEIC" in formats and heic.is_heic(data) and heic.is_installed():
        return heic.open_heic(data)
    return Image.open(io.BytesIO(data), formats=tuple(name for name in formats if name != "HEIC"))


def _unsupported(name: str, variant: str) -> UnsupportedVariantError:
    return UnsupportedVariantError(
        f"this variant of {display_name(name)} is not supported ({variant}); save it as an 8-bit JPEG or PNG"
    )


def _unopened(data: bytes, formats: Collection[str]) -> PhotoError:
    # The error for a file that Pillow cannot open.
    available = [name for name in formats if name != "HEIC" or heic.is_installed()]
    name = "HEIC" if heic.is_heic(data) else causes.format_of(data)
    if name is not None and name in available:
        variant = causes.unsupported_variant(data)
        if variant is not None:
            return _unsupported(name, variant)
        return UndecodableError("the photo's header is damaged; send it again whole, or save it anew")
    if causes.is_base64(data):
        return Base64Error("the body is base64 text; send bytes")
    reason = f"{display_name(name)} is not read" if name else "not a photo that can be read"
    return NotAnImageError(f"{reason}; use one of {', '.join(map(display_name, available))}")


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


def _reject_large(image: Image.Image, jpeg: header_limits.JpegStructure | None) -> None:
    pixels, limit = image.width * image.height, _max_pixels(image, jpeg)
    if pixels > limit:
        raise PhotoTooLargeError(
            f"the photo has {image.width} x {image.height} pixels ({pixels / 1e6:.1f} megapixels), more than the "
            f"{limit / 1e6:.4g} megapixels read of this format; scale it down"
        )
    if max(image.size) > MAX_SIDE:
        raise PhotoTooLargeError(
            f"the photo has {image.width} x {image.height} pixels, a side longer than {MAX_SIDE}; crop it"
        )


def _max_pixels(image: Image.Image, jpeg: header_limits.JpegStructure | None) -> int:
    if image.format not in ("JPEG", "MPO"):
        return MAX_PIXELS
    if jpeg is None:
        raise UndecodableError("the photo ends before its first pixel; send it again whole")
    if jpeg.streamed:
        return MAX_PIXELS_BASELINE_JPEG
    return min(MAX_PIXELS_PROGRESSIVE_JPEG, MAX_JPEG_SCANNED_PIXELS // jpeg.scans)


def read_header(image: Image.Image) -> Header:
    """Read format, stored size, mode and EXIF orientation of an opened photo."""
    try:
        too_long = len(image.info.get("exif", b"")) > MAX_EXIF_BYTES
        orientation = 1 if too_long else image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:
        orientation = 1  # a photo with broken EXIF is still a photo
    valid = isinstance(orientation, int) and 1 <= orientation <= 8
    name = str(image.format)
    return Header(_CONTAINERS.get(name, name), image.width, image.height, image.mode, int(orientation) if valid else 1)


_CONTAINERS = {"MPO": "JPEG", "HEIF": "HEIC"}
"""Formats whose names in Pillow are those of the container around the photo."""


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
    UnsupportedVariantError
        No decoder here reads them.
    """
    orientation = read_header(image).orientation
    c_errno = malloc.c_errno()
    c_errno.value = 0
    try:
        if short_side is not None:
            image.draft(None, (short_side, short_side))
        image.load()
        rgb = to_rgb(image)
    except MemoryError:
        raise
    except Image.DecompressionBombError:
        raise PhotoTooLargeError("the photo has far more pixels than are decoded; scale it down") from None
    except Exception as error:
        # Decoders in C report a failed allocation as damage.
        if c_errno.value == errno.ENOMEM:
            raise PhotoTooLargeError(OUT_OF_MEMORY) from None
        # Decoders raise half a dozen kinds of errors on hostile bytes.
        raise _undecoded(image, error) from None
    # Pillow transposes a TIFF itself when it loads it.
    transpose = None if image.format == "TIFF" else _TRANSPOSE.get(orientation)
    return rgb.transpose(transpose) if transpose is not None else rgb


def _undecoded(image: Image.Image, error: Exception) -> PhotoError:
    # Pillow's messages mean nothing to users, but those about truncated data are known.
    compression = _TIFF_CODECS_OF_SOME_BUILDS.get(str(image.info.get("compression")))
    if compression is not None:
        return _unsupported("TIFF", f"{compression} compression")
    if isinstance(error, EOFError) or any(words in str(error) for words in ("truncated", "not enough image data")):
        return UndecodableError("the photo ends too early and cannot be decoded; send it again whole")
    return UndecodableError("the photo is damaged and cannot be decoded; send it again whole")


_TIFF_CODECS_OF_SOME_BUILDS = {"webp": "WebP", "zstd": "Zstandard", "lzma": "LZMA"}
"""TIFF compressions that some builds of Pillow lack, by their names in Pillow."""

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read(source: bytes | Path, short_side: int | None = None) -> Image.Image:
    """Open and decode a photo; see `open_photo` and `decode`."""
    return decode(open_photo(source), short_side)
