"""HEIC is decoded where the extra is installed, and refused by name elsewhere."""

import importlib.util
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.imaging import decoding, heic

HEAD = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
installed = pytest.mark.skipif(not importlib.util.find_spec("pillow_heif"), reason="needs the extra heic")


def saved(image, **options):
    import pillow_heif

    stream = io.BytesIO()
    pillow_heif.register_heif_opener()
    image.save(stream, "HEIF", quality=90, chroma=444, **options)
    return stream.getvalue()


def difference(one, other):
    return np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).mean()


@pytest.mark.parametrize(
    ("brands", "expected"),
    [
        (HEAD, True),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf", True),
        (b"\0\0\0\x18ftypheix\0\0\0\0mif1heix", True),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", False),
        (b"\0\0\0\x1cftypheic\0\0\0\0avifmif1", False),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1miaf", False),
        (b"\0\0\0\x14ftypmp42\0\0\0\0isomheic", False),
        (b"heic", False),
    ],
)
def test_heic_is_told_by_its_brands(brands, expected):
    assert heic.is_heic(brands + bytes(100)) is expected


def test_without_the_extra_it_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(heic, "is_installed", lambda: False)
    with pytest.raises(
        decoding.NotAnImageError, match="^HEIC is not read; use one of JPEG, PNG, WebP, GIF, BMP, TIFF$"
    ):
        decoding.open_photo(HEAD + bytes(100))


def test_other_photos_do_not_import_it():
    code = "import sys; from catsdogs_lib.imaging import decoding; decoding.read(sys.stdin.buffer.read()); "
    stream = io.BytesIO()
    draw("cat", 3).save(stream, "JPEG")
    subprocess.run(
        [sys.executable, "-c", code + "assert 'pillow_heif' not in sys.modules"], input=stream.getvalue(), check=True
    )


@installed
@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_decoded_upright_whatever_its_orientation(orientation):
    stored, exif = draw("cat", 3), Image.Exif()
    exif[decoding.EXIF_ORIENTATION] = orientation
    stream = io.BytesIO()
    stored.save(stream, "PNG", exif=exif)
    upright = decoding.read(stream.getvalue())
    # pillow-heif writes the orientation as irot and imir, as phones do.
    opened = decoding.open_photo(saved(stored, exif=exif.tobytes()))
    header = decoding.read_header(opened)
    assert (header.format, {header.width, header.height}) == ("HEIC", set(stored.size))
    photo = decoding.decode(opened, 224)
    assert photo.size == upright.size
    assert difference(photo, upright) < 4


@installed
@pytest.mark.parametrize("mode", ["RGBA", "LA", "L"])
def test_transparency_is_flattened_onto_white(mode):
    clear = Image.new(mode, (64, 64), 0)
    expected = 0 if mode == "L" else 255
    assert np.abs(np.asarray(decoding.read(saved(clear)), np.int16) - expected).max() <= 2


@installed
def test_ten_bits_become_eight():
    import pillow_heif

    ramp = np.repeat(np.linspace(0, 65535, 64 * 64).reshape(64, 64, 1), 3, axis=2).astype(np.uint16)
    stream = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", ramp.shape[:2], ramp.tobytes()).save(stream, quality=95, chroma=444)
    assert difference(decoding.read(stream.getvalue()), ramp >> 8) < 3


@installed
def test_the_primary_image_is_read():
    import pillow_heif

    file = pillow_heif.from_pillow(Image.new("RGB", (64, 64), (255, 0, 0)))
    file.add_from_pillow(Image.new("RGB", (128, 64), (0, 0, 255)))
    stream = io.BytesIO()
    file.save(stream, quality=90, primary_index=1)
    photo = decoding.read(stream.getvalue())
    assert photo.size == (128, 64)
    assert photo.getpixel((60, 30))[2] > 240


@installed
def test_it_is_bounded_like_other_photos(monkeypatch):
    data = saved(draw("cat", 3))
    monkeypatch.setattr(decoding, "MAX_PIXELS", 1000)
    with pytest.raises(decoding.PhotoTooLargeError, match="megapixels"):
        decoding.open_photo(data)


@installed
def test_it_can_be_turned_off():
    with pytest.raises(decoding.NotAnImageError, match="^HEIC is not read; use one of JPEG$"):
        decoding.open_photo(saved(draw("cat", 3)), ("JPEG",))


@installed
@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9])
def test_a_damaged_one_is_refused_in_words_of_ours(cut):
    data = saved(draw("cat", 3))
    with pytest.raises(decoding.UndecodableError, match="send it again whole") as caught:
        decoding.read(data[: int(len(data) * cut)])
    assert "(" not in str(caught.value)


@installed
def test_avif_is_refused_all_the_same():
    stream = io.BytesIO()
    draw("cat", 3).save(stream, "AVIF")
    with pytest.raises(decoding.NotAnImageError, match="^AVIF is not read; use one of .*, HEIC$"):
        decoding.read(stream.getvalue())
