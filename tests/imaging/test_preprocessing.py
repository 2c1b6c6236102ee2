import numpy as np
import pytest
from PIL import Image

from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.imaging import decoding
from catsdogs_lib.imaging.preprocessing import Preprocessing, centre_square, normalise


def test_the_centre_square_is_cut_from_the_middle():
    wide = Image.new("RGB", (300, 100), (0, 0, 0))
    wide.paste((255, 255, 255), (100, 0, 200, 100))
    assert np.asarray(centre_square(wide, 50)).min() > 230


def test_an_extreme_strip_costs_no_more_than_a_photo():
    square = centre_square(Image.new("RGB", (40_000, 2), (9, 9, 9)), 224)
    assert square.size == (224, 224)


def test_input_is_normalised_channel_by_channel():
    image = Image.new("RGB", (2, 2), (0, 127, 255))
    values = normalise(image, Preprocessing(2))
    assert values.shape == (3, 2, 2)
    assert values.dtype == np.float32
    assert values[:, 0, 0] == pytest.approx([-127 / 128, 0, 1], abs=1e-6)


def model_input(source):
    preprocessing = Preprocessing()
    image = decoding.read(source, preprocessing.size)
    return normalise(centre_square(image, preprocessing.size), preprocessing)


def test_input_is_the_same_from_bytes_and_from_a_file(tmp_path):
    path = tmp_path / "photo.jpg"
    draw("cat", 3).save(path)
    assert np.array_equal(model_input(path.read_bytes()), model_input(path))


def test_rotated_copies_of_one_photo_look_the_same(edge):
    folder = edge / "exif_orientation"
    for animal in ("cat", "dog"):
        inputs = [model_input(folder / f"{animal}_orient{n}.jpg") for n in range(1, 9)]
        for one in inputs[1:]:
            # The copies were compressed anew after they were turned.
            assert np.abs(one - inputs[0]).mean() < 0.05
