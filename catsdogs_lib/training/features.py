"""Features of a frozen backbone, computed once for each photo and kept by content."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from catsdogs_lib.common import files
from catsdogs_lib.common.progress import track
from catsdogs_lib.imaging import decoding
from catsdogs_lib.training import feature_extractor
from catsdogs_lib.training.dataset import PhotoDataset, batches
from catsdogs_lib.training.feature_extractor import Forward
from catsdogs_lib.training.models import ModelSpec

SHARD = 512
"""Photos in one file of the cache; what a kill can lose."""
BATCH = 32


class FeatureCache:
    """Features on disk, found by the photo's SHA-256, whatever its name, folder or split.

    Parameters
    ----------
    folder
        Holds one subfolder for each backbone, weights, preprocessing and precision.
    built
        The network whose backbone makes the features.
    precision
        What computes them, as `forward.resolve` says.
    """

    def __init__(self, folder: Path, built: ModelSpec, precision: str) -> None:
        key = files.digest([type(built.network.backbone).__name__, built.origin, repr(built.preprocessing), precision])
        self.folder = folder / key[:16]
        self.built, self.precision = built, precision

    def get(self, paths: Sequence[Path], sha256: Sequence[str]) -> NDArray[np.float32]:
        """Features of photos and of their mirror images.

        Parameters
        ----------
        paths, sha256
            Where each photo lies and what it holds.

        Returns
        -------
        ndarray of float32, shape (photos, 2, features)
            Index 0 on the second axis is the photo as it is, 1 its mirror image.
        """
        files.sweep(self.folder)
        known = self._load()
        run: Forward | None = None
        missing = {sha: path for sha, path in zip(sha256, paths, strict=True) if sha not in known}
        for begin in range(0, len(missing), SHARD):
            part = dict(list(missing.items())[begin : begin + SHARD])
            label = "computing features" if len(missing) <= SHARD else f"computing features {begin}/{len(missing)}"
            run = run or self._prepared()
            computed = self._compute(run, list(part.values()), label)
            self._store(list(part), computed)
            known.update(zip(part, computed, strict=True))
        return np.stack([known[sha] for sha in sha256])

    def _load(self) -> dict[str, NDArray[np.float32]]:
        known: dict[str, NDArray[np.float32]] = {}
        for path in sorted(self.folder.glob("*.npz")):
            with np.load(path) as shard:
                known.update(zip(shard["sha256"].tolist(), shard["features"], strict=True))
        return known

    def _store(self, sha256: list[str], features: NDArray[np.float32]) -> None:
        with (
            files.replacing(self.folder / f"{files.digest(sha256)[:16]}.npz") as partial,
            partial.open("wb") as stream,
        ):
            np.savez(stream, sha256=np.array(sha256), features=features)

    def _prepared(self) -> Forward:
        return feature_extractor.prepare(self.built.network.backbone, self.built.preprocessing.size, self.precision)

    def _compute(self, run: Forward, paths: list[Path], label: str) -> NDArray[np.float32]:
        loader = batches(PhotoDataset(paths, [0] * len(paths), self.built.preprocessing), BATCH)
        parts = []
        for batch, _ in track(loader, label, total=len(loader)):
            parts.append(np.stack([run(batch), run(batch.flip(-1))], axis=1))
        return np.concatenate(parts)


def part_features(built: ModelSpec, paths: Sequence[Path], precision: str) -> NDArray[np.float32]:
    """Features of the left, right, upper and lower half of photos.

    Returns
    -------
    ndarray of float32, shape (photos, 4, features)
        Of the centre square of each half.
    """
    size = built.preprocessing.size
    run = feature_extractor.prepare(built.network.backbone, size, precision)
    found = []
    for path in track(paths, "looking at parts", total=len(paths)):
        photo = decoding.read(path, 2 * size)
        wide, high = photo.size
        middle, half = wide // 2, high // 2
        boxes = ((0, 0, middle, high), (middle, 0, wide, high), (0, 0, wide, half), (0, half, wide, high))
        squares = [decoding.centre_square(photo.crop(box), size) for box in boxes]
        found.append(
            run(torch.stack([torch.from_numpy(decoding.normalise(one, built.preprocessing)) for one in squares]))
        )
    return np.stack(found)
