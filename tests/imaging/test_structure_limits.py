"""Files whose structure costs more than their size shows."""

import io
import random
import struct
import zlib

import pytest
from PIL import Image

from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.imaging import decoding, structure_limits

INFLATES_TO_1_MB = zlib.compress(bytes(2**20 - 1), 9)


def saved(name, **options):
    stream = io.BytesIO()
    draw("cat", 3).save(stream, name, **options)
    return stream.getvalue()


def chunk(kind, content=b""):
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))


def png_with(*chunks, end=33):
    data = saved("PNG")
    return data[:end] + b"".join(chunks) + data[end:]


def segment(marker, content):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def jpeg_with(*segments):
    data = saved("JPEG")
    return data[:2] + b"".join(segments) + data[2:]


def bmp(width, height, compression, pixels):
    bits, colours = (8, 256) if compression == 1 else (4, 16)
    palette = b"".join(bytes([shade * 255 // (colours - 1), 0, 90, 0]) for shade in range(colours))
    start = 54 + len(palette)
    head = b"BM" + struct.pack("<LHHL", start + len(pixels), 0, 0, start)
    info = struct.pack("<LllHHLLllLL", 40, width, height, 1, bits, compression, len(pixels), 0, 0, colours, 0)
    return head + info + palette + pixels


def tiff(width, height, compression, part, parts, overlapping):
    """A grey TIFF with a strip for each row, each with the same bytes or all in the same place."""
    step = 0 if overlapping else len(part)
    pixels = part if overlapping else part * parts
    offsets = struct.pack(f"<{parts}L", *range(8, 8 + step * parts, step) if step else [8] * parts)
    counts = struct.pack(f"<{parts}L", *[len(part)] * parts)
    fields = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, compression),
        (262, 3, 1, 1),
        (273, 4, parts, 8 + len(pixels)),
        (277, 3, 1, 1),
        (278, 4, 1, 1),
        (279, 4, parts, 8 + len(pixels) + len(offsets)),
    ]
    directory = struct.pack("<H", len(fields)) + b"".join(struct.pack("<HHLL", *field) for field in fields) + bytes(4)
    body = pixels + offsets + counts
    return b"II*\0" + struct.pack("<L", 8 + len(body)) + body + directory


ICC = chunk(b"iCCP", b"a\0\0" + INFLATES_TO_1_MB)
TEXT = chunk(b"zTXt", b"a\0\0" + INFLATES_TO_1_MB)
WIDE_TEXT = chunk(b"iTXt", b"a\0\0\0\0\0" + b"a" * 5_000_000 + "\U0001f600".encode())
PHOTOSHOP = segment(0xED, b"Photoshop 3.0\0" + b"8BIM\1\1\0\0\0\0\0\0" * 5400)
TABLES = segment(0xDB, (b"\0" + bytes(range(1, 65))) * 1000)
STRAY = segment(0xE0, b"") + bytes(5_000_000)
HIDING = b"\xff\xf0" + struct.pack(">H", 65_001) + b"\xff\xe1\0\2" * 16_000  # Pillow reads no length after FFF0

OFFENDERS = {
    "PNG profiles": png_with(*[ICC] * 1000),
    "PNG profiles behind the pixels": png_with(*[ICC] * 1000, end=-12),
    "PNG texts": png_with(*[TEXT] * 20),
    "PNG text of wide characters": png_with(WIDE_TEXT),
    "JPEG Photoshop resources": jpeg_with(*[PHOTOSHOP] * 70),
    "JPEG quantization tables": jpeg_with(*[TABLES] * 70),
    "JPEG stray bytes": jpeg_with(STRAY),
    "JPEG segments within an extension": jpeg_with(HIDING),
    "BMP RLE8 fill": bmp(4200, 3000, 1, b"\0\2\xff\xff" * 200),
    "BMP RLE8 single pixels": bmp(1500, 1500, 1, b"\1\7" * 2_000_000),
    "BMP RLE4": bmp(4200, 3000, 2, b"\xff\x12" * 50_000),
    "BMP RLE8 top-down": bmp(4200, -3000, 1, b"\0\2\xff\xff" * 200),
    "TIFF strips": tiff(64, 20_000, 1, bytes(64), 20_000, overlapping=False),
    "TIFF overlapping strips": tiff(64, 4000, 32773, b"\x80" * 50_000 + b"\x3f" + bytes(64), 4000, overlapping=True),
}


@pytest.mark.parametrize("data", OFFENDERS.values(), ids=OFFENDERS)
def test_a_structure_that_costs_more_than_its_size_shows_is_refused(data):
    with pytest.raises(decoding.PhotoTooLargeError, match="parts|run-length"):
        decoding.open_photo(data)


@pytest.mark.parametrize("name", ["png_1000_iccp_chunks.png", "bmp_rle_fill_1kB.bmp"])
def test_a_hostile_file_is_refused(hostile, name):
    with pytest.raises(decoding.PhotoTooLargeError, match="parts|run-length"):
        decoding.read(hostile / name)


@pytest.mark.parametrize("size", [(1, 70_000), (70_000, 1)])
@pytest.mark.parametrize("name", ["PNG", "BMP", "TIFF"])
def test_a_side_longer_than_any_camera_takes_is_refused(size, name):
    stream = io.BytesIO()
    Image.new("RGB", size).save(stream, name)
    with pytest.raises(decoding.PhotoTooLargeError, match="side longer than 65535"):
        decoding.open_photo(stream.getvalue())


ORDINARY = {
    "PNG with a profile and six texts": png_with(ICC, *[TEXT] * 6),
    "PNG with a workflow of 1 MB": png_with(chunk(b"tEXt", b"workflow\0" + b"a" * 2**20)),
    "JPEG with Photoshop resources": jpeg_with(*[PHOTOSHOP] * 10),
    "JPEG with stray bytes": jpeg_with(segment(0xE0, b"") + bytes(10_000)),
    "BMP RLE8": bmp(255, 200, 1, b"\xff\x20\0\0" * 200),
    "TIFF with a strip for each row": tiff(64, 4000, 1, bytes(64), 4000, overlapping=False),
}


@pytest.mark.parametrize("data", ORDINARY.values(), ids=ORDINARY)
def test_an_ordinary_structure_is_read(data):
    assert decoding.read(data).mode == "RGB"


def test_a_strip_that_claims_more_than_the_file_has_is_read():
    data = tiff(64, 1, 1, bytes(64), 1, overlapping=False)
    at = data.index(struct.pack("<HHLL", 279, 4, 1, 8 + 64 + 4)) + 8
    assert decoding.read(data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :]).size == (64, 1)


def test_many_scans_lower_the_limit_on_pixels():
    limit = decoding.MAX_JPEG_SCANNED_PIXELS
    assert limit // 10 > decoding.MAX_PIXELS_PROGRESSIVE_JPEG > limit // structure_limits.MAX_JPEG_SCANS
    size = struct.pack(">HH", 4000, 4000)
    plain = saved("JPEG", progressive=True)
    at = plain.index(b"\xff\xc2") + 5
    large, last = plain[:at] + size + plain[at + 4 : -2], plain[plain.rindex(b"\xff\xda") : -2]
    decoding.open_photo(large + b"\xff\xd9")
    with pytest.raises(decoding.PhotoTooLargeError, match="megapixels"):
        decoding.open_photo(large + last * 20 + b"\xff\xd9")


def test_random_bytes_behind_the_signature_of_a_format_have_no_structure():
    noise = random.Random(1).randbytes(5000)
    for start in (b"BM", b"II*\0", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"):
        with pytest.raises(decoding.PhotoError):
            decoding.read(start + noise)
