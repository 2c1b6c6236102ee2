import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from catsdogs_lib.imaging import decoding
from catsdogs_lib.imaging.decoding import NotAnImageError, PhotoTooLargeError, UndecodableError
from catsdogs_lib.imaging.statistics import square_with_statistics


def encode(image, kind="JPEG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def half_red(size=(64, 32)):
    """Left half red, right half blue: shows which way is up."""
    image = Image.new("RGB", size, (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, size[0] // 2, size[1]))
    return image


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, name):
    upright = half_red()
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[decoding.EXIF_ORIENTATION] = orientation
    options = {"lossless": True} if name == "WEBP" else {}
    read = decoding.read(encode(stored, name, exif=exif, **options))
    assert np.array_equal(np.asarray(read), np.asarray(upright))


def test_an_invalid_orientation_is_ignored():
    exif = Image.Exif()
    exif[decoding.EXIF_ORIENTATION] = 77
    with decoding.open_photo(encode(half_red(), exif=exif)) as image:
        assert decoding.read_header(image).orientation == 1


def test_transparency_is_flattened_onto_white():
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert decoding.read(encode(clear, "PNG")).getpixel((0, 0)) == (255, 255, 255)


def test_a_palette_with_a_transparent_colour_is_flattened_onto_white():
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decoding.read(encode(palette, "PNG", transparency=0)).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_keep_their_shades():
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    read = np.asarray(decoding.read(encode(Image.fromarray(ramp), "PNG")))
    assert read.shape == (64, 64, 3)
    assert abs(int(read[32, 0, 0]) - 128) <= 2
    assert len(np.unique(read)) > 200


@pytest.mark.parametrize("mode", ["L", "CMYK", "1", "LA"])
def test_every_mode_becomes_rgb(mode):
    kind = {"CMYK": "JPEG"}.get(mode, "PNG")
    assert decoding.read(encode(half_red().convert(mode), kind)).mode == "RGB"


def test_the_first_frame_of_an_animation_is_read():
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 255, 0))
    animated = encode(first, "GIF", save_all=True, append_images=[second])
    assert decoding.read(animated).getpixel((0, 0)) == (255, 0, 0)


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size():
    data = encode(Image.new("RGB", (4000, 3000), (200, 100, 50)))
    assert decoding.read(data, 224).size == (500, 375)
    assert decoding.read(data).size == (4000, 3000)


def test_a_fraction_is_never_smaller_than_asked():
    data = encode(Image.new("RGB", (900, 440)))
    assert min(decoding.read(data, 224).size) >= 224


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff", b"%PDF-1.7 ...", b"<svg></svg>"])
def test_what_is_no_photo_is_refused_in_a_sentence(data):
    with pytest.raises(NotAnImageError, match=r"use one of|empty"):
        decoding.read(data)


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
def test_a_truncated_photo_is_refused(cut):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise))
    with pytest.raises((UndecodableError, NotAnImageError)):
        decoding.read(data[: int(len(data) * cut)], 224)


def png_header(width, height):
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    shape = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", shape) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [4_000, 10_000, 60_000])
def test_a_bomb_is_refused_from_its_header(side):
    with pytest.raises(PhotoTooLargeError, match="scale it down"):
        decoding.open_photo(png_header(side, side))


def test_a_twelve_megapixel_photo_is_accepted():
    decoding.open_photo(png_header(4032, 3024))


def test_progressive_and_baseline_jpeg_have_limits_of_their_own(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS_PROGRESSIVE_JPEG", 1000)
    decoding.open_photo(encode(half_red()))
    with pytest.raises(PhotoTooLargeError):
        decoding.open_photo(encode(half_red(), progressive=True))


def test_a_large_file_is_not_read(monkeypatch, tmp_path):
    monkeypatch.setattr(decoding, "MAX_BYTES", 100)
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"x" * 101)
    with pytest.raises(PhotoTooLargeError, match="larger than"):
        decoding.read(path)


def test_a_missing_file_and_a_folder_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(NotAnImageError, match="No such file"):
        decoding.read(tmp_path / "none.jpg")
    with pytest.raises(NotAnImageError, match="not a regular file"):
        decoding.read(tmp_path)


@pytest.mark.parametrize("name", ["GIF", "BMP", "TIFF"])
def test_a_format_that_is_turned_off_is_refused_by_name(name):
    data, formats = encode(half_red(), name), ("JPEG", "PNG", "WEBP")
    for read in (decoding.open_photo, lambda data, formats: square_with_statistics(data, 224, formats)):
        with pytest.raises(NotAnImageError, match=f"^{name} is not read; use one of JPEG, PNG, WebP$"):
            read(data, formats)
    assert len(square_with_statistics(encode(half_red(), "WEBP"), 224, formats)[1]) == 3 * 224 * 224


def test_every_odd_file_gets_pixels_or_a_sentence(edge):
    answered = refused = 0
    for path in sorted(edge.rglob("*")):
        if path.is_file() and path.suffix != ".txt":
            try:
                assert len(square_with_statistics(path, 224)[1]) == 3 * 224 * 224
                answered += 1
            except decoding.PhotoError as error:
                assert len(str(error)) > 20
                refused += 1
    assert answered > 50
    assert refused > 5
