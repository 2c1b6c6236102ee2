"""Generated files that exhaust or mislead a decoder; their names and bytes are the same every time."""

import base64
import gzip
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from catsdogs_lib.data.synthetic.render import draw

MAX_BYTES = 24 * 2**20 - 2**16
"""Largest file made: one that a body may hold, with a form around it."""


class HostileFile(NamedTuple):
    """A file's name, whose suffix is a photo's, and its bytes."""

    name: str
    data: bytes


def saved(name: str, picture: Image.Image | None = None, **options: Any) -> bytes:
    """Encode a picture, by default a drawn cat, in a format of Pillow."""
    stream = io.BytesIO()
    (picture or draw("cat", 3)).save(stream, name, **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    """Make a chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, pixels: bytes, *before: bytes, interlaced: bool = False) -> bytes:
    """Make a PNG of RGB pixels, given with their filter bytes, and of chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlaced)
    parts = (chunk(b"IHDR", header), *before, chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bomb(width: int, height: int) -> bytes:
    """Make a PNG of some kilobytes that claims many pixels."""
    return png(width, height, bytes(10**6))


def png_of_inflating_chunks(kind: bytes, count: int) -> bytes:
    """Make a small PNG with `count` chunks, each of which inflates to 1 MiB."""
    start = {b"iCCP": b"a\0\0", b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0"}[kind]
    part = chunk(kind, start + zlib.compress(bytes(2**20), 9))
    return png(64, 64, bytes(64 * 193), part * min(count, MAX_BYTES // len(part)))


def bmp_of_runs(width: int, height: int, runs: bytes) -> bytes:
    """Make an RLE8 BMP of encoded rows."""
    sizes = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    palette = b"".join(bytes((value, value, value, 0)) for value in range(256))
    start = 14 + len(sizes) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + sizes + palette + runs


def jpeg_of_resources() -> bytes:
    """Make a JPEG of 24 MiB: APP13 segments full of empty Photoshop resources."""
    resources = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\0" * 5459
    segment = b"\xff\xed" + struct.pack(">H", len(resources) + 2) + resources
    data = saved("JPEG")
    return data[:2] + segment * ((MAX_BYTES - len(data)) // len(segment)) + data[2:]


def jpeg_of_scans(count: int, size: tuple[int, int] = (320, 240)) -> bytes:
    """Make a progressive JPEG with `count` scans, by repeating its last one."""
    data = saved("JPEG", draw("cat", 3).resize(size), progressive=True, quality=60)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * (count - data.count(b"\xff\xda")) + b"\xff\xd9"


def mp4(size: int) -> bytes:
    """Make an MP4 like a phone's, with `size` bytes of noise as its content."""
    kinds = b"isom" + struct.pack(">I", 512) + b"isomiso2avc1mp41"
    return struct.pack(">I4s", 8 + len(kinds), b"ftyp") + kinds + struct.pack(">I4s", 8 + size, b"mdat") + noise(size)


def noise(size: int) -> bytes:
    """Make random bytes, among which are all markers of a JPEG."""
    return np.random.default_rng(0).bytes(size)


def tiff(photometric: int, bits: int, sample_format: int) -> bytes:
    """Make a TIFF of 64 x 64 pixels with three samples each, of whatever kind."""
    pixels = bytes(64 * 64 * 3 * bits // 8)
    after = 8 + len(pixels)
    entries = (
        (256, 3, 1, 64),
        (257, 3, 1, 64),
        (258, 3, 3, after),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, 8),
        (277, 3, 1, 3),
        (278, 3, 1, 64),
        (279, 4, 1, len(pixels)),
        (339, 3, 3, after + 6),
    )
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    values = struct.pack("<6H", *[bits] * 3, *[sample_format] * 3)
    directory = struct.pack("<H", len(entries)) + table + bytes(4)
    return b"II*\0" + struct.pack("<I", after + len(values)) + pixels + values + directory


def _grainy(width: int, height: int) -> Image.Image:
    grain = np.random.default_rng(0).integers(0, 60, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.blend(draw("cat", 5).resize((width, height)), Image.fromarray(grain).resize((width, height)), 0.4)


def _jpeg_12_bit() -> bytes:
    data = bytearray(saved("JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = 0xC1, 12
    return bytes(data)


def _interlaced_and_cut() -> bytes:
    data = png(64, 64, bytes(64 * 200), interlaced=True)
    return data[:-24]


_FILES: dict[str, Callable[[], bytes]] = {
    # expensive
    "iccp_19000_chunks.png": lambda: png_of_inflating_chunks(b"iCCP", 19_000),
    "ztxt_1000_chunks.png": lambda: png_of_inflating_chunks(b"zTXt", 1000),
    "itxt_1000_chunks.png": lambda: png_of_inflating_chunks(b"iTXt", 1000),
    "rle_fill_1kB.bmp": lambda: bmp_of_runs(12_599_999, 1, b"\1\1\0\0"),
    "rle_single_pixel_runs.bmp": lambda: bmp_of_runs(3540, 3540, (b"\1\x80" * 3540 + b"\0\0") * 3540)[:MAX_BYTES],
    "app13_8bim_24MiB.jpg": jpeg_of_resources,
    "bomb_60000x60000.png": lambda: bomb(60_000, 60_000),
    "bomb_3500x3500.png": lambda: bomb(3500, 3500),
    "scans_33.jpg": lambda: jpeg_of_scans(33),
    "scans_32_24_megapixels.jpg": lambda: jpeg_of_scans(32, (5700, 4300)),
    # as expensive as what is accepted
    "lossless_12_megapixels.webp": lambda: saved("WEBP", _grainy(4096, 3072), lossless=True, quality=0, method=0),
    "progressive_12_megapixels.jpg": lambda: saved("JPEG", _grainy(4096, 3072), progressive=True, quality=92),
    "baseline_48_megapixels.jpg": lambda: saved("JPEG", _grainy(8000, 6000), quality=85, subsampling=0),
    "deep_12_megapixels.png": lambda: saved("PNG", _grainy(4096, 3072).convert("L").convert("I;16"), compress_level=1),
    # photos that people send
    "then_4MB_of_noise.jpg": lambda: saved("JPEG") + noise(4_000_000),
    "then_mp4.jpg": lambda: saved("JPEG") + mp4(3_000_000),
    "then_second_jpeg.jpg": lambda: saved("JPEG") + jpeg_of_scans(32),
    "progressive_then_noise.jpg": lambda: saved("JPEG", progressive=True) + noise(4_000_000),
    # refused, and the sentence must name the cause
    "bits_12.jpg": _jpeg_12_bit,
    "cielab.tif": lambda: tiff(8, 8, 1),
    "cielab_16_bit.tif": lambda: tiff(8, 16, 1),
    "float_rgb.tif": lambda: tiff(2, 32, 3),
    "half_float_rgb.tif": lambda: tiff(2, 16, 3),
    "interlaced_and_cut.png": _interlaced_and_cut,
    "base64.jpg": lambda: base64.b64encode(saved("JPEG")),
    "base64_lines.jpg": lambda: base64.encodebytes(saved("PNG")),
    "data_uri.png": lambda: b"data:image/png;base64," + base64.b64encode(saved("PNG")),
    "through_text_gateway.jpg": lambda: saved("JPEG").decode(errors="replace").encode(),
    "through_text_gateway.png": lambda: saved("PNG").decode(errors="replace").encode(),
    "gzip.jpg": lambda: gzip.compress(saved("JPEG"), mtime=0),
    "empty.jpg": lambda: b"",
    "text.jpg": lambda: b"This is no photo. " * 50,
}
NAMES = tuple(_FILES)
"""Names of the files that `make` knows."""


def make(name: str) -> bytes:
    """Make the file of that name, one of `NAMES`."""
    return _FILES[name]()


def files(ready_made: Path | None = None) -> Iterator[HostileFile]:
    """Make every file; those of a folder come first."""
    if ready_made is not None and ready_made.is_dir():
        for path in sorted(ready_made.iterdir()):
            yield HostileFile(path.name, path.read_bytes())
    for name in NAMES:
        yield HostileFile(name, make(name))
