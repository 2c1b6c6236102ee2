"""Photos as tensors: plain for features and validation, augmented for training."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler
from torchvision.transforms import v2

from catsdogs_lib.imaging import decoding
from catsdogs_lib.imaging.preprocessing import Preprocessing, centre_square, normalise
from catsdogs_lib.training import distributed

MAX_WORKERS = 16
"""Maximum number of processes that read photos."""
MIN_PHOTOS_FOR_WORKERS = 64
"""Minimum number of photos at which such processes pay off: each takes about 0.3 s of CPU time to start."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training photos that leave their labels right.

    Parameters
    ----------
    crop_scale
        Smallest share of the photo's area that a random crop keeps, 0..1.
    jitter
        Range of brightness, contrast and saturation around 1.
    """

    crop_scale: float
    jitter: float

    def transform(self, size: int) -> v2.Compose:
        """Build the random transform: PIL RGB of any size -> PIL RGB, `size` x `size`."""
        return v2.Compose(
            [
                v2.RandomResizedCrop(size, (self.crop_scale, 1.0), (3 / 4, 4 / 3), v2.InterpolationMode.BICUBIC),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(self.jitter, self.jitter, self.jitter),
            ]
        )


class PhotoDataset(Dataset[tuple[Tensor, int]]):
    """Photos as model input with their labels.

    Every item's randomness comes from (seed, epoch, index) alone, so it does not depend on the number of
    workers, and an epoch that is run again after a kill sees the same pictures.
    """

    def __init__(
        self,
        paths: Sequence[Path | bytes],
        labels: Sequence[int],
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        epoch: int = 0,
    ) -> None:
        self.paths, self.labels = list(paths), list(labels)
        self.preprocessing, self.augmentation = preprocessing, augmentation
        self.seed, self.epoch = seed, epoch

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        size = self.preprocessing.size
        if self.augmentation is None:
            square = centre_square(decoding.read(self.paths[index], size), size)
        else:
            square = self.augmented(index)
        return torch.from_numpy(normalise(square, self.preprocessing)), self.labels[index]

    def augmented(self, index: int) -> Image.Image:
        """Return the augmented square of photo `index` in this epoch."""
        if self.augmentation is None:
            raise ValueError("these photos have no augmentation")
        size = self.preprocessing.size
        photo = decoding.read(self.paths[index], round(size / self.augmentation.crop_scale**0.5))
        entropy = np.random.SeedSequence((self.seed, self.epoch, index)).generate_state(2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(entropy[0]) << 32 | int(entropy[1]))
            square: Image.Image = self.augmentation.transform(size)(photo)
        return square


def augmented_rows(
    paths: Sequence[Path], augmentation: Augmentation, columns: int = 6, seed: int = 0
) -> list[list[Image.Image]]:
    """Return a row of images for each photo: its plain square, then what training sees of it in each epoch."""
    size = Preprocessing().size
    rows = [[centre_square(decoding.read(path, size), size)] for path in paths]
    for epoch in range(1, columns):
        photos = PhotoDataset(paths, [0] * len(paths), Preprocessing(), augmentation, seed, epoch)
        for index, row in enumerate(rows):
            row.append(photos.augmented(index))
    return rows


def batches(photos: PhotoDataset, batch_size: int, shuffle: bool = False) -> "DataLoader[tuple[Tensor, int]]":
    """Read `photos` in batches, many of them in worker processes.

    Returns
    -------
    DataLoader
        Yields float32 (B, 3, H, W) and int64 (B,). With `shuffle` the order follows from the photos'
        seed and epoch; each of several processes gets its share of a batch (`distributed`).
    """
    entropy = np.random.SeedSequence((photos.seed, photos.epoch)).generate_state(1)
    several = len(photos) > batch_size and len(photos) >= MIN_PHOTOS_FOR_WORKERS
    workers = min(MAX_WORKERS, len(os.sched_getaffinity(0)) // distributed.world_size()) if several else 0
    order = torch.Generator().manual_seed(int(entropy[0]))
    options: dict[str, Any] = {
        "num_workers": workers,
        "pin_memory": torch.cuda.is_available(),
        "generator": order,
    }
    if shuffle and distributed.world_size() > 1:
        # The sampler that DataLoader would make itself, reduced to this process's share.
        whole = BatchSampler(RandomSampler(photos, generator=order), batch_size, drop_last=False)
        return DataLoader(photos, batch_sampler=distributed.ShareSampler(whole), **options)
    return DataLoader(photos, batch_size, shuffle=shuffle, **options)


def to_device(loader: "DataLoader[tuple[Tensor, int]]", device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of `loader` on `device`, images channels last, which suits convolutions."""
    for images, labels in loader:
        images_on_device = images.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        yield images_on_device, torch.as_tensor(labels).to(device)
