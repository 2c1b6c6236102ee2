import io

import numpy as np
import pytest
from PIL import Image

from catsdogs_lib.common.errors import SettingsError
from catsdogs_lib.data.synthetic.canvas import Canvas, curve
from catsdogs_lib.data.synthetic.render import KINDS, MIN_SIDE, draw


def test_the_same_arguments_give_the_same_pixels():
    for kind in KINDS:
        assert draw(kind, 7, (96, 72)).tobytes() == draw(kind, 7, (96, 72)).tobytes()


def test_another_seed_or_kind_gives_another_picture():
    pictures = {draw(kind, seed, (64, 48)).tobytes() for kind in KINDS for seed in range(5)}
    assert len(pictures) == 5 * len(KINDS)


@pytest.mark.parametrize("size", [(320, 240), (90, 160), (MIN_SIDE, MIN_SIDE), (300, 33)])
def test_the_size_and_mode_are_as_asked(size):
    picture = draw("dog", 1, size)
    assert (picture.size, picture.mode) == (size, "RGB")


def test_every_picture_shows_something():
    for kind in KINDS:
        for seed in range(8):
            pixels = np.asarray(draw(kind, seed, (64, 64)), dtype=float)
            assert pixels.std() > 8, f"{kind} {seed} is almost one colour"


def test_a_picture_at_another_size_is_the_same_scene():
    large = draw("cat", 3, (240, 240)).resize((60, 60), Image.Resampling.BOX)
    small = draw("cat", 3, (120, 120)).resize((60, 60), Image.Resampling.BOX)
    alike = np.corrcoef(np.asarray(large).ravel(), np.asarray(small).ravel())[0, 1]
    assert alike > 0.9


def test_small_pictures_can_travel_in_a_bundle():
    for kind in KINDS:
        for seed in range(6):
            stream = io.BytesIO()
            draw(kind, seed, (160, 160)).save(stream, "PNG", optimize=True)
            assert len(stream.getvalue()) < 60_000, f"{kind} {seed}"


@pytest.mark.parametrize(
    ("kind", "seed", "size", "field"),
    [("cow", 0, (64, 64), "kind"), ("cat", -1, (64, 64), "seed"), ("cat", 0, (64, MIN_SIDE - 1), "size")],
)
def test_what_cannot_be_drawn_is_refused_by_name(kind, seed, size, field):
    with pytest.raises(SettingsError) as refused:
        draw(kind, seed, size)
    assert refused.value.field == field


def test_a_pen_turns_scales_and_mirrors():
    pen = Canvas(Image.new("RGB", (10, 10)), np.array([[2.0, 0, 5], [0, 2.0, 5]]))
    assert pen.at(1, 0, mirror=True).pixels([(1, 1)]) == [(5.0, 7.0)]
    np.testing.assert_allclose(pen.at(0, 0, angle=np.pi / 2, scale=0.5).pixels([(1, 0)]), [(5, 6)])
    assert pen.at(0, 0, scale=3).unit == pytest.approx(6)


def test_a_curve_goes_through_its_points():
    points = [(0.0, 0.0), (1.0, 2.0), (3.0, 1.0)]
    for closed in (False, True):
        path = np.array(curve(points, closed=closed))
        for point in points:
            assert np.abs(path - point).sum(axis=1).min() < 1e-9
