"""Features of a frozen backbone, computed once for each photo and cached by content."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from catsdogs_lib.common import files, progress
from catsdogs_lib.imaging import decoding, preprocessing
from catsdogs_lib.training import feature_extractor
from catsdogs_lib.training.dataset import PhotoDataset, batches
from catsdogs_lib.training.models import ModelSpec

PHOTOS_PER_SHARD = 512
"""Photos in one file of the cache; a kill loses at most as many."""
BATCH_SIZE = 32


class FeatureCache:
    """Features on disk, found by the photo's SHA-256, whatever its name, folder or split.

    Parameters
    ----------
    folder
        Holds one subfolder for each backbone, weights, preprocessing and precision.
    spec
        The network whose backbone makes the features.
    precision
        Runtime and precision, as `feature_extractor.resolve` chooses them.
    """

    def __init__(self, folder: Path, spec: ModelSpec, precision: str) -> None:
        key = files.digest([type(spec.network.backbone).__name__, spec.origin, repr(spec.preprocessing), precision])
        self.folder = folder / key[:16]
        self.spec, self.precision = spec, precision

    def get(self, paths: Sequence[Path], sha256: Sequence[str]) -> NDArray[np.float32]:
        """Return the features of photos and of their mirror images, computing those that are missing.

        Parameters
        ----------
        paths, sha256
            File of each photo, and the digest of its content.

        Returns
        -------
        ndarray of float32, shape (photos, 2, features)
            Index 0 on the second axis is the photo as it is, 1 its mirror image.
        """
        files.sweep(self.folder)
        known = self._load()
        forward: feature_extractor.Forward | None = None
        missing = {sha: path for sha, path in zip(sha256, paths, strict=True) if sha not in known}
        for begin in range(0, len(missing), PHOTOS_PER_SHARD):
            shard = dict(list(missing.items())[begin : begin + PHOTOS_PER_SHARD])
            counter = f" {begin}/{len(missing)}" if len(missing) > PHOTOS_PER_SHARD else ""
            forward = forward or feature_extractor.prepare(
                self.spec.network.backbone, self.spec.preprocessing.size, self.precision
            )
            computed = self._compute(forward, list(shard.values()), f"computing features{counter}")
            file = self.folder / f"{files.digest(list(shard))[:16]}.npz"
            with files.replacing(file) as partial, partial.open("wb") as stream:
                np.savez(stream, sha256=np.array(list(shard)), features=computed)
            known.update(zip(shard, computed, strict=True))
        return np.stack([known[sha] for sha in sha256])

    def _load(self) -> dict[str, NDArray[np.float32]]:
        known: dict[str, NDArray[np.float32]] = {}
        for path in sorted(self.folder.glob("*.npz")):
            with np.load(path) as shard:
                known.update(zip(shard["sha256"].tolist(), shard["features"], strict=True))
        return known

    def _compute(self, forward: feature_extractor.Forward, paths: list[Path], label: str) -> NDArray[np.float32]:
        loader = batches(PhotoDataset(paths, [0] * len(paths), self.spec.preprocessing), BATCH_SIZE)
        parts = [
            np.stack([forward(batch), forward(batch.flip(-1))], axis=1)
            for batch, _ in progress.track(loader, label, total=len(loader))
        ]
        return np.concatenate(parts)


def part_features(spec: ModelSpec, paths: Sequence[Path], precision: str) -> NDArray[np.float32]:
    """Compute features of the left, right, upper and lower half of photos.

    Returns
    -------
    ndarray of float32, shape (photos, 4, features)
        Of the centre square of each half.
    """
    size = spec.preprocessing.size
    forward = feature_extractor.prepare(spec.network.backbone, size, precision)
    features = []
    for path in progress.track(paths, "computing features of halves", total=len(paths)):
        photo = decoding.read(path, 2 * size)
        width, height = photo.size
        middle, half = width // 2, height // 2
        boxes = ((0, 0, middle, height), (middle, 0, width, height), (0, 0, width, half), (0, half, width, height))
        squares = [preprocessing.centre_square(photo.crop(box), size) for box in boxes]
        inputs = [torch.from_numpy(preprocessing.normalise(square, spec.preprocessing)) for square in squares]
        features.append(forward(torch.stack(inputs)))
    return np.stack(features)
