"""What a file's structure says about the cost of decoding it."""

import io
import random
import struct
import time
import zlib

import pytest

from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.imaging import decoding, header_limits, structure_limits


def saved(name, **options):
    stream = io.BytesIO()
    draw("cat", 3).save(stream, name, **options)
    return stream.getvalue()


def scans_of(data):
    """The parts of a progressive JPEG: what comes before the last scan, and that scan."""
    last = data.rindex(b"\xff\xda")
    return data[:last], data[last:-2]


def frame(marker, components):
    return (
        b"\xff" + bytes([marker]) + struct.pack(">HBHHB", 8 + 3 * components, 8, 100, 100, components) + b"\1\x11\0" * 3
    )


def scan(components):
    return (
        b"\xff\xda"
        + struct.pack(">HB", 6 + 2 * components, components)
        + b"\1\0" * components
        + b"\0\x3f\0"
        + b"x" * 20
    )


def test_an_ordinary_jpeg_is_streamed_and_a_progressive_one_is_not():
    assert header_limits.read_jpeg(saved("JPEG"), 99)[:2] == (True, 1)
    streamed, scans, _, _ = header_limits.read_jpeg(saved("JPEG", progressive=True), 99)
    assert not streamed
    assert 5 <= scans <= 12


def test_a_thumbnail_in_the_metadata_is_no_scan_of_the_photo():
    thumbnail = saved("JPEG")[:20_000]
    data = saved("JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    assert header_limits.read_jpeg(data[:2] + segment + data[2:], 99)[:2] == (True, 1)


@pytest.mark.parametrize(
    ("marker", "components", "streamed"),
    [(0xC0, 3, True), (0xC1, 3, True), (0xC0, 1, False), (0xC2, 3, False), (0xC9, 3, False)],
    ids=["baseline", "extended", "a scan for each colour", "progressive", "arithmetic"],
)
def test_only_a_sequential_photo_in_one_scan_is_streamed(marker, components, streamed):
    data = b"\xff\xd8" + b"\0junk" + b"\xff" * 3 + frame(marker, 3)[1:] + scan(components)
    assert header_limits.read_jpeg(data, 99).streamed is streamed


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xda", b"\xff\xd8" + b"\xff" * 99, b"GIF"]
)
def test_a_jpeg_without_a_scan_has_no_anatomy(data):
    assert header_limits.read_jpeg(data, 999) is None


def test_a_jpeg_of_very_many_scans_is_refused():
    before, last = scans_of(saved("JPEG", progressive=True))
    assert decoding.read(before + 4 * last + b"\xff\xd9").size == draw("cat", 3).size
    with pytest.raises(decoding.PhotoTooLargeError, match="parts"):
        decoding.open_photo(before + 40 * last + b"\xff\xd9")


def repeated(scans):
    """A real progressive JPEG with that many scans: its last one again and again."""
    before, last = scans_of(saved("JPEG", progressive=True))
    first = before.count(b"\xff\xda")
    return before + (scans - first) * last + b"\xff\xd9"


def test_as_many_scans_as_the_limit_are_decoded_and_one_more_is_refused():
    assert header_limits.read_jpeg(repeated(32), 999).scans == 32
    assert decoding.read(repeated(32)).size == draw("cat", 3).size
    with pytest.raises(decoding.PhotoTooLargeError, match="parts"):
        decoding.open_photo(repeated(33))


def test_scans_are_counted_with_restart_markers_and_stuffed_bytes_between_them():
    data = saved("JPEG", progressive=True, restart_marker_rows=1, quality=95)
    assert data.count(b"\xff\xd0") > 20
    assert data.count(b"\xff\0") > 20
    scans = header_limits.read_jpeg(data, 999).scans
    assert scans == header_limits.read_jpeg(saved("JPEG", progressive=True, quality=95), 999).scans


def test_a_scan_that_a_comment_mentions_is_none():
    before, last = scans_of(saved("JPEG", progressive=True))
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 200) + b"\xff\xda" * 100
    data = before + comment + last + b"\xff\xd9"
    assert (
        header_limits.read_jpeg(data, 999).scans == header_limits.read_jpeg(saved("JPEG", progressive=True), 999).scans
    )
    assert decoding.read(data).size == draw("cat", 3).size


