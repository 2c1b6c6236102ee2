import time

import imagehash
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from catsdogs_lib.data import duplicates
from catsdogs_lib.data.duplicates import components, near_duplicates


def smooth(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC)


def seen(pictures: list[Image.Image]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    thumbnails = [picture.convert("L").resize((32, 32), Image.Resampling.LANCZOS) for picture in pictures]
    hashes = np.array([int(str(imagehash.phash(thumbnail)), 16) for thumbnail in thumbnails], dtype=np.uint64)
    return hashes, np.stack([np.asarray(thumbnail, dtype=np.uint8).ravel() for thumbnail in thumbnails])


def test_different_pictures_are_no_pairs() -> None:
    assert near_duplicates(*seen([smooth(seed) for seed in range(60)]), ["a"] * 60).shape == (0, 2)


@pytest.mark.parametrize("labels", [["a", "a", "a"], ["a", "a", "b"]])
@pytest.mark.parametrize("change", ["small", "gray", "dark"])
def test_a_changed_copy_is_found_under_either_label(labels: list[str], change: str) -> None:
    copy = {
        "small": lambda image: image.resize((90, 70), Image.Resampling.LANCZOS),
        "gray": lambda image: image.convert("L").convert("RGB"),
        "dark": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    }[change](smooth(1))
    assert near_duplicates(*seen([smooth(1), smooth(2), copy]), labels).tolist() == [[0, 2]]


def test_a_looser_likeness_counts_only_under_the_same_label() -> None:
    pictures = [smooth(1), smooth(1).crop((3, 3, 157, 117))]
    assert near_duplicates(*seen(pictures), ["a", "a"]).tolist() == [[0, 1]]
    assert near_duplicates(*seen(pictures), ["a", "b"]).tolist() == []


def test_flat_pictures_do_not_merge() -> None:
    flat = [Image.new("RGB", (64, 64), (level, level, level)) for level in (0, 0, 9, 128, 255)]
    assert near_duplicates(*seen(flat), ["a"] * 5).tolist() == []


def test_like_hashes_of_unlike_thumbnails_are_no_pair() -> None:
    _, thumbnails = seen([smooth(1), smooth(2)])
    assert near_duplicates(np.zeros(2, dtype=np.uint64), thumbnails, ["a", "a"]).tolist() == []


def test_blocks_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = seen([smooth(number % 7) for number in range(40)])
    whole = near_duplicates(*copies, ["a"] * 40)
    monkeypatch.setattr(duplicates, "BLOCK", 7)
    monkeypatch.setattr(duplicates, "CHUNK", 3)
    in_parts = near_duplicates(*copies, ["a"] * 40)
    assert sorted(in_parts.tolist()) == sorted(whole.tolist())
    assert len(whole) == sum(1 for i in range(40) for j in range(i) if i % 7 == j % 7)


def test_thousands_of_photos_take_moments() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 8000, dtype=np.uint64)
    thumbnails = rng.integers(0, 256, (8000, 1024), dtype=np.uint8)
    begin = time.monotonic()
    near_duplicates(hashes, thumbnails, ["a"] * 8000)
    assert time.monotonic() - begin < 10


def test_nothing_has_no_pairs() -> None:
    assert near_duplicates(np.empty(0, np.uint64), np.empty((0, 1024), np.uint8), []).shape == (0, 2)


def test_groups_are_what_pairs_connect() -> None:
    assert components(6, [(4, 5), (0, 3), (3, 5)]) == [0, 1, 2, 0, 0, 0]
    assert components(3, [(2, 1)]) == [0, 1, 1]
