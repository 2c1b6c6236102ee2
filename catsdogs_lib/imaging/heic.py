"""HEIC, which libheif decodes where the extra ``heic`` is installed."""

import importlib.util
import io

from PIL import Image

from catsdogs_lib.imaging import header_limits

_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})


def is_installed() -> bool:
    """Tell whether pillow-heif is installed, without importing it."""
    return importlib.util.find_spec("pillow_heif") is not None


def is_heic(data: bytes) -> bool:
    """Tell whether a file declares itself as HEIC: a still image coded in HEVC."""
    brands = set(header_limits.file_brands(data))
    return bool(brands & _BRANDS) and not brands & _AVIF_BRANDS


def open_heic(data: bytes) -> Image.Image:
    """Open the primary image of a HEIC, without decoding pixels; it has 8 bits and is upright once it is loaded.

    Raises
    ------
    Exception
        The file is damaged; plugins of Pillow raise all kinds of errors.
    """
    import pillow_heif  # noqa: PLC0415 - an extra, which most photos do without

    # The primary image only, and in one thread, like all other photos.
    pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)
    return Image.open(io.BytesIO(data), formats=("HEIF",))
