"""Canvas for smooth shapes in rotated, scaled and mirrored coordinates."""

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Colour: TypeAlias = tuple[int, int, int]
Points: TypeAlias = Sequence[tuple[float, float]]


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Blend two colours; `share` in 0..1 is how much there is of the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], cells: float) -> NDArray[np.float32]:
    """Draw smooth random noise.

    Parameters
    ----------
    rng
        Random generator.
    size
        Width and height of the result, in pixels.
    cells
        Approximate number of bumps along the shorter side.

    Returns
    -------
    ndarray of float32, shape (height, width)
        Mean about 0, standard deviation about 1.
    """
    cell = min(size) / cells
    grid = rng.normal(size=(math.ceil(size[1] / cell) + 2, math.ceil(size[0] / cell) + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC), dtype=np.float32) * np.float32(1.3)


class Canvas:
    """Draws on an RGB image through an affine frame: local units in, pixels out.

    Parameters
    ----------
    image
        Image that is drawn on, in place.
    matrix
        Shape (2, 3): pixels are ``matrix @ (x, y, 1)``.
    texture
        Fill of shapes without a colour, as large as `image`.
    """

    def __init__(self, image: Image.Image, matrix: NDArray[np.float64], texture: Image.Image | None = None) -> None:
        self.image = image
        self.matrix = matrix
        self.texture = texture
        self._draw = ImageDraw.Draw(image)

    @property
    def unit(self) -> float:
        """Length of one local unit, in pixels."""
        return math.sqrt(abs(float(np.linalg.det(self.matrix[:, :2]))))

    def at(self, x: float, y: float, angle: float = 0.0, scale: float = 1.0, mirror: bool = False) -> "Canvas":
        """Return a canvas with its origin at (`x`, `y`), rotated by `angle` radians, scaled and perhaps mirrored."""
        cos, sin, flip = math.cos(angle) * scale, math.sin(angle) * scale, -1.0 if mirror else 1.0
        local = np.array([[cos * flip, -sin, x], [sin * flip, cos, y], [0.0, 0.0, 1.0]])
        return Canvas(self.image, self.matrix @ local, self.texture)

    def pixels(self, points: Points) -> list[tuple[float, float]]:
        """Turn local points into pixels."""
        local = np.asarray(points, dtype=np.float64)
        return [(float(x), float(y)) for x, y in local @ self.matrix[:, :2].T + self.matrix[:, 2]]

    def polygon(
        self, points: Points, colour: Colour | None = None, line: Colour | None = None, opacity: float = 1.0,
        width: float = 0.035,
    ) -> None:  # fmt: skip
        """Fill a polygon with a colour, or with the texture where there is none; `line` draws its outline."""
        corners = self.pixels(points)
        if colour is not None and opacity >= 1.0:
            self._draw.polygon(corners, fill=colour)
        else:
            self._paste(corners, colour, opacity)
        if line is not None:
            self._draw.line([*corners, *corners[:2]], fill=line, width=max(1, round(width * self.unit)), joint="curve")

    def _paste(self, corners: list[tuple[float, float]], colour: Colour | None, opacity: float) -> None:
        xs, ys = zip(*corners, strict=True)
        left, top = max(0, math.floor(min(xs))), max(0, math.floor(min(ys)))
        right, bottom = min(self.image.width, math.ceil(max(xs)) + 1), min(self.image.height, math.ceil(max(ys)) + 1)
        if left >= right or top >= bottom:
            return  # outside of the picture
        mask = Image.new("L", (right - left, bottom - top))
        shifted = [(x - left, y - top) for x, y in corners]
        ImageDraw.Draw(mask).polygon(shifted, fill=round(255 * opacity))
        box = (left, top, right, bottom)
        if colour is None and self.texture is not None:
            self.image.paste(self.texture.crop(box), box, mask)
        else:
            self.image.paste(colour or (0, 0, 0), box, mask)

    def blob(
        self, points: Points, colour: Colour | None = None, line: Colour | None = None, opacity: float = 1.0,
        width: float = 0.035,
    ) -> None:  # fmt: skip
        """Fill the smooth closed curve through `points`."""
        self.polygon(curve(points, closed=True), colour, line, opacity, width)

    def both(self, half: Points, colour: Colour | None = None, line: Colour | None = None) -> None:
        """Fill the smooth curve through `half` (top to bottom, on the right) and its mirror image."""
        self.blob([*half, *((-x, y) for x, y in reversed(half) if x > 0)], colour, line)

    def oval(
        self, x: float, y: float, rx: float, ry: float, colour: Colour | None = None, line: Colour | None = None,
        opacity: float = 1.0, angle: float = 0.0, width: float = 0.035,
    ) -> None:  # fmt: skip
        """Fill an ellipse about (`x`, `y`) with half axes `rx` and `ry`, turned by `angle` radians."""
        turns = np.linspace(0, 2 * math.pi, 40, endpoint=False)
        u, v = rx * np.cos(turns), ry * np.sin(turns)
        cos, sin = math.cos(angle), math.sin(angle)
        around = zip((x + u * cos - v * sin).tolist(), (y + u * sin + v * cos).tolist(), strict=True)
        self.polygon(list(around), colour, line, opacity, width)

    def stroke(self, points: Points, colour: Colour, width: float, smooth: bool = True) -> None:
        """Draw a line with round ends, `width` local units wide."""
        path = self.pixels(curve(points) if smooth else points)
        thick = max(1, round(width * self.unit))
        self._draw.line(path, fill=colour, width=thick, joint="curve")
        if thick > 3:
            for x, y in (path[0], path[-1]):
                self._draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=colour)

    def limb(self, points: Points, width: float, line: Colour, taper: float = 1.0) -> None:
        """Draw a furry limb along the curve through `points`, `width` units wide at first, `taper` times at its end."""
        path = np.asarray(curve(points), dtype=np.float64)
        along = np.gradient(path, axis=0)
        across = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.linalg.norm(along, axis=1, keepdims=True)
        half = width / 2 * np.linspace(1, taper, len(path))[:, None]
        # A half circle closes the far end, so that a tail does not look cut off.
        end = math.atan2(along[-1, 1], along[-1, 0])
        turns = end + np.linspace(math.pi / 2, -math.pi / 2, 8)
        cap = path[-1] + half[-1] * np.stack([np.cos(turns), np.sin(turns)], axis=1)
        outline = np.concatenate([path + across * half, cap, (path - across * half)[::-1]])
        self.polygon([(float(x), float(y)) for x, y in outline], None, line)


def curve(points: Points, closed: bool = False, steps: int = 7) -> list[tuple[float, float]]:
    """Run a Catmull-Rom spline through `points`, with `steps` points for each stretch."""
    knots = np.asarray(points, dtype=np.float64)
    if closed:
        knots = np.concatenate([knots[-1:], knots, knots[:2]])
    else:
        knots = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    a, b, c, d = (knots[k : len(knots) - 3 + k, None, :] for k in range(4))
    path = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    flat = path.reshape(-1, 2)
    if not closed:
        flat = np.concatenate([flat, knots[-2:-1]])
    return [(float(x), float(y)) for x, y in flat]