RANDOM = random.Random(0).randbytes(4_000_000)
MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + struct.pack(">L", len(RANDOM) + 8) + b"mdat" + RANDOM


@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize(
    "behind",
    [RANDOM, MP4, saved("JPEG"), repeated(32) * 2, b"\xff\xda" * 1000, bytes(1_000_000)],
    ids=["random", "video", "JPEG", "progressive JPEGs", "scan markers", "zeros"],
)
def test_a_jpeg_with_data_after_its_end_is_the_same_photo(behind, progressive):
    data = saved("JPEG", progressive=progressive)
    assert decoding.read(data + behind).tobytes() == decoding.read(data).tobytes()


def test_the_first_photo_of_an_mpo_is_read():
    data = saved("MPO", save_all=True, append_images=[draw("dog", 4)], progressive=True)
    assert decoding.read(data).tobytes() == decoding.read(saved("JPEG", progressive=True)).tobytes()


@pytest.mark.parametrize("behind", [bytes(1_000_000), RANDOM], ids=["zeros", "random"])
def test_a_png_with_data_after_its_end_is_the_same_photo(behind):
    assert decoding.read(saved("PNG") + behind).tobytes() == decoding.read(saved("PNG")).tobytes()


@pytest.mark.parametrize(
    "flood",
    [b"\xff\xfe\0\2", b"\xff\0", b"\xff\xd0", b"\xff\1", b"\xff\xff", b"\xff\xda\0\2", b"\0\0"],
    ids=["comments", "stuffed bytes", "restart markers", "markers", "fill bytes", "scans", "zeros"],
)
def test_25_megabytes_behind_a_scan_are_parsed_in_half_a_second(flood):
    data = saved("JPEG", progressive=True)[:-2] + flood * (25_000_000 // len(flood))
    start = time.process_time()
    header_limits.read_jpeg(data, structure_limits.MAX_JPEG_SEGMENTS)
    assert time.process_time() - start < 0.5


def chunk(kind, content=b""):
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))


