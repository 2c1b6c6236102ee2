"""Overview of raw photos from their headers alone, before anything is decoded."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from catsdogs_lib.common.progress import track
from catsdogs_lib.data.folders import find_photos
from catsdogs_lib.imaging import decoding
from catsdogs_lib.imaging.decoding import PhotoError


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
        except PhotoError:
            rows.append({**row, "format": "none", "megapixels": np.nan, "aspect": np.nan})
    return pd.DataFrame(rows)


def some_photos(
    raw: Path, table: pd.DataFrame, each: int, side: int = 256, seed: int = 0
) -> Sequence[tuple[Image.Image, str]]:
    """Sample `each` photos of each class at random, with their labels; unreadable ones are skipped."""
    photos = []
    for label, rows in table[table["format"] != "none"].groupby("label"):
        taken = 0
        for path in rows["path"].sample(frac=1, random_state=seed):
            try:
                photo = decoding.read(raw / path, side)
            except PhotoError:
                continue
            photos.append((photo, str(label)))
            taken += 1
            if taken == each:
                break
    return photos
