"""Reasons why a file cannot be decoded, found from its bytes without decoding it."""

import base64
import binascii
import io
import re

from catsdogs_lib.imaging import header_limits

HEAD = 4096
"""Bytes at the start of a file that are searched for signs of text."""
MAX_SEGMENTS_TO_FRAME = 2000
"""JPEG segments that are searched for the frame."""

_FORMATS = {
    "JPEG": re.compile(rb"\xff\xd8\xff[\xc0-\xfe]"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL),
    "TIFF": re.compile(rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]"),
}
_ENCODED_FORMATS = frozenset({*_FORMATS, "HEIC", "HEIF", "AVIF"})
"""Formats whose signatures are too long for base64 text to contain by chance."""
_DATA_URI = re.compile(rb"\s*[\"']?data:[\w.+-]*/?[\w.+-]*(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)
_BASE64 = re.compile(rb"\s*[\"']?([A-Za-z0-9+/_-][A-Za-z0-9+/_=\s-]{14,})")
_MANGLED = re.compile(
    # The first bytes of JPEG and PNG, each invalid one replaced by U+FFFD, by a question mark, or by its character
    # in Latin-1, all in UTF-8; and a PNG whose line ends were converted.
    rb"(?:\xef\xbf\xbd){3}"
    rb"|\?{4}..?(?:JFIF|Exif)\0"
    rb"|\xc3\xbf\xc3\x98\xc3\xbf"
    rb"|(?:\xef\xbf\xbd|\?|\xc2\x89)PNG\r?\n"
    rb"|\x89PNG(?:\n|\r\r)",
    re.DOTALL,
)
_ASCII_START = re.compile(rb"RIFF|GIF8[79]a|BM|II[\x2a\x2b]\0|MM\0[\x2a\x2b]|....ftyp", re.DOTALL)

_HIERARCHICAL = frozenset({0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF})
_LOSSLESS_ARITHMETIC = 0xCB
_TIFF_SAMPLE_FORMATS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
_TIFF_COLOURS = {8: "CIELAB", 9: "CIELAB", 10: "CIELAB", 32803: "camera raw", 34892: "camera raw"}
_TIFF_CODECS = {34661: "JBIG", 34712: "JPEG 2000", 34887: "LERC", 34892: "lossy DNG", 50001: "WebP", 50002: "JPEG XL"}
_BMP_CODECS = {4: "a JPEG inside", 5: "a PNG inside"}


def format_of(data: bytes) -> str | None:
    """Identify the format of a file by its first bytes, as named by Pillow; None for an unknown one."""
    known = (name for name, start in _FORMATS.items() if start.match(data))
    return next(known, None) or header_limits.unread_format(data)


def is_base64(data: bytes) -> bool:
    """Tell whether a file is a photo in base64 (standard or URL-safe), alone or in a data URI."""
    head = data[:HEAD]
    if _DATA_URI.match(head):
        return True
    text = _BASE64.match(head)
    if text is None:
        return False
    digits = b"".join(text[1].split()).translate(bytes.maketrans(b"-_", b"+/"))[:64]
    try:
        return format_of(base64.b64decode(digits[: len(digits) // 4 * 4])) in _ENCODED_FORMATS
    except binascii.Error:
        return False


def is_mangled(data: bytes) -> bool:
    """Tell whether a photo was corrupted by being treated as text in transit."""
    head = data[:HEAD]
    if _MANGLED.match(head):
        return True
    if b"\xef\xbf\xbd" not in head or not _ASCII_START.match(head):
        return False
    try:
        head[: head.rindex(b"\xef\xbf\xbd")].decode()
    except UnicodeDecodeError:
        return False
    return True


def unsupported_variant(data: bytes) -> str | None:
    """Name the feature that keeps a photo in a known format from being decoded; None if it is not known."""
    match format_of(data):
        case "JPEG":
            return unsupported_jpeg(data)
        case "TIFF":
            return _unsupported_tiff(data)
        case "BMP":
            return _unsupported_bmp(data)
        case "WEBP":
            return None if data[12:15] == b"VP8" else "an unknown kind of WebP"
    return None


def unsupported_jpeg(data: bytes) -> str | None:
    """Name the feature of a JPEG that libjpeg or Pillow does not support; None if there is none."""
    frame = header_limits.read_jpeg_frame(data, MAX_SEGMENTS_TO_FRAME)
    if frame is None:
        return None
    if frame.bits != 8:
        return f"{frame.bits}-bit"
    if frame.process in _HIERARCHICAL:
        return "hierarchical"
    if frame.process == _LOSSLESS_ARITHMETIC:
        return "lossless with arithmetic coding"
    return None if frame.components in (1, 3, 4) else f"{frame.components} colour components"


def _unsupported_tiff(data: bytes) -> str | None:
    from PIL import TiffImagePlugin  # noqa: PLC0415 - takes milliseconds, which other photos need not wait for

    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if 43 in data[2:4] else 8])
        stream = io.BytesIO(data)
        stream.seek(tags.next)
        tags.load(stream)
        compression = int(tags.get(TiffImagePlugin.COMPRESSION, 1))
        colours = int(tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0))
        bits = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
        sample_format = max(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,)))
        if TiffImagePlugin.IMAGEWIDTH not in tags or TiffImagePlugin.IMAGELENGTH not in tags:
            return None
    except Exception:
        return None  # a broken directory fails in as many ways as a broken photo
    if compression not in TiffImagePlugin.COMPRESSION_INFO:
        return f"{_TIFF_CODECS.get(compression, f'unknown ({compression})')} compression"
    if colours in _TIFF_COLOURS:
        return _TIFF_COLOURS[colours]
    if sample_format in _TIFF_SAMPLE_FORMATS:
        return f"{bits}-bit {_TIFF_SAMPLE_FORMATS[sample_format]} samples"
    layout = ", each colour on its own plane" if tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == 2 else ""
    return f"{bits}-bit samples in an unusual layout{layout}"


def _unsupported_bmp(data: bytes) -> str | None:
    if data[14] == 12:
        bits, compression = int.from_bytes(data[24:26], "little"), 0
    else:
        bits, compression = (int.from_bytes(data[at : at + size], "little") for at, size in ((28, 2), (30, 4)))
    if compression in _BMP_CODECS:
        return _BMP_CODECS[compression]
    if bits not in (1, 4, 8, 16, 24, 32):
        return f"{bits}-bit"
    return "an unusual order of bits" if compression == 3 else None
