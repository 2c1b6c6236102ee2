"""The structure of image files, which shows costs of decoding that Pillow's header does not.

Everything is read from the bytes, before Pillow opens them; nothing is decoded. The parsers follow the decoders
(libjpeg's `next_marker`, TIFF 6.0 section 2), so that a file cannot look cheap here and be expensive there.
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
_MARKERS_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})

_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TIFF_BLOBS = frozenset({1, 2, 6, 7})
_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH = 322, 323
_TIFF_OFFSETS = frozenset({273, 279, 324, 325})
_TIFF_NESTED = frozenset({34665, 34853, 40965})
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


class JpegStructure(NamedTuple):
    """Structure of a JPEG.

    Attributes
    ----------
    streamed
        True if rows are decoded as they arrive: sequential, Huffman-coded, all components in one scan. Otherwise the
        decoder holds the coefficients of the whole photo, 2 bytes for each component of a pixel.
    scans
        Number of scans; the decoder passes over the whole photo for each.
    segments
        Segments before the first scan, which Pillow keeps in a list. Fill bytes count: Pillow reads each separately.
    exif_segments
        Segments that hold EXIF; Pillow joins and parses them.
    """

    streamed: bool
    scans: int
    segments: int
    exif_segments: int


class TiffStructure(NamedTuple):
    """Structure of the first page of a TIFF.

    Attributes
    ----------
    numbers
        Numbers in its directory and the nested ones (EXIF, GPS), each of which Pillow turns into a Python object.
    tile_pixels
        Pixels of a tile, which is decoded whole even if the photo is smaller; 0 without tiles.
    """

    numbers: int
    tile_pixels: int


def read_jpeg(data: bytes, limit: int) -> JpegStructure | None:
    """Parse a JPEG up to its first scan, or to `limit` segments; None for other data, or without a scan."""
    if not data.startswith(b"\xff\xd8"):
        return None
    at, frame, components, segments, exif = 2, 0, 0, 0, 0
    while fill := _FILL.search(data, at):
        segments += len(fill[0])
        if segments > limit:
            return JpegStructure(False, 0, segments, exif)
        at = fill.end()
        marker = data[at] if at < len(data) else 0
        at += 1
        if marker in _MARKERS_WITHOUT_LENGTH:
            continue
        segment = data[at + 2 : at + 12]
        if len(segment) < 6:
            return None
        if marker in _FRAMES:
            frame, components = marker, segment[5]
        elif marker == _APP1:
            exif += segment.startswith(b"Exif\0")
        elif marker == _SOS:
            streamed = frame in _SEQUENTIAL_HUFFMAN and segment[0] == components
            return JpegStructure(streamed, 1 + data.count(b"\xff\xda", at), segments, exif)
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return None


def count_png_chunks(data: bytes, limit: int) -> int:
    """Count the chunks of a PNG, up to ``limit + 1``; 0 for other data."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return 0
    at, chunks = 8, 0
    while at + 8 <= len(data) and chunks <= limit:
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        chunks += 1
    return chunks


def count_gif_blocks(data: bytes, limit: int) -> int:
    """Count the blocks before the first frame of a GIF, up to ``limit + 1``; 0 for other data."""
    if data[:6] not in (b"GIF87a", b"GIF89a") or len(data) < 13:
        return 0
    at = 13 + (3 * 2 ** (1 + (data[10] & 7)) if data[10] & 0x80 else 0)
    blocks = 0
    while at < len(data) and blocks <= limit and data[at] != _GIF_FRAME:
        extension = data[at] == _GIF_EXTENSION
        at, blocks = at + (2 if extension else 1), blocks + 1
        # An extension is a series of sub-blocks, each preceded by its length; length 0 ends it.
        while extension and at < len(data) and blocks <= limit:
            extension = data[at] != 0
            at, blocks = at + 1 + data[at], blocks + 1
    return blocks


def read_tiff(data: bytes) -> TiffStructure | None:
    """Parse the directories of the first page of a TIFF or BigTIFF; None for other or damaged data."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 16:
        return None
    # Pillow accepts the version in either byte order.
    big = 43 in data[2:4]
    if not big and 42 not in data[2:4]:
        return None
    try:
        return _read_directories(data, order, big)
    except (struct.error, OverflowError):
        return None


def _read_directories(data: bytes, order: str, big: bool) -> TiffStructure:
    width, entry, word = (20, order + "HHQ", order + "Q") if big else (12, order + "HHL", order + "L")
    waiting = list(struct.unpack_from(word, data, 8 if big else 4))
    numbers, tile, visited = 0, [0, 0], 0
    while waiting and visited < _TIFF_DIRECTORIES:
        at = waiting.pop(0)
        visited += 1
        (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
        at += 8 if big else 2
        for entry_at in range(at, at + width * min(entries, 65536), width):
            tag, kind, count = struct.unpack_from(entry, data, entry_at)
            value = entry_at + struct.calcsize(entry)
            if kind not in _TIFF_BLOBS or tag in _TIFF_OFFSETS:
                numbers += count
            if tag in _TIFF_NESTED and visited < _TIFF_DIRECTORIES:
                waiting += struct.unpack_from(word, data, value)
            if tag in (_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH) and visited == 1:
                code = {1: "B", 2: "H", 4: "L", 8: "Q"}[min(_TIFF_SIZES.get(kind, 4), 8 if big else 4)]
                (tile[tag - _TIFF_TILE_WIDTH],) = struct.unpack_from(order + code, data, value)
    return TiffStructure(numbers, tile[0] * tile[1])


def unread_format(data: bytes) -> str | None:
    """Name the format of a file that is not decoded, if it is a known one."""
    if data[4:8] == b"ftyp":
        brands = [data[8:12], *(data[at : at + 4] for at in range(16, min(len(data), 64), 4))]
        return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)
    starts = (data[:64], data[:64].lstrip())
    return next((name for signature, name in _SIGNATURES if any(s.startswith(signature) for s in starts)), None)
