"""Drawn out-of-distribution pictures: noise, text, charts and the like, which a model should call unfamiliar.

They are easier than photos of other things: a score that fails here is of no use, and one that passes still has to be
tried on photos.
"""

import itertools
import math
import string
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from catsdogs_lib.data.synthetic.backgrounds import any_colour, background, clutter, gradient
from catsdogs_lib.data.synthetic.canvas import Canvas, smooth_noise

SIZE = (320, 240)


class OtherPicture(NamedTuple):
    """An out-of-distribution picture and the name of its family."""

    family: str
    picture: Image.Image


def draw_others(count: int, seed: int = 0) -> list[OtherPicture]:
    """Draw `count` pictures, RGB of `SIZE`, of each family in turn; the same arguments give the same pixels."""
    families = itertools.islice(itertools.cycle(_FAMILIES.items()), count)
    return [
        OtherPicture(name, draw(np.random.default_rng([seed, index]))) for index, (name, draw) in enumerate(families)
    ]


def _noise(rng: np.random.Generator) -> Image.Image:
    grain = int(rng.integers(1, 9))
    small = rng.integers(0, 256, (SIZE[1] // grain, SIZE[0] // grain, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(SIZE, Image.Resampling.NEAREST)


def _clouds(rng: np.random.Generator) -> Image.Image:
    cells = float(rng.uniform(2, 20))
    channels = [128 + 50 * smooth_noise(rng, SIZE, cells) for _ in range(3)]
    return Image.fromarray(np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8))


def _stripes(rng: np.random.Generator) -> Image.Image:
    image = Image.new("RGB", SIZE, any_colour(rng))
    pen = Canvas(image, np.array([[1.0, 0, SIZE[0] / 2], [0, 1.0, SIZE[1] / 2]])).at(
        0, 0, float(rng.uniform(0, math.pi))
    )
    step, colour = float(rng.uniform(6, 50)), any_colour(rng, most=0.9)
    for x in np.arange(-300, 300, step):
        pen.polygon([(x, -300), (x + step / 2, -300), (x + step / 2, 300), (x, 300)], colour)
    return image


def _checks(rng: np.random.Generator) -> Image.Image:
    across = int(rng.integers(3, 24))
    board = np.indices((round(across * SIZE[1] / SIZE[0]) + 1, across)).sum(axis=0) % 2
    colours = np.array([any_colour(rng), any_colour(rng, most=0.9)], dtype=np.uint8)
    return Image.fromarray(colours[board]).resize(SIZE, Image.Resampling.NEAREST)


def _text(rng: np.random.Generator) -> Image.Image:
    dark = bool(rng.random() < 0.3)
    image = Image.new("RGB", SIZE, (24, 26, 30) if dark else (250, 250, 248))
    draw, size = ImageDraw.Draw(image), int(rng.integers(9, 26))
    font, letters = ImageFont.load_default(size), list(string.ascii_lowercase + "     ")
    for y in range(8, SIZE[1], round(size * 1.4)):
        line = "".join(rng.choice(letters, size=int(rng.integers(8, 60))))
        draw.text((10, y), line, fill=(230, 230, 226) if dark else (30, 30, 34), font=font)
    return image


def _screen(rng: np.random.Generator) -> Image.Image:
    image = Image.new("RGB", SIZE, any_colour(rng, (0.85, 0.95)))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(11)
    draw.rectangle((0, 0, SIZE[0], 22), fill=any_colour(rng, (0.2, 0.5)))
    for _ in range(int(rng.integers(4, 12))):
        x, y = int(rng.integers(0, 260)), int(rng.integers(30, 210))
        box = (x, y, x + int(rng.integers(30, 140)), y + int(rng.integers(14, 60)))
        draw.rounded_rectangle(box, 4, fill=any_colour(rng, (0.5, 0.98)), outline=(120, 120, 126))
        draw.text((x + 5, y + 2), "".join(rng.choice(list(string.ascii_letters), 7)), fill=(40, 40, 46), font=font)
    return image


def _chart(rng: np.random.Generator) -> Image.Image:
    image = Image.new("RGB", SIZE, (252, 252, 252))
    draw = ImageDraw.Draw(image)
    draw.line([(30, 10), (30, 215), (310, 215)], fill=(60, 60, 60), width=2)
    if rng.random() < 0.5:
        width = 270 // (bars := int(rng.integers(4, 14)))
        for bar in range(bars):
            x = 36 + bar * width
            draw.rectangle((x, int(rng.integers(20, 200)), x + round(width * 0.7), 214), fill=any_colour(rng))
    else:
        for _ in range(int(rng.integers(1, 5))):
            steps = np.cumsum(rng.normal(0, 14, 28)) + float(rng.uniform(60, 170))
            draw.line([(32 + 10 * i, float(np.clip(y, 12, 213))) for i, y in enumerate(steps)], any_colour(rng), 3)
    return image


def _scenery(rng: np.random.Generator) -> Image.Image:
    image = background(rng, SIZE).resize(SIZE, Image.Resampling.BICUBIC)
    clutter(Canvas(image, np.array([[240.0, 0, 160], [0, 240.0, 120]])), rng, int(rng.integers(2, 7)))
    return image


def _shades(rng: np.random.Generator) -> Image.Image:
    return gradient(SIZE, any_colour(rng, (0, 1), 1.0), any_colour(rng, (0, 1), 1.0), float(rng.uniform(0, 6.28)))


_FAMILIES: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    "noise": _noise, "clouds": _clouds, "stripes": _stripes, "checks": _checks, "text": _text, "screen": _screen,
    "chart": _chart, "scenery": _scenery, "shades": _shades,
}  # fmt: skip
FAMILIES = tuple(_FAMILIES)
