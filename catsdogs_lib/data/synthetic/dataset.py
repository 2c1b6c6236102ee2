"""Drawn sample dataset, with the usual faults of a collection planted in it: everything can be tried offline."""

import io
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from catsdogs_lib.common import errors, files, progress
from catsdogs_lib.data.synthetic.render import KINDS, draw
from catsdogs_lib.imaging.decoding import EXIF_ORIENTATION

ASPECTS = (4 / 3, 3 / 2, 1.0, 3 / 4, 2 / 3, 5 / 4)
"""Width over height of the pictures."""
LONG_SIDES = (240, 480)
"""Shortest and longest long side, in pixels."""
QUALITIES = (70, 95)
"""Lowest and highest JPEG quality."""
SEEDS_PER_SAMPLE = 1_000_000
"""Distance of the seeds of two samples, so that they share no picture with each other or with small seeds of `draw`."""


class DrawnSample(NamedTuple):
    """A planted fault.

    Parameters
    ----------
    name
        Its sort: ``"truncated"``, ``"text"``, ``"exact_duplicate"``, ``"near_duplicate"``, ``"two_labels"``,
        ``"exif_rotated"``, ``"grayscale"``, ``"cmyk"`` or ``"alpha"``.
    path
        The faulty file relative to the folder, with forward slashes, e.g. ``"cats/cat-0301.jpg"``.
    what
        Description of the fault; a copy names its original.
    """

    name: str
    path: str
    what: str


class _Plan(NamedTuple):
    """Plan of an ordinary picture, from which everything about it follows."""

    kind: str
    number: int
    seed: int

    @property
    def path(self) -> str:
        return f"{self.kind}s/{self.kind}-{self.number:04d}.jpg"

    def picture(self) -> tuple[Image.Image, int]:
        """Draw the picture; return it with its JPEG quality."""
        rng = np.random.default_rng([self.seed, self.number, KINDS.index(self.kind)])
        aspect = ASPECTS[int(rng.integers(len(ASPECTS)))]
        long = int(rng.integers(LONG_SIDES[0], LONG_SIDES[1] + 1))
        size = (long, round(long / aspect)) if aspect >= 1 else (round(long * aspect), long)
        quality = int(rng.integers(QUALITIES[0], QUALITIES[1] + 1))
        return draw(self.kind, (self.seed + 1) * SEEDS_PER_SAMPLE + self.number, size), quality

    def jpeg(self) -> bytes:
        image, quality = self.picture()
        return _encode(image, quality=quality)


def write_sample(
    folder: Path, per_class: int = 300, seed: int = 0, kinds: Sequence[str] = ("cat", "dog"), faults: bool = True
) -> tuple[DrawnSample, ...]:
    """Write a dataset of drawn pictures, one folder for each class, whole or not at all.

    Parameters
    ----------
    folder
        Gets ``cats/cat-0001.jpg``, ``dogs/dog-0001.jpg`` and so on. An earlier sample there is replaced; a folder
        that holds anything else is refused.
    per_class
        Good pictures of each class; the faults come on top.
    seed
        The same seed gives the same files, byte for byte with the same Pillow.
    kinds
        Any of `catsdogs_lib.data.synthetic.render.KINDS`, each once.
    faults
        Whether to plant the faults that `DrawnSample` lists; ``"two_labels"`` needs two kinds.

    Returns
    -------
    tuple of DrawnSample
        One for each fault.

    Raises
    ------
    SettingsError
        A kind that cannot be drawn, nothing to draw, or a folder that holds something else.
    """
    _check(folder, per_class, seed, kinds)
    plans = [_Plan(kind, number, seed) for kind in kinds for number in range(1, per_class + 1)]
    with files.replacing(folder) as partial:
        for kind in kinds:
            (partial / f"{kind}s").mkdir(parents=True)

        def write(plan: _Plan) -> None:
            (partial / plan.path).write_bytes(plan.jpeg())

        # Threads: resizing, blurring, encoding and numpy release the interpreter lock, and threads work anywhere.
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            list(progress.track(pool.map(write, plans), "drawing pictures", len(plans)))
        return _plant_faults(partial, per_class, seed, kinds) if faults else ()


