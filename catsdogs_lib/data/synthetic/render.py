"""Drawing of one animal, an illustration in which only shapes tell the kinds apart, as in photos.

Pose, position, size, coat, background and light have the same distribution for every kind, so colours at fixed
positions say next to nothing; ears, muzzle, pupils and build differ.
"""

import math

import numpy as np
from PIL import Image, ImageFilter

from catsdogs_lib.common.errors import SettingsError
from catsdogs_lib.data.synthetic.animals import IRISES, POSES, WHITE, Appearance, Coat, animal
from catsdogs_lib.data.synthetic.backgrounds import background, clutter
from catsdogs_lib.data.synthetic.canvas import Canvas, Colour, mix, smooth_noise

KINDS = ("cat", "dog", "rabbit", "owl")
"""Kinds of animals that can be drawn."""

MIN_SIDE = 32
"""Smallest side of a picture, in pixels."""
SUPERSAMPLING = 2
"""Factor by which pictures are drawn larger and then averaged down, which smooths the edges."""

FURS: tuple[Colour, ...] = (
    (58, 52, 54), (92, 84, 82), (140, 134, 130), (196, 190, 182), (226, 218, 204), (206, 148, 86), (172, 112, 62),
    (120, 82, 56), (216, 184, 138), (150, 116, 88), (108, 112, 122),
)  # fmt: skip
PATTERNS = ("solid", "tabby", "spots", "patches")


