"""Shapes of the animals: kinds differ in shape alone, while coats, poses and colours have one distribution."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from catsdogs_lib.data.synthetic.canvas import Canvas, Colour, mix

POSES = ("portrait", "sitting", "standing", "lying")
INK: Colour = (38, 32, 34)
PINK: Colour = (226, 158, 154)
WHITE: Colour = (246, 242, 236)
IRISES: tuple[Colour, ...] = ((196, 148, 48), (150, 164, 62), (112, 150, 176), (150, 96, 46), (122, 140, 84))


class Coat(NamedTuple):
    """The colours of one animal: `base` fur, `dark` marks, the `line` round each part, and `light` muzzle and chest."""

    base: Colour
    dark: Colour
    light: Colour
    line: Colour
    iris: Colour
    socks: bool


class Appearance(NamedTuple):
    """Pose of one animal: `yaw` and `pitch` of the face in -1..1, head `tilt` in radians."""

    yaw: float
    pitch: float
    tilt: float
    pose: str


def animal(pen: Canvas, kind: str, appearance: Appearance, coat: Coat, rng: np.random.Generator) -> None:
    """Draw an animal with its head about the origin, one unit being half the width of the head.

    Parameters
    ----------
    pen
        Its texture is the fur.
    kind
        ``"cat"``, ``"dog"``, ``"rabbit"`` or ``"owl"``.
    appearance, coat
        Properties that all kinds share.
    rng
        Draws what differs within a kind: length of ears, tongue, girth.
    """
    _BODIES[appearance.pose](pen, kind, coat, rng)
    head = pen.at(0, 0, appearance.tilt)
    _HEADS[kind](head, appearance, coat, rng)


def _tail(pen: Canvas, kind: str, x: float, y: float, coat: Coat, rng: np.random.Generator) -> None:
    """Draw a tail that leaves the body at (`x`, `y`) towards negative x."""
    lift = rng.uniform(0.6, 1.0)
    if kind == "cat":  # long, thin, with a hook
        points = [(x, y), (x - 0.8, y - 0.1), (x - 1.2, y - 0.9 * lift), (x - 1.0, y - 1.7 * lift),
                  (x - 1.35, y - 2.1 * lift)]  # fmt: skip
        pen.limb(points, 0.34, coat.line, 0.75)
    elif kind == "dog":  # short, thick at its root, pointed
        pen.limb([(x + 0.1, y), (x - 0.45, y - 0.5 * lift), (x - 0.75, y - 1.15 * lift)], 0.46, coat.line, 0.35)
    elif kind == "rabbit":
        pen.oval(x - 0.15, y, 0.4, 0.37, coat.light, coat.line)
    else:  # feathers
        pen.polygon([(x + 0.2, y - 0.2), (x - 0.7, y + 0.3 * lift), (x - 0.5, y + 0.55), (x + 0.1, y + 0.3)], None,
                    coat.line)  # fmt: skip


def _paw(pen: Canvas, x: float, y: float, coat: Coat, size: float = 0.3) -> None:
    pen.oval(x, y, size, size * 0.62, coat.light if coat.socks else None, coat.line)
    for toe in (-0.3, 0.3):
        pen.stroke([(x + toe * size, y), (x + toe * size, y + size * 0.5)], coat.line, 0.035)


def _bust(pen: Canvas, kind: str, coat: Coat, rng: np.random.Generator) -> None:
    wide = {"cat": 0.95, "dog": 1.1, "rabbit": 0.9, "owl": 1.15}[kind] * rng.uniform(0.9, 1.15)
    pen.both([(0, 0.0), (0.55, 0.5), (wide, 1.4), (wide * 1.25, 2.6), (wide * 1.2, 4.5), (0, 4.5)], None, coat.line)
    if coat.socks:
        pen.both([(0, 0.6), (0.4, 1.1), (0.42, 1.8), (0, 2.5)], coat.light)


def _sitting(pen: Canvas, kind: str, coat: Coat, rng: np.random.Generator) -> None:
    wide = {"cat": 0.95, "dog": 0.98, "rabbit": 1.12, "owl": 1.05}[kind] * rng.uniform(0.9, 1.12)
    foot = {"cat": 3.1, "dog": 3.5, "rabbit": 2.5, "owl": 2.9}[kind]
    _tail(pen, kind, -wide * 0.9, foot - 0.45, coat, rng)
    for mirrored in (False, True):  # haunches and hind feet
        hind = pen.at(0, 0, mirror=mirrored)
        hind.oval(wide * 0.86, foot - 0.62, 0.5, 0.66, None, coat.line)
        _paw(hind, wide * 1.0, foot, coat, 0.42 if kind == "rabbit" else 0.34)
    top = 0.5 if kind != "dog" else 0.62
    pen.both([(0, 0.2), (top, 0.7), (wide * 0.8, 1.5), (wide, foot - 0.7), (wide * 0.7, foot - 0.05), (0, foot)],
             None, coat.line)  # fmt: skip
    if coat.socks:
        pen.both([(0, 0.6), (0.4, 1.05), (0.36, 1.6), (0, 2.1)], coat.light)
    for side in (-1, 1):
        x = side * 0.33
        pen.limb([(x * 1.1, 1.5), (x, foot - 0.6), (x, foot - 0.05)], 0.46, coat.line, 0.9)
        _paw(pen, x, foot, coat)


def _standing(pen: Canvas, kind: str, coat: Coat, rng: np.random.Generator) -> None:
    long = {"cat": 3.3, "dog": 3.3, "rabbit": 2.4, "owl": 1.9}[kind] * rng.uniform(0.95, 1.1)
    leg = {"cat": 1.15, "dog": 1.35, "rabbit": 0.55, "owl": 0.5}[kind]
    deep = {"cat": 0.72, "dog": 0.82, "rabbit": 0.95, "owl": 1.0}[kind]
    middle = 1.25
    _tail(pen, kind, -long + 0.2, middle - 0.2, coat, rng)
    floor = middle + deep + leg - 0.2
    for x in (-long + 0.75, -0.25):  # the far legs
        pen.limb([(x, middle), (x - 0.05, floor - 0.4), (x, floor - 0.15)], 0.4, coat.line, 0.8)
        _paw(pen, x + 0.08, floor - 0.12, coat, 0.26)
    arch = 0.45 if kind == "rabbit" else 0.0
    pen.blob(
        [(0.35, 0.6), (0.5, middle + 0.2), (-0.1, middle + deep), (-long / 2, middle + deep * 0.85),
         (-long + 0.2, middle + deep * 0.9), (-long - 0.05, middle), (-long + 0.5, middle - deep * 0.85 - arch),
         (-long / 2, middle - deep * 0.75 - arch), (-0.5, middle - deep)], None, coat.line)  # fmt: skip
    for x in (-long + 0.35, 0.05):
        pen.limb([(x, middle + 0.3), (x - 0.08, floor - 0.3), (x, floor)], 0.48, coat.line, 0.85)
        _paw(pen, x + 0.1, floor, coat)


def _lying(pen: Canvas, kind: str, coat: Coat, rng: np.random.Generator) -> None:
    long = {"cat": 2.9, "dog": 3.1, "rabbit": 2.3, "owl": 2.0}[kind] * rng.uniform(0.95, 1.1)
    _tail(pen, kind, -long + 0.2, 1.4, coat, rng)
    pen.blob([(0.5, 0.6), (0.75, 1.3), (0.3, 1.85), (-long / 2, 1.9), (-long + 0.2, 1.85), (-long - 0.1, 1.2),
              (-long + 0.5, 0.35), (-long / 2, 0.2), (-0.5, 0.2)], None, coat.line)  # fmt: skip
    pen.oval(-long + 0.65, 1.25, 0.7, 0.66, None, coat.line)
    _paw(pen, -long + 0.95, 1.85, coat, 0.4)
    for x in (0.15, 0.75):
        pen.limb([(x - 0.7, 1.6), (x, 1.78), (x + 0.3, 1.82)], 0.42, coat.line, 0.9)
        _paw(pen, x + 0.35, 1.84, coat)


_BODIES: dict[str, Callable[[Canvas, str, Coat, np.random.Generator], None]] = {
    "portrait": _bust, "sitting": _sitting, "standing": _standing, "lying": _lying,
}  # fmt: skip


def _whiskers(pen: Canvas, x: float, y: float, reach: float, coat: Coat) -> None:
    colour = mix(WHITE, coat.line, 0.15 if sum(coat.base) < 420 else 0.75)
    for side in (-1, 1):
        for slope in (-0.16, 0.02, 0.2):
            start, end = (x + side * 0.22, y + slope * 0.3), (x + side * reach, y + slope * reach * 0.8 - 0.04)
            middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 - 0.06)
            pen.stroke([start, middle, end], colour, 0.024)


def _cat(pen: Canvas, appearance: Appearance, coat: Coat, rng: np.random.Generator) -> None:
    tall, out = rng.uniform(1.3, 1.6), rng.uniform(0.72, 0.95)
    fx, fy = 0.2 * appearance.yaw, 0.1 * appearance.pitch
    for mirrored in (False, True):
        # Turning the face away makes the far ear narrower.
        ear = pen.at(fx * 0.4, 0, mirror=mirrored)
        inner = 0.16 + 0.1 * (appearance.yaw if mirrored else -appearance.yaw)
        outline = [(0.97, -0.1), (0.99, -0.6), (out, -tall), (0.55, -1.08), (inner, -0.72), (0.4, -0.2)]
        ear.polygon(outline, None, coat.line)
        ear.polygon([(0.84, -0.5), (out - 0.05, -tall + 0.24), (0.42, -0.74)], mix(PINK, coat.dark, 0.3))
    cheek = rng.uniform(0.98, 1.1)
    pen.both([(0, -0.78), (0.5, -0.72), (0.88, -0.32), (cheek, 0.16), (0.86, 0.5), (0.42, 0.8), (0, 0.86)],
             None, coat.line)  # fmt: skip
    for mirrored in (False, True):
        eye = pen.at(fx, fy, mirror=mirrored).at(0.42, -0.06, -0.2)
        eye.blob([(-0.25, 0.03), (-0.08, -0.17), (0.14, -0.17), (0.27, -0.02), (0.1, 0.16), (-0.1, 0.15)],
                 coat.iris, INK)  # fmt: skip
        eye.oval(0.01, 0, rng.uniform(0.045, 0.075), 0.155, INK, angle=0.2)
        eye.oval(0.07, -0.07, 0.035, 0.035, WHITE)
    nose = pen.at(fx * 1.3, fy + 0.3)
    for side in (-1, 1):
        nose.oval(side * 0.17, 0.16, 0.23, 0.18, coat.light)
    _whiskers(nose, 0, 0.12, rng.uniform(1.15, 1.5), coat)
    nose.blob([(-0.11, -0.05), (0, -0.07), (0.11, -0.05), (0.03, 0.06), (-0.03, 0.06)], PINK, INK, width=0.022)
    for side in (-1, 1):
        nose.stroke([(0, 0.06), (side * 0.04, 0.2), (side * 0.16, 0.24), (side * 0.25, 0.18)], INK, 0.035)


def _dog(pen: Canvas, appearance: Appearance, coat: Coat, rng: np.random.Generator) -> None:
    fx, fy = 0.2 * appearance.yaw, 0.1 * appearance.pitch
    jaw, drop, wing = rng.uniform(0.5, 0.64), rng.uniform(0.45, 1.15), rng.uniform(1.12, 1.38)
    pen.both([(0, -0.86), (0.5, -0.8), (0.82, -0.38), (0.8, 0.1), (jaw + 0.08, 0.55), (jaw - 0.08, 1.0), (0, 1.16)],
             None, coat.line)  # fmt: skip
    dark = rng.random() < 0.5
    # Some dogs prick their ears, so that a pointed ear alone does not make a cat.
    pricked = [(0.2, -0.82), (0.5, -1.3), (0.82, -1.42), (0.94, -1.0), (0.84, -0.42)] if rng.random() < 0.2 else None
    for mirrored in (False, True):
        ear = pen.at(fx * 0.4, 0, mirror=mirrored)
        outline = pricked or [
            (0.42, -0.84), (0.78, -0.86), (wing - 0.08, -0.5), (wing, drop * 0.4), (wing - 0.12, drop),
            (wing - 0.36, drop * 0.9), (0.78, 0.05), (0.7, -0.42),
        ]  # fmt: skip
        ear.blob(outline, coat.dark if dark else None, coat.line, width=0.05)
    for mirrored in (False, True):
        eye = pen.at(fx, fy, mirror=mirrored).at(0.33, -0.2)
        eye.oval(0, 0, 0.16, 0.16, coat.iris, INK)
        eye.oval(-0.01, 0.01, 0.11, 0.115, INK)
        eye.oval(0.05, -0.05, 0.04, 0.04, WHITE)
        eye.stroke([(-0.13, -0.25), (0.02, -0.31), (0.16, -0.25)], coat.dark, 0.07)
    snout = pen.at(fx * 2.1, fy * 1.6 + 0.45)
    if rng.random() < 0.45:
        long = rng.uniform(0.75, 1.0)
        snout.both([(0, 0.3), (0.2, 0.32), (0.24, long * 0.8), (0, long)], (222, 104, 112), (150, 60, 70))
        snout.stroke([(0, 0.4), (0, long * 0.75)], (180, 76, 86), 0.03)
    snout.both([(0, -0.38), (0.3, -0.28), (jaw - 0.02, 0.12), (0.42, 0.42), (0.14, 0.46), (0, 0.42)],
               coat.light, coat.line)  # fmt: skip
    for side in (-1, 1):
        snout.stroke([(0, 0.0), (side * 0.02, 0.26), (side * 0.2, 0.36), (side * 0.38, 0.26)], INK, 0.045)
        for x, y in ((0.22, 0.1), (0.32, 0.16), (0.25, 0.2)):
            snout.oval(side * x, y, 0.018, 0.018, INK)
    snout.both([(0, -0.32), (0.18, -0.3), (0.27, -0.16), (0.14, -0.0), (0, 0.04)], INK)
    snout.oval(-0.06, -0.22, 0.08, 0.035, (112, 106, 110))


def _rabbit(pen: Canvas, appearance: Appearance, coat: Coat, rng: np.random.Generator) -> None:
    fx, fy = 0.2 * appearance.yaw, 0.1 * appearance.pitch
    long = rng.uniform(1.35, 1.75)
    for mirrored in (False, True):
        ear = pen.at(fx * 0.4, -0.55, mirror=mirrored).at(0.36, 0, rng.uniform(0.0, 0.34))
        ear.both([(0, -long), (0.17, -long + 0.16), (0.29, -long * 0.55), (0.2, 0), (0, 0.2)], None, coat.line)
        ear.both([(0, -long + 0.2), (0.09, -long + 0.3), (0.15, -long * 0.55), (0.07, -0.12), (0, -0.1)],
                 mix(PINK, coat.dark, 0.25))  # fmt: skip
    pen.both([(0, -0.8), (0.45, -0.7), (0.76, -0.25), (0.9, 0.3), (0.66, 0.72), (0, 0.88)], None, coat.line)
    for mirrored in (False, True):
        eye = pen.at(fx, fy, mirror=mirrored).at(0.5, -0.12)
        eye.oval(0, 0, 0.15, 0.19, coat.iris, INK)
        eye.oval(-0.01, 0, 0.115, 0.15, INK)
        eye.oval(0.04, -0.07, 0.04, 0.045, WHITE)
    nose = pen.at(fx * 1.3, fy + 0.3)
    for side in (-1, 1):
        nose.oval(side * 0.19, 0.15, 0.25, 0.21, coat.light)
    _whiskers(nose, 0, 0.12, rng.uniform(0.8, 1.05), coat)
    nose.polygon([(-0.08, 0.28), (0.08, 0.28), (0.07, 0.46), (-0.07, 0.46)], WHITE, INK, width=0.022)
    nose.blob([(-0.1, -0.06), (0.1, -0.06), (0.0, 0.07)], PINK, INK, width=0.022)
    for side in (-1, 1):
        nose.stroke([(0, 0.06), (side * 0.03, 0.22), (side * 0.2, 0.27)], INK, 0.035)


def _owl(pen: Canvas, appearance: Appearance, coat: Coat, rng: np.random.Generator) -> None:
    fx, fy = 0.2 * appearance.yaw, 0.1 * appearance.pitch
    tuft, disc = rng.uniform(1.05, 1.3), rng.uniform(0.44, 0.54)
    pen.both([(0, -0.82), (0.5, -0.84), (0.95, -0.4), (1.02, 0.2), (0.8, 0.7), (0, 0.92)], None, coat.line)
    for mirrored in (False, True):
        ear = pen.at(fx * 0.4, 0, mirror=mirrored)
        ear.polygon([(0.4, -0.78), (0.86, -tuft), (0.88, -0.5)], coat.dark, coat.line)
    for mirrored in (False, True):
        eye = pen.at(fx, fy, mirror=mirrored).at(0.44, -0.12)
        eye.oval(0, 0, disc, disc, coat.light, coat.line)
        eye.oval(0, 0, 0.27, 0.27, coat.iris, INK)
        eye.oval(-0.01, 0.01, 0.14, 0.14, INK)
        eye.oval(0.07, -0.08, 0.05, 0.05, WHITE)
    beak = pen.at(fx * 1.4, fy + 0.12)
    beak.polygon([(-0.13, 0), (0.13, 0), (0.02, rng.uniform(0.34, 0.46))], (214, 164, 70), INK, width=0.025)


_HEADS: dict[str, Callable[[Canvas, Appearance, Coat, np.random.Generator], None]] = {
    "cat": _cat, "dog": _dog, "rabbit": _rabbit, "owl": _owl,
}  # fmt: skip
