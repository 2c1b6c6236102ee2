"""What a file's structure says about the cost of decoding it, where Pillow's header does not tell.

Read from the bytes alone, before Pillow opens them; nothing is decoded. The walks mirror those of the
decoders (libjpeg's `next_marker`, TIFF 6.0 section 2), so that a file cannot look cheap here and be dear there.
"""

import re
import struct
from typing import NamedTuple

_SOS = 0xDA
_APP1 = 0xE1
_GIF_FRAME, _GIF_EXTENSION = 0x2C, 0x21
_FILL = re.compile(rb"\xff+")
_SEQUENTIAL_HUFFMAN = (0xC0, 0xC1)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})

_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TIFF_BLOBS = frozenset({1, 2, 6, 7})
_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH = 322, 323
_TIFF_OFFSETS = frozenset({273, 279, 324, 325})
_TIFF_BELOW = frozenset({34665, 34853, 40965})
_TIFF_DIRECTORIES = 8

_BRANDS = {
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"hevc": "HEIC",
    b"heim": "HEIC",
    b"heis": "HEIC",
    b"mif1": "HEIF",
    b"msf1": "HEIF",
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"mp41": "MP4",
    b"mp42": "MP4",
    b"isom": "MP4",
    b"qt  ": "MOV",
}
_SIGNATURES = (
    (b"%PDF", "PDF"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "Photoshop"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"\x1a\x45\xdf\xa3", "video"),
    (b"PK\x03\x04", "zip"),
    (b"FUJIFILM", "camera raw"),
)


class Jpeg(NamedTuple):
    """How a JPEG is coded.

    Attributes
    ----------
    streamed
        Rows are decoded as they come: sequential, Huffman-coded, all components in one scan. Any other keeps the
        coefficients of the whole photo in memory, 2 bytes for each component of a pixel.
    scans
        Times that the decoder goes over the photo.
    parts
        Segments before the first scan; Pillow keeps a list of them. Fill bytes count, too: it reads each by itself.
    exif
        How many of them hold EXIF; Pillow joins them and reads numbers out of them.
    """

    streamed: bool
    scans: int
    parts: int
    exif: int


class Tiff(NamedTuple):
    """How the first page of a TIFF is laid out.

    Attributes
    ----------
    numbers
        Numbers in its directory and those below it (EXIF, GPS); Pillow makes Python objects of them.
    tile_pixels
        Pixels of one tile, which is decoded whole, however small the photo; 0 where there are none.
    """

    numbers: int
    tile_pixels: int


def jpeg(data: bytes, most: int) -> Jpeg | None:
    """Read a JPEG up to its first scan, or to more than `most` parts; None where it has no scan, or is no JPEG."""
    if not data.startswith(b"\xff\xd8"):
        return None
    at, frame, components, parts, exif = 2, 0, 0, 0, 0
    while fill := _FILL.search(data, at):
        parts += len(fill[0])
        if parts > most:
            return Jpeg(False, 0, parts, exif)
        at = fill.end()
        marker = data[at] if at < len(data) else 0
        at += 1
        if marker in _WITHOUT_LENGTH:
            continue
        segment = data[at + 2 : at + 12]
        if len(segment) < 6:
            return None
        if marker in _FRAMES:
            frame, components = marker, segment[5]
        elif marker == _APP1:
            exif += segment.startswith(b"Exif\0")
        elif marker == _SOS:
            together = segment[0] == components
            return Jpeg(frame in _SEQUENTIAL_HUFFMAN and together, 1 + data.count(b"\xff\xda", at), parts, exif)
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return None


def png_parts(data: bytes, most: int) -> int:
    """Count the chunks of a PNG, up to one more than `most`; 0 where it is none."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return 0
    at, parts = 8, 0
    while at + 8 <= len(data) and parts <= most:
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        parts += 1
    return parts


def gif_parts(data: bytes, most: int) -> int:
    """Count the blocks before the first frame of a GIF, up to one more than `most`; 0 where it is none."""
    if data[:6] not in (b"GIF87a", b"GIF89a") or len(data) < 13:
        return 0
    at = 13 + (3 * 2 ** (1 + (data[10] & 7)) if data[10] & 0x80 else 0)
    parts = 0
    while at < len(data) and parts <= most and data[at] != _GIF_FRAME:
        extension = data[at] == _GIF_EXTENSION
        at, parts = at + (2 if extension else 1), parts + 1
        # An extension is a row of sub-blocks, each with its length first, that one of length 0 ends.
        while extension and at < len(data) and parts <= most:
            extension = data[at] != 0
            at, parts = at + 1 + data[at], parts + 1
    return parts


def tiff(data: bytes) -> Tiff | None:
    """Read the directories of the first page of a TIFF or BigTIFF; None where they cannot be read, or it is neither."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 16:
        return None
    # Pillow takes the version in either byte order.
    big = 43 in data[2:4]
    if not big and 42 not in data[2:4]:
        return None
    try:
        return _directories(data, order, big)
    except (struct.error, OverflowError):
        return None


def _directories(data: bytes, order: str, big: bool) -> Tiff:
    """Add up the first directory and those below it."""
    width, entry, word = (20, order + "HHQ", order + "Q") if big else (12, order + "HHL", order + "L")
    waiting = list(struct.unpack_from(word, data, 8 if big else 4))
    numbers, tile, visited = 0, [0, 0], 0
    while waiting and visited < _TIFF_DIRECTORIES:
        at = waiting.pop(0)
        visited += 1
        (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
        at += 8 if big else 2
        for place in range(at, at + width * min(entries, 65536), width):
            tag, kind, count = struct.unpack_from(entry, data, place)
            value = place + struct.calcsize(entry)
            if kind not in _TIFF_BLOBS or tag in _TIFF_OFFSETS:
                numbers += count
            if tag in _TIFF_BELOW and visited < _TIFF_DIRECTORIES:
                waiting += struct.unpack_from(word, data, value)
            if tag in (_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH) and visited == 1:
                code = {1: "B", 2: "H", 4: "L", 8: "Q"}[min(_TIFF_SIZES.get(kind, 4), 8 if big else 4)]
                (tile[tag - _TIFF_TILE_WIDTH],) = struct.unpack_from(order + code, data, value)
    return Tiff(numbers, tile[0] * tile[1])


def unread_format(data: bytes) -> str | None:
    """Name the format of a file that is none of those read, if it is a known one."""
    if data[4:8] == b"ftyp":
        brands = [data[8:12], *(data[at : at + 4] for at in range(16, min(len(data), 64), 4))]
        return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)
    starts = (data[:64], data[:64].lstrip())
    return next((name for signature, name in _SIGNATURES if any(s.startswith(signature) for s in starts)), None)
