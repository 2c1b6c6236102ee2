"""The structure of image files, which shows costs of decoding that Pillow's header does not.

Everything is read from the bytes, before Pillow opens them; nothing is decoded. The parsers follow the decoders
(libjpeg's `next_marker`, TIFF 6.0 section 2), so that a file cannot look cheap here and be expensive there.
"""

import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

_EOI, _SOS, _DQT, _APP1, _APP13 = 0xD9, 0xDA, 0xDB, 0xE1, 0xED
_GIF_FRAME, _GIF_EXTENSION = 0x2C, 0x21
_FILL = re.compile(rb"\xff\xff*")
_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""Ends the data of a scan: neither a stuffed byte nor a fill byte nor a restart marker."""
_SEQUENTIAL_HUFFMAN = (0xC0, 0xC1)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MARKERS_WITHOUT_LENGTH = frozenset({0x00, 0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)})
"""As Pillow reads them; libjpeg gives up at some."""
_PARSED_BYTES = 2048
"""Bytes that Pillow parses in Python in about 0.1 ms, and that count as a segment."""

_PNG_COMPRESSED = frozenset({b"iCCP", b"zTXt", b"iTXt"})
_PNG_TEXT = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_BMP_RLE = (1, 2)

_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TIFF_BLOBS = frozenset({1, 2, 6, 7})
_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH = 322, 323
_TIFF_STRIP_OFFSETS, _TIFF_STRIP_BYTES, _TIFF_TILE_OFFSETS, _TIFF_TILE_BYTES = 273, 279, 324, 325
_TIFF_OFFSETS = frozenset({_TIFF_STRIP_OFFSETS, _TIFF_STRIP_BYTES, _TIFF_TILE_OFFSETS, _TIFF_TILE_BYTES})
_TIFF_NESTED = frozenset({34665, 34853, 40965})
_TIFF_DIRECTORIES = 8
_TIFF_SUMMED = 2**15

_BRAND_BYTES = 64
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
        Number of scans up to the end of the primary image; the decoder passes over the whole photo for each. 1 for a
        streamed photo, whose decoder refuses a second.
    segments
        Segments up to the end of the primary image. Those before the first scan are kept in a list by Pillow. Fill
        bytes there count, since Pillow reads each separately; so does every 2 KB that it parses in Python:
        quantization tables, Photoshop resources, and stray bytes between segments.
    exif_segments
        Segments that hold EXIF; Pillow joins and parses them.
    """

    streamed: bool
    scans: int
    segments: int
    exif_segments: int


class JpegFrame(NamedTuple):
    """Frame of a JPEG: `process` is its marker, which names the coding process (0xC0 for baseline)."""

    process: int
    bits: int
    components: int


class PngStructure(NamedTuple):
    """Structure of a PNG up to its end chunk.

    Attributes
    ----------
    chunks
        Number of chunks.
    compressed
        Colour profiles and texts that may be compressed, each to a thousandth of its size; Pillow decompresses up to
        1 MiB of each.
    text_bytes
        Bytes of all texts, as stored; Pillow keeps up to 4 bytes for each.
    """

    chunks: int
    compressed: int
    text_bytes: int


class RleBmp(NamedTuple):
    """Size of a run-length encoded BMP, which Pillow decodes in Python.

    It takes up to 0.12 µs of processor time for each pixel, and 0.25 µs for each encoded byte.
    """

    pixels: int
    encoded_bytes: int


class TiffStructure(NamedTuple):
    """Structure of the first page of a TIFF.

    Attributes
    ----------
    numbers
        Numbers in its directory and the nested ones (EXIF, GPS), each of which Pillow turns into a Python object.
    tile_pixels
        Pixels of a tile, which is decoded whole even if the photo is smaller; 0 without tiles.
    parts
        Number of strips or tiles.
    part_bytes
        Bytes of all strips or tiles together. They can be more than the file has: strips may overlap.
    """

    numbers: int
    tile_pixels: int
    parts: int
    part_bytes: int


class _Segment(NamedTuple):
    # Of a JPEG: where its length is, and what was passed over to reach it.
    marker: int
    at: int
    length: int
    fill_bytes: int
    stray_bytes: int


def _segments_before_scan(data: bytes) -> Iterator[_Segment]:
    # With the head of the first scan, as Pillow reads them.
    at = 2
    while fill := _FILL.search(data, at):
        stray, end = fill.start() - at, fill.end()
        marker = data[end] if end < len(data) else 0
        length = 0 if marker in _MARKERS_WITHOUT_LENGTH else max(2, int.from_bytes(data[end + 1 : end + 3], "big"))
        yield _Segment(marker, end + 1, length, len(fill[0]), stray)
        if marker == _SOS:
            return
        at = end + 1 + length


