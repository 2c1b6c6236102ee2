"""Backgrounds of drawn animals: rooms, gardens, walls, blankets; the same distribution for every kind."""

import colorsys
import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from catsdogs_lib.data.synthetic.canvas import Canvas, Colour, mix, smooth_noise


def any_colour(
    rng: np.random.Generator, light: tuple[float, float] = (0.25, 0.85), most: float = 0.55, hue: float | None = None
) -> Colour:
    """Draw a colour with its lightness in `light` and its saturation at most `most`."""
    h = rng.random() if hue is None else hue
    red, green, blue = colorsys.hls_to_rgb(h % 1, float(rng.uniform(*light)), float(rng.uniform(0.05, most)))
    return round(red * 255), round(green * 255), round(blue * 255)


def background(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Draw an RGB background for a picture of `size` (width, height) pixels; it may come back smaller."""
    scene = _SCENES[int(rng.integers(len(_SCENES)))]
    low, high = any_colour(rng), any_colour(rng)
    image = gradient(size, low, mix(low, high, float(rng.uniform(0.1, 0.9))), float(rng.uniform(0, 2 * math.pi)))
    # One unit is the shorter side, so that a scene looks the same at any size.
    short = min(size)
    pen = Canvas(image, np.array([[short, 0.0, size[0] / 2], [0.0, short, size[1] / 2]]))
    scene(pen, rng)
    # Out of focus: fewer pixels, which the caller stretches again; far cheaper than a blur.
    coarse = float(rng.uniform(1, 1 + 0.015 * short))
    return image.resize((round(size[0] / coarse), round(size[1] / coarse)), Image.Resampling.BILINEAR)


def gradient(size: tuple[int, int], first: Colour, second: Colour, angle: float) -> Image.Image:
    """Blend from one colour to another along `angle` (radians)."""
    x, y = np.linspace(-0.5, 0.5, 32), np.linspace(-0.5, 0.5, 32)[:, None]
    share = np.clip(x * math.cos(angle) + y * math.sin(angle) + 0.5, 0, 1)[..., None]
    pixels = np.asarray(first) * (1 - share) + np.asarray(second) * share
    return Image.fromarray(pixels.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


def clutter(pen: Canvas, rng: np.random.Generator, count: int) -> None:
    """Scatter round, pointed and hanging things, so that no corner or curve alone reveals the kind."""
    for _ in range(count):
        thing = pen.at(float(rng.uniform(-0.75, 0.75)), float(rng.uniform(-0.5, 0.5)),
                       float(rng.uniform(-0.5, 0.5)), float(rng.uniform(0.04, 0.13)))  # fmt: skip
        colour = any_colour(rng)
        line = mix(colour, (20, 20, 20), 0.45)
        match int(rng.integers(5)):
            case 0:  # ball
                thing.oval(0, 0, 1, 1, colour, line)
                thing.stroke([(-0.9, 0.2), (0, -0.2), (0.9, 0.2)], line, 0.12)
            case 1:  # box
                thing.polygon([(-1, -0.7), (1, -0.7), (1, 0.8), (-1, 0.8)], colour, line)
            case 2:  # cone or roof
                thing.polygon([(-0.7, 0.9), (0, -1.1), (0.7, 0.9)], colour, line)
            case 3:  # hanging cloth
                thing.blob([(-0.3, -1), (0.3, -1), (0.6, 0.5), (0.1, 1.2), (-0.5, 0.6)], colour, line)
            case _:  # plant
                for lean in (-0.9, -0.4, 0.0, 0.45, 0.9):
                    thing.blob([(0, 0.6), (lean * 0.5 - 0.2, -0.4), (lean * 1.3, -1.4), (lean * 0.5 + 0.2, -0.3)],
                               colour, line)  # fmt: skip
                thing.polygon([(-0.55, 0.4), (0.55, 0.4), (0.4, 1.2), (-0.4, 1.2)], mix(colour, (160, 90, 60), 0.8))


def _room(pen: Canvas, rng: np.random.Generator) -> None:
    wall, floor, skirt = any_colour(rng, (0.35, 0.9)), any_colour(rng, (0.25, 0.7), hue=rng.uniform(0.02, 0.12)), rng
    line = float(rng.uniform(0.05, 0.32))
    paper = mix(wall, any_colour(skirt), 0.25)
    step = float(rng.uniform(0.06, 0.16))
    match int(rng.integers(3)):
        case 0:
            for k in np.arange(-1.2, 1.2, step):
                pen.polygon([(k, -1), (k + step / 2, -1), (k + step / 2, line), (k, line)], paper)
        case 1:
            for x in np.arange(-1.1, 1.1, step):
                for y in np.arange(-1.0, line, step):
                    pen.oval(float(x), float(y), step / 5, step / 5, paper)
        case _:
            pass
    for _ in range(int(rng.integers(0, 3))):  # pictures and windows
        x, y, w, h = rng.uniform((-0.7, -0.5, 0.08, 0.08), (0.5, -0.1, 0.25, 0.25)).tolist()
        pen.polygon([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], any_colour(rng), mix(floor, (30, 20, 10), 0.4))
        pen.stroke([(x + w / 2, y), (x + w / 2, y + h)], mix(floor, (30, 20, 10), 0.4), 0.01, smooth=False)
    pen.polygon([(-1.5, line), (1.5, line), (1.5, 1.5), (-1.5, 1.5)], floor)
    for k in np.arange(-1.6, 1.6, float(rng.uniform(0.1, 0.3))):
        pen.stroke([(k * 0.8, line), (k * 2, line + 0.8)], mix(floor, (30, 20, 10), 0.3), 0.008, smooth=False)
    if rng.random() < 0.6:  # a sofa or a shelf
        x, w, top, colour = float(rng.uniform(-0.8, 0.1)), float(rng.uniform(0.4, 0.9)), line - 0.28, any_colour(rng)
        dark = mix(colour, (20, 20, 20), 0.35)
        pen.polygon([(x, top), (x + w, top), (x + w, line + 0.15), (x, line + 0.15)], colour, dark)
        pen.polygon([(x - 0.04, line - 0.08), (x + w + 0.04, line - 0.08), (x + w + 0.04, line + 0.17),
                     (x - 0.04, line + 0.17)], mix(colour, dark, 0.4), dark)  # fmt: skip
    clutter(pen, rng, int(rng.integers(1, 5)))


def _garden(pen: Canvas, rng: np.random.Generator) -> None:
    line = float(rng.uniform(-0.25, 0.25))
    for k in range(3):  # hills, then the lawn
        green = any_colour(rng, (0.25, 0.6), 0.5, hue=float(rng.uniform(0.18, 0.42)))
        y = line + 0.12 * k - 0.1
        points = [(x, y + float(rng.uniform(-0.08, 0.08)) / (k + 1)) for x in np.linspace(-1.2, 1.2, 7)]
        pen.blob([*points, (1.5, 1.4), (-1.5, 1.4)], green)
    for _ in range(int(rng.integers(0, 4))):  # trees, round or pointed
        tree = pen.at(float(rng.uniform(-0.8, 0.8)), line, scale=float(rng.uniform(0.08, 0.24)))
        leaf = any_colour(rng, (0.2, 0.5), 0.5, hue=float(rng.uniform(0.08, 0.42)))
        tree.polygon([(-0.12, 0), (0.12, 0), (0.14, 1), (-0.14, 1)], (104, 76, 56))
        if rng.random() < 0.5:
            tree.polygon([(-0.8, 0.4), (0, -1.6), (0.8, 0.4)], leaf)
        else:
            tree.oval(0, -0.5, 0.9, 1.0, leaf)
    blade = mix(green, any_colour(rng, (0.2, 0.8), hue=0.28), 0.5)
    for x, y, lean, high in rng.uniform((-0.9, line + 0.15, -0.03, 0.02), (0.9, 0.7, 0.03, 0.09), (140, 4)).tolist():
        pen.stroke([(x, y), (x + lean, y - high)], blade, 0.007, smooth=False)
    for x, y in rng.uniform((-0.9, line + 0.2), (0.9, 0.7), (int(rng.integers(0, 14)), 2)).tolist():
        pen.oval(x, y, 0.016, 0.016, any_colour(rng, (0.6, 0.9), 0.9))


def _blanket(pen: Canvas, rng: np.random.Generator) -> None:
    cloth = pen.at(0, 0, float(rng.uniform(0, math.pi)))
    for turn in range(int(rng.integers(1, 3))):
        weave = cloth.at(0, 0, turn * math.pi / 2)
        colour, step = any_colour(rng), float(rng.uniform(0.06, 0.22))
        share = float(rng.uniform(0.25, 0.6))
        for k in np.arange(-1.4, 1.4, step):
            weave.polygon([(k, -1.6), (k + step * share, -1.6), (k + step * share, 1.6), (k, 1.6)], colour, None, 0.5)
    clutter(pen, rng, int(rng.integers(0, 3)))


def _lights(pen: Canvas, rng: np.random.Generator) -> None:
    colours = [any_colour(rng, (0.3, 0.9), 0.8) for _ in range(3)]
    for x, y, r in rng.uniform((-0.9, -0.6, 0.03), (0.9, 0.6, 0.17), (int(rng.integers(8, 26)), 3)).tolist():
        pen.oval(x, y, r, r, colours[int(rng.integers(3))], None, 0.45)


def _plain(pen: Canvas, rng: np.random.Generator) -> None:
    clutter(pen, rng, int(rng.integers(0, 5)))


def _rough(pen: Canvas, rng: np.random.Generator) -> None:
    size = pen.image.width // 2, pen.image.height // 2
    field = smooth_noise(rng, size, float(rng.uniform(4, 9))) + 0.5 * smooth_noise(rng, size, 24)
    mask = Image.fromarray(np.clip(128 + 60 * field, 0, 255).astype(np.uint8)).resize(pen.image.size)
    pen.image.paste(any_colour(rng), (0, 0, *pen.image.size), mask)
    clutter(pen, rng, int(rng.integers(0, 4)))


_SCENES: tuple[Callable[[Canvas, np.random.Generator], None], ...] = (
    _room,
    _room,
    _garden,
    _blanket,
    _lights,
    _plain,
    _rough,
)