def _check(folder: Path, per_class: int, seed: int, kinds: Sequence[str]) -> None:
    if per_class < 1:
        raise errors.SettingsError("per_class", f"{per_class} leaves nothing to draw; use 1 or more")
    if seed < 0:
        raise errors.SettingsError("seed", f"{seed} is negative; use 0 or more")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise errors.SettingsError("kinds", f"'{unknown[0]}' cannot be drawn; use any of {', '.join(KINDS)}")
    if not kinds or len(set(kinds)) < len(kinds):
        raise errors.SettingsError("kinds", "name at least one kind, and each once")
    if folder.exists() and not folder.is_dir():
        raise errors.SettingsError("folder", f"{folder} is a file; name a folder")
    sample_path = re.compile(rf"({'|'.join(KINDS)})s(/\1-\d+\.(jpg|png))?")
    for path in folder.rglob("*") if folder.is_dir() else ():
        name = path.relative_to(folder).as_posix()
        if not path.name.startswith(".") and not sample_path.fullmatch(name):
            raise errors.SettingsError(
                "folder", f"{folder} holds '{name}', which is not of a drawn sample and would be lost; name another"
            )


def _encode(image: Image.Image, file_format: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def _plant_faults(folder: Path, per_class: int, seed: int, kinds: Sequence[str]) -> tuple[DrawnSample, ...]:
    faults: list[DrawnSample] = []
    first, last = kinds[0], kinds[-1]
    numbers = dict.fromkeys(kinds, per_class)

    def fresh(kind: str) -> _Plan:
        """Plan the next file of a class, with a new picture."""
        numbers[kind] += 1
        return _Plan(kind, numbers[kind], seed)

    def add(name: str, path: str, data: bytes, what: str) -> None:
        (folder / path).write_bytes(data)
        faults.append(DrawnSample(name, path, what))

    def original(kind: str, number: int) -> _Plan:
        return _Plan(kind, min(number, per_class), seed)

    plan = fresh(first)
    data = plan.jpeg()
    add("truncated", plan.path, data[: len(data) * 2 // 5], "a JPEG that ends after two fifths of its bytes")
    add("text", fresh(last).path, b"<!DOCTYPE html>\n<title>404 Not Found</title>\n" * 20, "a web page called .jpg")

    plan = original(first, 1)
    add("exact_duplicate", fresh(first).path, (folder / plan.path).read_bytes(), f"the bytes of {plan.path}")
    plan = original(last, 2)
    image, _ = plan.picture()
    smaller = image.resize((round(image.width * 0.9), round(image.height * 0.9)), Image.Resampling.LANCZOS)
    add(
        "near_duplicate", fresh(last).path, _encode(smaller, quality=70), f"{plan.path}, made smaller and encoded again"
    )
    if len(kinds) > 1:
        plan = original(first, 3)
        add("two_labels", fresh(last).path, (folder / plan.path).read_bytes(), f"the bytes of {plan.path}, other label")

    plan = fresh(first)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    rotated = plan.picture()[0].transpose(Image.Transpose.ROTATE_90)
    add(
        "exif_rotated",
        plan.path,
        _encode(rotated, quality=90, exif=exif),
        "stored on its side, upright by its EXIF tag 6",
    )
    plan = fresh(last)
    add("grayscale", plan.path, _encode(plan.picture()[0].convert("L"), quality=90), "a JPEG with one channel")
    plan = fresh(first)
    add("cmyk", plan.path, _encode(plan.picture()[0].convert("CMYK"), quality=90), "a JPEG for print, in four inks")
    plan = fresh(last)
    add("alpha", plan.path.replace(".jpg", ".png"), _faded(plan.picture()[0]), "a PNG that fades to transparent")
    return tuple(faults)


def _faded(image: Image.Image) -> bytes:
    """Make a PNG that is transparent towards its corners."""
    alpha = Image.new("L", image.size)
    ImageDraw.Draw(alpha).ellipse((4, 4, image.width - 5, image.height - 5), fill=255)
    image.putalpha(alpha.filter(ImageFilter.GaussianBlur(4)))
    return _encode(image, "PNG", optimize=True)