def png_with(*chunks):
    data = saved("PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def jpeg_with(*segments):
    data = saved("JPEG")
    return data[:2] + b"".join(segments) + data[2:]


def gif_with(blocks):
    data = saved("GIF")
    at = 13 + 3 * 2 ** (1 + (data[10] & 7))
    return data[:at] + blocks + data[at:]


COMMENT = b"\x21\xfe\1a\0"
EXIF = b"\xff\xe1\xff\xffExif\0\0" + bytes(65527)


@pytest.mark.parametrize(
    "data",
    [
        jpeg_with(b"\xff\xe1\0\2" * 3000),
        jpeg_with(b"\xff" * 3000),
        jpeg_with(*[EXIF] * 5),
        png_with(chunk(b"teSt") * 20_000),
        gif_with(COMMENT * 7000),
        gif_with(b"\0" * 20_001),
    ],
    ids=["segments", "fill bytes", "EXIF", "chunks", "comments", "zeros"],
)
def test_a_small_photo_of_very_many_parts_is_refused(data):
    with pytest.raises(decoding.PhotoTooLargeError, match="parts"):
        decoding.open_photo(data)


def test_a_photo_of_some_hundred_parts_is_read():
    assert decoding.read(jpeg_with(b"\xff\xe1\0\2" * 500, EXIF)).size == draw("cat", 3).size
    assert decoding.read(png_with(chunk(b"teSt") * 500)).size == draw("cat", 3).size
    assert decoding.read(gif_with(COMMENT * 500)).size == draw("cat", 3).size


def test_exif_of_megabytes_is_not_read():
    directory = b"II*\0" + struct.pack("<LH", 8, 1) + struct.pack("<HHLL", decoding.EXIF_ORIENTATION, 3, 600_000, 26)
    opened = decoding.open_photo(png_with(chunk(b"eXIf", directory + b"\6\0" * 600_000)))
    assert decoding.read_header(opened).orientation == 1


def tiff(entries, order="<"):
    """A TIFF of 64 x 64 grey pixels; entries are (tag, type, count, value) and come on top."""
    fields = {
        256: (3, 1, 64),
        257: (3, 1, 64),
        258: (3, 1, 8),
        259: (3, 1, 1),
        262: (3, 1, 1),
        273: (4, 1, 8),
        277: (3, 1, 1),
    }
    fields |= {tag: rest for tag, *rest in entries}
    table = b"".join(struct.pack(order + "HHLL", tag, *fields[tag]) for tag in sorted(fields))
    head = {"<": b"II*\0", ">": b"MM\0*"}[order]
    pixels = bytes(64 * 64)
    return (
        head
        + struct.pack(order + "L", 8 + len(pixels))
        + pixels
        + struct.pack(order + "H", len(fields))
        + table
        + bytes(4)
    )


def test_a_tiff_of_millions_of_strips_is_refused_before_it_is_opened():
    data = tiff([(273, 4, 5_000_000, 8)]) + bytes(1000)
    assert 5_000_000 <= header_limits.read_tiff(data).numbers < 5_000_100
    with pytest.raises(decoding.PhotoTooLargeError, match="parts"):
        decoding.open_photo(data)
    as_bytes = tiff([(273, 1, 5_000_000, 8)])
    with pytest.raises(decoding.PhotoTooLargeError, match="parts"):
        decoding.open_photo(as_bytes)


@pytest.mark.parametrize("below", [34665, 34853])
def test_a_tiff_with_millions_of_numbers_further_down_is_refused(below):
    plain = tiff([(below, 4, 1, 0)])
    directory = struct.pack("<HHHLL", 1, 282, 5, 3_000_000, 8) + bytes(4)
    data = tiff([(below, 4, 1, len(plain))]) + directory + bytes(1000)
    assert header_limits.read_tiff(data).numbers > 3_000_000
    with pytest.raises(decoding.PhotoTooLargeError, match="parts"):
        decoding.open_photo(data)


def test_directories_that_point_at_each_other_end():
    data = tiff([(34665, 4, 1, 8 + 64 * 64), (34853, 4, 1, 8 + 64 * 64)])
    assert header_limits.read_tiff(data).numbers < 1000


def test_a_small_tiff_with_huge_tiles_is_refused():
    data = tiff([(322, 4, 1, 20_000), (323, 4, 1, 20_000)])
    assert header_limits.read_tiff(data).tile_pixels == 400_000_000
    with pytest.raises(decoding.PhotoTooLargeError, match="parts"):
        decoding.open_photo(data)


def test_an_ordinary_tiff_passes_in_either_byte_order():
    assert decoding.read(saved("TIFF")).size == draw("cat", 3).size
    assert decoding.read(tiff([])).size == (64, 64)
    assert header_limits.read_tiff(saved("TIFF", compression="tiff_lzw")).tile_pixels == 0


def test_a_directory_beyond_the_end_has_no_anatomy():
    assert header_limits.read_tiff(b"II*\0" + struct.pack("<L", 10_000) + bytes(20)) is None
    assert header_limits.read_tiff(saved("PNG")) is None


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "AVIF"),
        (b"%PDF-1.7", "PDF"),
        (b"\n  <svg xmlns=", "SVG"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL"),
    ],
)
def test_formats_that_are_not_read_are_named(data, name):
    assert header_limits.unread_format(data) == name
    with pytest.raises(decoding.NotAnImageError, match=f"^{name} is not read; use one of JPEG, PNG, WebP"):
        decoding.open_photo(data + bytes(100), decoding.FORMATS[:6])  # without HEIC, an extra


def test_an_unknown_format_has_no_name():
    assert header_limits.unread_format(b"hello, this is text") is None


@pytest.mark.parametrize("mode", ["F", "I"])
def test_more_than_8_bits_become_8_band_by_band(mode):
    grey = draw("cat", 3).convert("L").resize((300, 4000))
    stream = io.BytesIO()
    grey.convert(mode).save(stream, "TIFF")
    assert decoding.read(stream.getvalue()).convert("L").tobytes() == grey.tobytes()
