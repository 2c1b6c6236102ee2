"""Refusals name the true cause."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.imaging import causes, decoding
from catsdogs_lib.serving.problems import KINDS

NAMES = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]


def saved(name, **options):
    stream = io.BytesIO()
    draw("cat", 3).save(stream, name, **options)
    return stream.getvalue()


def refusal(data):
    with pytest.raises(decoding.PhotoError) as caught:
        decoding.read(data)
    assert caught.value.kind in KINDS
    return caught.value.kind, str(caught.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "encode",
    [
        base64.b64encode,
        base64.urlsafe_b64encode,
        base64.encodebytes,
        lambda data: b"\r\n" + base64.encodebytes(data).replace(b"\n", b"\r\n"),
        lambda data: b'"' + base64.b64encode(data) + b'"',
        lambda data: b"data:image/x;base64," + base64.b64encode(data),
        lambda data: b"data:image/svg+xml;charset=utf-8;base64," + base64.b64encode(data),
    ],
    ids=["standard", "URL-safe", "lines", "CRLF", "quoted", "data URI", "data URI with a charset"],
)
def test_base64_is_named(name, encode):
    assert refusal(encode(saved(name))) == ("text-encoded", "the body is base64 text; send bytes")


@pytest.mark.parametrize("text", [b"this is no photo", b"/srv/photos/album/photo.jpg", b"x" * 99, b"BMW 320, BMW 330"])
def test_other_text_is_not_called_base64(text):
    assert refusal(text)[0] == "not-a-photo"


@pytest.mark.parametrize("name", NAMES)
def test_bytes_that_a_gateway_replaced_are_named(name):
    data = saved(name)
    kind, detail = refusal(data.decode("utf-8", "replace").encode())
    assert kind == "body-as-text"
    assert "a gateway treated the body as text; set binary media types" in detail


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    "convert",
    [
        lambda data: data.decode("latin-1").encode(),
        lambda data: data.decode("ascii", "replace").encode("ascii", "replace"),
    ],
    ids=["Latin-1", "question marks"],
)
def test_bytes_of_another_encoding_are_named(name, convert):
    assert refusal(convert(saved(name)))[0] == "body-as-text"


@pytest.mark.parametrize("end", [b"\n", b"\r\r\n"])
def test_a_png_with_converted_line_ends_is_named(end):
    assert refusal(saved("PNG").replace(b"\r\n", end))[0] == "body-as-text"


def test_a_text_about_replaced_characters_is_no_photo():
    assert refusal("the file begins with \ufffd\ufffd".encode())[0] == "not-a-photo"


def with_frame(marker, precision=8, components=3):
    data = saved("JPEG")
    at = data.index(b"\xff\xc0")
    return (
        data[: at + 1]
        + bytes([marker])
        + data[at + 2 : at + 4]
        + bytes([precision])
        + data[at + 5 : at + 9]
        + bytes([components])
        + data[at + 10 :]
    )


@pytest.mark.parametrize(
    ("data", "variant"),
    [
        (with_frame(0xC1, 12), "12-bit"),
        (with_frame(0xC3, 16), "16-bit"),
        (with_frame(0xC5), "hierarchical"),
        (with_frame(0xCB), "lossless with arithmetic coding"),
        (with_frame(0xC0, components=2), "2 colour components"),
    ],
)
def test_an_unsupported_jpeg_is_named(data, variant):
    sentence = f"this variant of JPEG is not supported ({variant}); save it as an 8-bit JPEG or PNG"
    assert refusal(data) == ("unsupported-variant", sentence)


def tiff(bits=8, samples=3, colours=2, sample_format=1, compression=1, planar=1):
    pixels = bytes(16 * 16 * samples * bits // 8)
    each_bits = struct.pack(f"<{samples}H", *[bits] * samples)
    start = 8 + len(pixels)
    fields = [
        (256, 3, 1, 16),
        (257, 3, 1, 16),
        (258, 3, samples, start if samples > 2 else bits),
        (259, 3, 1, compression),
        (262, 3, 1, colours),
        (273, 4, 1, 8),
        (277, 3, 1, samples),
        (279, 4, 1, len(pixels)),
        (284, 3, 1, planar),
        (339, 3, 1, sample_format),
    ]
    directory = struct.pack("<H", len(fields)) + b"".join(struct.pack("<HHLL", *field) for field in fields) + bytes(4)
    return b"II*\0" + struct.pack("<L", start + len(each_bits)) + pixels + each_bits + directory


@pytest.mark.parametrize(
    ("data", "variant"),
    [
        (tiff(colours=8), "CIELAB"),
        (tiff(bits=16, colours=8), "CIELAB"),
        (tiff(colours=9), "CIELAB"),
        (tiff(bits=32, sample_format=3), "32-bit floating-point samples"),
        (tiff(bits=64, samples=1, colours=1, sample_format=3), "64-bit floating-point samples"),
        (tiff(bits=32), "32-bit samples in an unusual layout"),
        (tiff(bits=32, planar=2), "32-bit samples in an unusual layout, each colour on its own plane"),
        (tiff(compression=34887), "LERC compression"),
        (tiff(compression=50001), "WebP compression"),
        (tiff(compression=4321), "unknown (4321) compression"),
        (tiff(samples=1, colours=32803), "camera raw"),
    ],
)
def test_an_unsupported_tiff_is_named(data, variant):
    sentence = f"this variant of TIFF is not supported ({variant}); save it as an 8-bit JPEG or PNG"
    assert refusal(data) == ("unsupported-variant", sentence)


@pytest.mark.parametrize(
    ("at", "value", "variant"),
    [
        (28, 2, "2-bit"),
        (28, 64, "64-bit"),
        (30, 4, "a JPEG inside"),
        (30, 5, "a PNG inside"),
        (30, 3, "an unusual order"),
    ],
)
def test_an_unsupported_bmp_is_named(at, value, variant):
    data = saved("BMP")
    kind, detail = refusal(data[:at] + bytes([value]) + data[at + 1 :])
    assert (kind, detail.split(" (")[1].startswith(variant)) == ("unsupported-variant", True)


def test_an_unknown_webp_is_named():
    assert refusal(saved("WEBP").replace(b"VP8 ", b"VP9 "))[0] == "unsupported-variant"


@pytest.mark.parametrize("name", NAMES)
def test_a_photo_that_ends_too_early_says_so_in_words_of_ours(name):
    data = saved(name)
    for length in (len(data) // 3, len(data) * 9 // 10):
        kind, detail = refusal(data[:length])
        assert kind == "undecodable"
        assert detail.startswith(("the photo ends too early", "the photo is damaged", "the photo's header is damaged"))
        assert "(" not in detail


def test_an_odd_png_is_damaged():
    # An interlaced animation, for which Pillow calls its decoder with too many arguments.
    frames = [Image.fromarray(np.full((64, 64, 3), shade, np.uint8)) for shade in (9, 99)]
    stream = io.BytesIO()
    frames[0].save(stream, "PNG", save_all=True, append_images=frames[1:])
    header = bytearray(stream.getvalue()[:33])
    header[28] = 1
    data = bytes(header[:29]) + struct.pack(">L", zlib.crc32(bytes(header[12:29]))) + stream.getvalue()[33:]
    assert refusal(data)[0] == "undecodable"
    assert "(" not in refusal(data)[1]


def test_a_damaged_header_is_not_called_a_foreign_format():
    data = bytearray(saved("PNG"))
    data[30] ^= 1
    assert refusal(bytes(data)) == (
        "undecodable",
        "the photo's header is damaged; send it again whole, or save it anew",
    )


def test_every_format_is_known_by_its_first_bytes():
    assert [causes.format_of(saved(name)[:18]) for name in NAMES] == NAMES