def read_jpeg(data: bytes, limit: int) -> JpegStructure | None:
    """Parse a JPEG up to the end of its primary image, or to `limit` segments; None for other data, or without a scan.

    Data behind the primary image, such as a video or a second JPEG, is not parsed, since the decoder never sees it.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    frame, components, segments, exif, parsed = 0, 0, 0, 0, 0
    for marker, at, length, fill_bytes, stray_bytes in _segments_before_scan(data):
        parsed += stray_bytes + (length if marker in (_DQT, _APP13) else 0)
        segments += fill_bytes
        if segments + parsed // _PARSED_BYTES > limit:
            return JpegStructure(False, 0, segments + parsed // _PARSED_BYTES, exif)
        segment = data[at + 2 : at + 12]
        if length and len(segment) < 6:
            return None
        if marker in _FRAMES:
            frame, components = marker, segment[5]
        elif marker == _APP1:
            exif += segment.startswith(b"Exif\0")
        elif marker == _SOS:
            segments += parsed // _PARSED_BYTES
            streamed = frame in _SEQUENTIAL_HUFFMAN and segment[0] == components
            scans, later = (1, 0) if streamed else _count_scans(data, at + length, limit - segments)
            return JpegStructure(streamed, scans, segments + later, exif)
    return None


def read_jpeg_frame(data: bytes, limit: int) -> JpegFrame | None:
    """Read the frame of a JPEG within the first `limit` segments; None for other data, or without one."""
    segments = islice(_segments_before_scan(data), limit) if data.startswith(b"\xff\xd8") else ()
    frame = next((segment for segment in segments if segment.marker in _FRAMES), None)
    if frame is None or len(data) < frame.at + 8:
        return None
    return JpegFrame(frame.marker, data[frame.at + 2], data[frame.at + 7])


def _count_scans(data: bytes, at: int, limit: int) -> tuple[int, int]:
    # From behind the head of the first scan: the scans with that one, and the markers that end their data.
    scans, segments = 1, 0
    while segments <= limit and (end := _MARKER_AFTER_SCAN.search(data, at)):
        at, marker = end.end(), data[end.end() - 1]
        segments += 1
        if marker == _EOI:
            break
        scans += marker == _SOS
        if marker not in _MARKERS_WITHOUT_LENGTH:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return scans, segments


def read_png(data: bytes, limit: int) -> PngStructure | None:
    """Parse a PNG up to its end chunk, or to ``limit + 1`` chunks; None for other data."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return None
    at, chunks, compressed, text = 8, 0, 0, 0
    while at + 8 <= len(data) and chunks <= limit:
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        chunks += 1
        compressed += kind in _PNG_COMPRESSED
        text += length if kind in _PNG_TEXT else 0
        if kind == b"IEND":
            break
        at += 12 + length
    return PngStructure(chunks, compressed, text)


def read_rle_bmp(data: bytes) -> RleBmp | None:
    """Read the size of a run-length encoded BMP; None for other data."""
    if not data.startswith(b"BM") or len(data) < 34 or int.from_bytes(data[30:34], "little") not in _BMP_RLE:
        return None
    if int.from_bytes(data[14:18], "little") < 40:
        return None  # the header of OS/2 1.x, which has no such field
    width, height = struct.unpack_from("<Ll", data, 18)
    return RleBmp(width * abs(height), len(data) - int.from_bytes(data[10:14], "little"))


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
    numbers, parts, part_bytes, visited, tile = 0, 0, 0, 0, [0, 0]
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
            if visited > 1:
                continue
            code = {1: "B", 2: "H", 4: "L", 8: "Q"}[min(_TIFF_SIZES.get(kind, 4), 8 if big else 4)]
            if tag in (_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH):
                (tile[tag - _TIFF_TILE_WIDTH],) = struct.unpack_from(order + code, data, value)
            elif tag in (_TIFF_STRIP_OFFSETS, _TIFF_TILE_OFFSETS):
                parts = max(parts, count)
            elif tag in (_TIFF_STRIP_BYTES, _TIFF_TILE_BYTES):
                part_bytes = max(part_bytes, _sum_numbers(data, order, code, count, value, word))
    return TiffStructure(numbers, tile[0] * tile[1], parts, part_bytes)


def _sum_numbers(data: bytes, order: str, code: str, count: int, at: int, word: str) -> int:
    # Numbers that do not fit into the entry lie where it points.
    size = struct.calcsize(order + code)
    if count * size > struct.calcsize(word):
        (at,) = struct.unpack_from(word, data, at)
    count = min(count, _TIFF_SUMMED, max(0, len(data) - at) // size)
    # Where a number is larger than the file, decoders read to its end.
    return sum(min(number, len(data)) for number in struct.unpack_from(f"{order}{count}{code}", data, at))


def file_brands(data: bytes) -> list[bytes]:
    """Read the major and the compatible brands of a file of the MPEG-4 family (ISO/IEC 14496-12); [] for other data."""
    if data[4:8] != b"ftyp":
        return []
    end = min(int.from_bytes(data[:4], "big"), _BRAND_BYTES)
    return [data[8:12], *(data[at : at + 4] for at in range(16, end, 4))]


def unread_format(data: bytes) -> str | None:
    """Name the format of a file that is not decoded, if it is a known one."""
    if data[4:8] == b"ftyp":
        return next((_BRANDS[brand] for brand in file_brands(data) if brand in _BRANDS), None)
    starts = (data[:64], data[:64].lstrip())
    return next((name for signature, name in _SIGNATURES if any(s.startswith(signature) for s in starts)), None)
