"""Every file of a data set, read and decoded once: what it is, what it measures, what is wrong with it."""

import enum
import hashlib
import os
import re
import stat
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from catsdogs_lib.common import files
from catsdogs_lib.common.progress import track
from catsdogs_lib.imaging import decoding, statistics
from catsdogs_lib.imaging.preprocessing import centre_square

SQUARE = 224
"""Side of the centre square that is measured, in pixels: what a model sees."""
THUMBNAIL = 32
"""Side of the gray thumbnail that near-duplicates are compared on, in pixels."""
GRAY_TOLERANCE = 8
"""Channels that differ by no more than this, of 255, show no colour: lossy formats tint gray a little."""
MAX_WORKERS = 8
"""More threads gain little, and each may hold a large photo."""


class Reason(enum.StrEnum):
    """Why a photo is left out; what stands in the manifest begins with one of these."""

    BY_HAND = "excluded by hand"
    UNREADABLE = "unreadable"
    CORRUPT = "corrupt"
    NOT_AN_IMAGE = "not an image"
    TOO_LARGE = "too large"
    TOO_SMALL = "too small"
    EXACT_DUPLICATE = "exact duplicate"
    NEAR_DUPLICATE = "near-duplicate"
    TWO_LABELS = "the same photo under two labels"

    @classmethod
    def of(cls, excluded: str) -> "Reason | None":
        """Name the reason that the text of a manifest's column `excluded` begins with; None for another text."""
        return next((reason for reason in cls if excluded.startswith(reason)), None)


@dataclass(frozen=True)
class CheckedPhoto:
    """What one file is. Numbers are 0 (or NaN) and texts empty where the file could not be read so far.

    Parameters
    ----------
    sha256
        Of the bytes; of the path where they cannot be read, so that every file has one.
    size
        Number of bytes.
    format, width, height, mode, orientation
        As in `images.Header`; `format` is empty where the file is no photo.
    phash
        Perceptual hash (`imagehash.phash`, 64 bits) of the whole upright photo, 16 hexadecimal digits.
    brightness
        Mean luma of the centre square, 0 to 1.
    sharpness
        Variance of the Laplacian of the centre square's luma on the scale 0 to 1, at 224 pixels.
    grayscale
        Whether the centre square shows no colour.
    thumbnail
        32 x 32 bytes of luma of the whole upright photo, squashed; empty where it was not decoded.
    excluded, warning
        Texts as in the manifest, empty where there is nothing to say.
    """

    sha256: str
    size: int
    format: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    orientation: int = 0
    phash: str = ""
    brightness: float = float("nan")
    sharpness: float = float("nan")
    grayscale: bool = False
    thumbnail: bytes = b""
    excluded: str = ""
    warning: str = ""


def check_photos(paths: Sequence[Path], min_side: int = 1, workers: int | None = None) -> list[CheckedPhoto]:
    """Check every file, in parallel, with progress.

    Threads, since Pillow and hashlib let go of the interpreter while they work: twice as fast on two
    cores, and nothing that a notebook's kernel would have to start anew.

    Parameters
    ----------
    paths
        The files.
    min_side
        The shorter side below which a photo is too small, in pixels.
    workers
        Number of threads; None takes one for each core, `MAX_WORKERS` at most.

    Returns
    -------
    list of Checked
        In the order of `paths`.
    """
    workers = workers or min(os.cpu_count() or 1, MAX_WORKERS)
    # Around the pool, not in the threads: the list of filters belongs to the whole process. What Pillow
    # warns of (odd EXIF, many pixels) either does not matter or comes back as a reason.
    with warnings.catch_warnings(), ThreadPoolExecutor(workers, "check") as pool:
        warnings.simplefilter("ignore")
        return list(track(pool.map(partial(check_photo, min_side=min_side), paths), "checking photos", len(paths)))


def check_photo(path: Path, min_side: int = 1) -> CheckedPhoto:
    """Read and decode one file and measure it; every fault becomes an `excluded` text, never an exception."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError(None, "not a regular file")
        if found.st_size > decoding.MAX_BYTES:
            limit = f"the file is larger than {decoding.MAX_BYTES >> 20} MiB"
            return CheckedPhoto(files.sha256(path), found.st_size, excluded=f"{Reason.TOO_LARGE}: {limit}")
        data = path.read_bytes()
    except OSError as error:
        sha256 = hashlib.sha256(os.fsencode(path.name)).hexdigest()
        return CheckedPhoto(sha256, 0, excluded=f"{Reason.UNREADABLE}: {error.strerror or error}")
    return _check_bytes(data, path, min_side)


def _check_bytes(data: bytes, path: Path, min_side: int) -> CheckedPhoto:
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        image = decoding.open_photo(data)
        header = decoding.read_header(image)
    except decoding.PhotoTooLargeError as error:
        return CheckedPhoto(sha256, len(data), excluded=f"{Reason.TOO_LARGE}: {error}")
    except decoding.PhotoError as error:
        reason = Reason.CORRUPT if not data or _SIGNATURE.match(data) else Reason.NOT_AN_IMAGE
        return CheckedPhoto(sha256, len(data), excluded=f"{reason}: {error}")
    known = partial(CheckedPhoto, sha256, len(data), *header, warning=_wrong_ending(path, header.format))
    try:
        # A large JPEG is decoded at a fraction of its size, yet all of its data is read: a cut shows.
        upright = decoding.decode(image, SQUARE)
    except decoding.PhotoError as error:
        return known(excluded=f"{Reason.CORRUPT}: {error}")
    except (MemoryError, RecursionError) as error:
        return known(excluded=f"{Reason.TOO_LARGE}: decoding it ended in {type(error).__name__}")
    small = f"{Reason.TOO_SMALL}: {header.width} x {header.height} pixels, the shorter side below {min_side}"
    seen = centre_square(upright, SQUARE)
    square, luma = np.asarray(seen, dtype=np.uint8), statistics.luma(seen)
    gray = upright.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return known(
        phash=str(imagehash.phash(gray)),
        brightness=round(float(luma.mean()), 6),
        sharpness=round(statistics.sharpness(luma), 6),
        grayscale=bool((square.max(axis=2) - square.min(axis=2)).max() <= GRAY_TOLERANCE),
        thumbnail=gray.tobytes(),
        excluded=small if min(header.width, header.height) < min_side else "",
    )


_SIGNATURE = re.compile(rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP|II\*\0|MM\0\*", re.DOTALL)
"""Bytes that begin like this were a photo once."""


def _wrong_ending(path: Path, name: str) -> str:
    promised = decoding.SUFFIXES.get(path.suffix.lower(), path.suffix or "nothing")
    return "" if promised == name else f"ending says {promised}, bytes are {name}"
