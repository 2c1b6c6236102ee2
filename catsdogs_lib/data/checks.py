"""Checks of every file of a dataset, read and decoded once: format, image statistics and faults."""

import enum
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import imagehash
import numpy as np
import scipy.fftpack  # noqa: F401 - imagehash imports it on first use, which would count against the first photo
from PIL import Image

from catsdogs_lib.common import files
from catsdogs_lib.common.progress import track
from catsdogs_lib.imaging import decoding, preprocessing, statistics
from catsdogs_lib.imaging.decoder_pool import DecoderPool, shared_pool

SQUARE = 224
"""Side of the measured centre square, in pixels; models see the same square."""
THUMBNAIL = 32
"""Side of the grayscale thumbnail on which near-duplicates are compared, in pixels."""
GRAY_TOLERANCE = 8
"""Largest difference of channels, of 255, that counts as gray: lossy formats tint gray a little."""
MAX_WORKERS = 8
"""Largest number of threads: more gain little, and each may hold a large photo."""


class Reason(enum.StrEnum):
    """Reasons for excluding a photo; texts in the manifest begin with one of them."""

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
        """Return the reason with which a text of the column `excluded` begins, or None."""
        return next((reason for reason in cls if excluded.startswith(reason)), None)


class CheckedPhoto(NamedTuple):
    """A checked file. Values that could not be read are 0, NaN or empty.

    Parameters
    ----------
    sha256
        Of the bytes; of the file name if they cannot be read, so that every file has one.
    size
        Number of bytes.
    format, width, height, mode, orientation
        See `catsdogs_lib.imaging.decoding.Header`; `format` is empty if the file is no photo.
    phash
        Perceptual hash (`imagehash.phash`, 64 bits) of the whole upright photo, 16 hexadecimal digits.
    brightness
        Mean luma of the centre square, 0 to 1.
    sharpness
        Variance of the Laplacian of the centre square's luma on the scale 0 to 1, at 224 pixels.
    grayscale
        Whether the centre square shows no colour.
    thumbnail
        32 x 32 bytes of luma of the whole upright photo, squashed; empty if it was not decoded.
    excluded, warning
        Texts of the manifest; empty if there is nothing to report.
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

    Each file is decoded in a process with limits on CPU time and memory, so a hostile file costs no more than an
    ordinary photo.

    Parameters
    ----------
    paths
        The files.
    min_side
        Photos whose shorter side is below this are too small, in pixels.
    workers
        Number of processes; None uses one for each core, at most `MAX_WORKERS`.

    Returns
    -------
    list of CheckedPhoto
        In the order of `paths`.
    """
    workers = workers or min(os.cpu_count() or 1, MAX_WORKERS)
    check = partial(_check_limited, shared_pool(check_packed, workers), min_side)
    with ThreadPoolExecutor(workers, "check") as pool:
        return list(track(pool.map(check, paths), "checking photos", len(paths)))


def check_packed(path: Path, min_side: int) -> tuple[dict[str, Any], bytes]:
    """Check a file in a decoder process; return the other fields of `CheckedPhoto`, and the thumbnail."""
    fields = check_photo(path, min_side)._asdict()
    thumbnail = fields.pop("thumbnail")
    return fields, thumbnail


def _check_limited(decoders: DecoderPool, min_side: int, path: Path) -> CheckedPhoto:
    try:
        fields, thumbnail = decoders.call(path, min_side)
    except decoding.PhotoError as error:
        reason = Reason.TOO_LARGE if isinstance(error, decoding.PhotoTooLargeError) else Reason.CORRUPT
        return CheckedPhoto(files.sha256(path), path.stat().st_size, excluded=f"{reason}: {error}")
    return CheckedPhoto(**fields, thumbnail=thumbnail)


def check_photo(path: Path, min_side: int = 1) -> CheckedPhoto:
    """Read, decode and measure one file; a fault becomes an `excluded` text, never an exception."""
    try:
        status = path.stat()
        if not path.is_file():
            raise OSError(None, "not a regular file")
        if status.st_size > decoding.MAX_BYTES:
            limit = f"the file is larger than {decoding.MAX_BYTES >> 20} MiB"
            return CheckedPhoto(files.sha256(path), status.st_size, excluded=f"{Reason.TOO_LARGE}: {limit}")
        data = path.read_bytes()
    except OSError as error:
        sha256 = files.sha256_bytes(os.fsencode(path.name))
        return CheckedPhoto(sha256, 0, excluded=f"{Reason.UNREADABLE}: {error.strerror or error}")
    return _check_bytes(data, path, min_side)


def _check_bytes(data: bytes, path: Path, min_side: int) -> CheckedPhoto:
    sha256 = files.sha256_bytes(data)
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
    except decoding.PhotoTooLargeError as error:
        return known(excluded=f"{Reason.TOO_LARGE}: {error}")
    except decoding.PhotoError as error:
        return known(excluded=f"{Reason.CORRUPT}: {error}")
    except (MemoryError, RecursionError) as error:
        return known(excluded=f"{Reason.TOO_LARGE}: decoding it ended in {type(error).__name__}")
    small = f"{Reason.TOO_SMALL}: {header.width} x {header.height} pixels, the shorter side below {min_side}"
    centre = preprocessing.centre_square(upright, SQUARE)
    square, luma = np.asarray(centre, dtype=np.uint8), statistics.luma(centre)
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
"""First bytes of image files: a file that has them but cannot be decoded is corrupt, any other is no image."""


def _wrong_ending(path: Path, name: str) -> str:
    expected = decoding.SUFFIXES.get(path.suffix.lower(), path.suffix or "nothing")
    return "" if expected == name else f"ending says {expected}, bytes are {name}"
