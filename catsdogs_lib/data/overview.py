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


def headers(raw: Path) -> pd.DataFrame:
    """Read the header of every file below a raw folder.

    Returns
    -------
    pandas.DataFrame
        `path`, `label`, `split` ("" if the source has none), `kilobytes`, `format`, `megapixels` and `aspect`
        (width over height). A file without a readable header has the format "none"; its other values are NaN.
    """
    rows = []
    for photo in track(find_photos(raw)[0], "reading headers"):
        kilobytes = photo.path.stat().st_size / 1e3
        row = {"path": photo.name, "label": photo.label, "split": photo.split, "kilobytes": kilobytes}
        try:
            with decoding.open_photo(photo.path) as image:
                header = decoding.read_header(image)
            shape = {"megapixels": header.width * header.height / 1e6, "aspect": header.width / header.height}
            rows.append({**row, "format": header.format, **shape})
        except decoding.PhotoError:
            rows.append({**row, "format": "none", "megapixels": np.nan, "aspect": np.nan})
    return pd.DataFrame(rows)


def some_photos(
    raw: Path, table: pd.DataFrame, each: int, side: int = 256, seed: int = 0
) -> Sequence[tuple[Image.Image, str]]:
    """Sample `each` photos of each class at random, with their labels; unreadable ones are skipped."""

    def readable(paths: Iterable[str]) -> Iterator[Image.Image]:
        for path in paths:
            with contextlib.suppress(decoding.PhotoError):
                yield decoding.read(raw / path, side)

    return [
        (photo, str(label))
        for label, rows in table[table["format"] != "none"].groupby("label")
        for photo in itertools.islice(readable(rows["path"].sample(frac=1, random_state=seed)), each)
    ]
