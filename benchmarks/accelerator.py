"""How busy training keeps a GPU, or two cores: the loop beside what limits it.

    python benchmarks/accelerator.py FOLDER [--size 224] [--batch 32] [--photos 2000] [--rounds 3]

FOLDER holds `class/file`. In each round the loader alone reads an epoch of augmented photos, the steps alone learn as
often from one batch that stays on the device, and the loop does both. The loop can be no faster than the slower of the
two: what share of that it reaches is told.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from comparison import Part

from catsdogs_lib.training import loop, precision
from catsdogs_lib.training.dataset import Augmentation, PhotoDataset, batches, to_device
from catsdogs_lib.training.models import build
from catsdogs_lib.training.settings import TrainingSettings


def rate(photos: int, work: Callable[[], object]) -> float:
    """Photos a second."""
    begin = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return photos / (time.perf_counter() - begin)


def measured(paths: list[Path], size: int, batch: int, rounds: int) -> list[dict[str, float]]:
    """Photos a second of the loader, the steps and the loop, by round."""
    settings = TrainingSettings.checked(method="finetune", size=size, batch_size=batch, epochs=rounds * 2 + 2)
    classes = sorted({path.parent.name for path in paths})
    built = build(settings.model, len(classes))
    built = replace(built, preprocessing=replace(built.preprocessing, size=size))
    augmentation = Augmentation(settings.crop_scale, settings.jitter)
    labels = [classes.index(path.parent.name) for path in paths]
    photos = PhotoDataset(paths, labels, built.preprocessing, augmentation, settings.seed)
    steps = len(batches(photos, batch))
    run = loop.TrainingRun(built.network, photos, settings, steps)
    resident = next(to_device(batches(photos, batch, shuffle=True), run.device))
    run.train_epoch(1)  # The first steps choose their algorithms, the first workers fill the caches.

    def read() -> None:
        for _ in batches(photos, batch, shuffle=True):
            pass

    def learn() -> None:
        for _ in range(steps):
            run.step(*resident)

    return [
        {
            "loader": rate(len(paths), read),
            "steps": rate(steps * batch, learn),
            "loop": rate(len(paths), lambda number=number: run.train_epoch(number + 2)),  # type: ignore[misc]
        }
        for number in range(rounds)
    ]


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, nargs="*", default=[224])
    parser.add_argument("--batch", type=int, nargs="*", default=[32])
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    paths = sorted(options.folder.glob("*/*.*"))
    paths = paths[:: max(1, len(paths) // options.photos)][: options.photos]
    rows = []
    for size in options.size:
        for batch in options.batch:
            rounds = measured(paths, size, batch, options.rounds)
            middle = {name: float(np.median([speeds[name] for speeds in rounds])) for name in rounds[0]}
            shares = [speeds["loop"] / min(speeds["loader"], speeds["steps"]) for speeds in rounds]
            rows.append({"pixels": size, "batch": batch, **middle, "share of the limit": float(np.median(shares))})
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU"
    how = f"{options.rounds} rounds, {len(paths)} photos, steps on {where} in {precision.resolve_precision('auto')}."
    Part("accelerator", "What limits training, photos a second", how, [], {"Medians": rows}).keep()


if __name__ == "__main__":
    main()
