"""Overview of raw photos from their headers alone, before anything is decoded."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from catsdogs_lib.common.progress import track
from catsdogs_lib.data.folders import find_photos
from catsdogs_lib.imaging import decoding
from catsdogs_lib.imaging.decoder_pool import shared_pool


def headers(raw: Path) -> pd.DataFrame:
    """Read the header of every file below a raw folder.

    Returns
    -------
    pandas.DataFrame
        `path`, `label`, `split` ("" if the source has none), `kilobytes`, `format`, `megapixels` and `aspect`
        (width over height). A file without a readable header has the format "none"; its other values are NaN.
    """
    rows = []
    decoders = shared_pool(packed_header, 1)
    for photo in track(find_photos(raw)[0], "reading headers"):
        kilobytes = photo.path.stat().st_size / 1e3
        row = {"path": photo.name, "label": photo.label, "split": photo.split, "kilobytes": kilobytes}
        try:
            header = decoding.Header(*decoders.call(photo.path)[0])
        except decoding.PhotoError:
            rows.append({**row, "format": "none", "megapixels": np.nan, "aspect": np.nan})
            continue
        shape = {"megapixels": header.width * header.height / 1e6, "aspect": header.width / header.height}
        rows.append({**row, "format": header.format, **shape})
    return pd.DataFrame(rows)


def packed_header(path: Path) -> tuple[decoding.Header, bytes]:
    """Read the header of a photo, in a decoder process."""
    with decoding.open_photo(path) as image:
        return decoding.read_header(image), b""


def packed_photo(path: Path, side: int) -> tuple[tuple[int, int], bytes]:
    """Decode a photo to RGB, in a decoder process; return its width and height, and the pixels."""
    image = decoding.read(path, side)
    image.thumbnail((4 * side, 4 * side))
    return image.size, image.tobytes()


def some_photos(
    raw: Path, table: pd.DataFrame, each: int, side: int = 256, seed: int = 0
) -> Sequence[tuple[Image.Image, str]]:
    """Sample `each` photos of each class at random, with their labels; unreadable ones are skipped."""
    decoders = shared_pool(packed_photo, 1)

    def readable(paths: Iterable[str]) -> Iterator[Image.Image]:
        for path in paths:
            with contextlib.suppress(decoding.PhotoError):
                yield Image.frombytes("RGB", *decoders.call(raw / path, side))

    return [
        (photo, str(label))
        for label, rows in table[table["format"] != "none"].groupby("label")
        for photo in itertools.islice(readable(rows["path"].sample(frac=1, random_state=seed)), each)
    ]