def draw(kind: str, seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Draw one picture; the same arguments give the same pixels.

    Parameters
    ----------
    kind
        One of `KINDS`.
    seed
        Not negative; each seed gives another animal in another scene.
    size
        Width and height in pixels, each at least `MIN_SIDE`.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.

    Raises
    ------
    SettingsError
        An unknown kind, a negative seed or a size that is too small.
    """
    if kind not in KINDS:
        raise SettingsError("kind", f"'{kind}' cannot be drawn; use one of {', '.join(KINDS)}")
    if seed < 0:
        raise SettingsError("seed", f"{seed} is negative; use 0 or more")
    if min(size) < MIN_SIDE:
        raise SettingsError("size", f"{size[0]} x {size[1]} is too small; use at least {MIN_SIDE} pixels a side")
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    canvas = background(rng, size).resize((size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING), Image.Resampling.BICUBIC)
    pose = POSES[int(rng.choice(len(POSES), p=(0.4, 0.25, 0.15, 0.2)))]
    frame = _frame(rng, canvas.size, pose)
    pattern = PATTERNS[int(rng.integers(len(PATTERNS)))]
    coat = _coat(rng)
    pen = Canvas(canvas, frame, _fur(rng, canvas.size, frame, coat, pattern))
    appearance = Appearance(float(rng.uniform(-1, 1)), float(rng.uniform(-1, 1)), float(rng.normal(0, 0.14)), pose)
    animal(pen, kind, appearance, coat, rng)
    if rng.random() < 0.25:  # something is in the way
        clutter(Canvas(canvas, frame).at(0, 0, scale=4), rng, 3)
    return _light(rng, canvas.reduce(SUPERSAMPLING))


def _frame(rng: np.random.Generator, size: tuple[int, int], pose: str) -> np.ndarray:
    """Choose the position of the animal: the matrix from head units to pixels."""
    short = min(size)
    # (least and most half width of the head as share of the shorter side, centre of the animal below its head)
    least, most, below = {"portrait": (0.16, 0.26, 0.35), "sitting": (0.095, 0.15, 1.2),
                          "standing": (0.085, 0.125, 0.8), "lying": (0.095, 0.15, 0.5)}[pose]  # fmt: skip
    aside = {"standing": 1.4, "lying": 1.1}.get(pose, 0.0)
    unit = float(rng.uniform(least, most)) * short
    angle, flip = float(rng.normal(0, 0.1)), float(rng.choice((-1.0, 1.0)))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) * unit
    turn[:, 0] *= flip
    jitter = rng.uniform(-0.12, 0.12, 2) * short
    centre = np.array(size) / 2 + jitter + turn @ (aside, -below)
    return np.concatenate([turn, centre[:, None]], axis=1)


def _coat(rng: np.random.Generator) -> Coat:
    base = FURS[int(rng.integers(len(FURS)))]
    base = mix(base, FURS[int(rng.integers(len(FURS)))], float(rng.uniform(0, 0.3)))
    # Marks are darker than light fur and lighter than dark fur.
    dark = mix(base, (40, 30, 26), 0.5) if sum(base) > 270 else mix(base, (150, 116, 84), 0.5)
    light = mix(base, WHITE, float(rng.choice((0.35, 0.85))))
    line = mix(base, (24, 18, 20), 0.62)
    return Coat(base, dark, light, line, IRISES[int(rng.integers(len(IRISES)))], bool(rng.random() < 0.45))


def _fur(
    rng: np.random.Generator, size: tuple[int, int], frame: np.ndarray, coat: Coat, pattern: str
) -> Image.Image:  # fmt: skip
    """Paint the coat over the whole canvas at half its size; the parts of the animal are cut from it."""
    half = size[0] // 2, size[1] // 2
    back = np.linalg.inv(frame[:, :2]).astype(np.float32)
    x = np.arange(half[0], dtype=np.float32)[None, :] * 2 - np.float32(frame[0, 2])
    y = np.arange(half[1], dtype=np.float32)[:, None] * 2 - np.float32(frame[1, 2])
    u, v = back[0, 0] * x + back[0, 1] * y, back[1, 0] * x + back[1, 1] * y  # head units
    cells = min(size) / math.sqrt(abs(float(np.linalg.det(frame[:, :2]))))
    warp = smooth_noise(rng, half, cells)
    match pattern:
        case "tabby":
            slant = float(rng.uniform(-0.7, 0.7))
            share = (np.sin((v + slant * np.abs(u) + 0.16 * warp) * float(rng.uniform(9, 15))) - 0.1) * 3
        case "spots":
            share = (smooth_noise(rng, half, cells * 2.4) - 0.8) * 5
        case "patches":
            share = (warp - 0.35) * 8
        case _:
            share = np.full_like(warp, -1.0)
    grain = smooth_noise(rng, half, cells * 12) * 4
    grain += 12 * np.clip(-0.4 * v, -1, 1)  # lit from above
    pixels = np.empty((half[1], half[0], 3), np.float32)
    share = np.clip(share, 0, 1) * np.float32(rng.uniform(0.55, 1.0))
    for channel, (base, dark) in enumerate(zip(coat.base, coat.dark, strict=True)):
        pixels[..., channel] = share * np.float32(dark - base) + grain + np.float32(base)
    np.clip(pixels, 0, 255, out=pixels)
    return Image.fromarray(pixels.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)


def _light(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Light the scene from one side, tint it, and add what a lens and a sensor add."""
    soft = rng.random()
    if soft < 0.4:  # most photos are sharp, some a little soft, a few badly out of focus
        blur = rng.uniform(0.006, 0.012) if soft < 0.05 else rng.uniform(0.001, 0.006)
        image = image.filter(ImageFilter.GaussianBlur(float(blur) * min(image.size)))
    angle, depth = float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(0, 0.35))
    x = np.linspace(-0.7, 0.7, image.width, dtype=np.float32)[None, :]
    y = np.linspace(-0.7, 0.7, image.height, dtype=np.float32)[:, None]
    shade = 1 + np.float32(depth * math.cos(angle)) * x + np.float32(depth * math.sin(angle)) * y
    tint = rng.uniform(0.75, 1.12) * (1 + rng.normal(0, 0.04, 3))
    noise = rng.standard_normal(shade.shape, dtype=np.float32) * np.float32(rng.uniform(0.5, 2.5))
    pixels = np.asarray(image).astype(np.float32)
    for channel in range(3):
        pixels[..., channel] *= shade * np.float32(tint[channel])
        pixels[..., channel] += noise
    np.clip(pixels, 0, 255, out=pixels)
    return Image.fromarray(pixels.astype(np.uint8))
