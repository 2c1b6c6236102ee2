"""How much sooner is a frozen head than three epochs of fine-tuning? Both on the same photos, in one run.

    python benchmarks/frozen_against_finetuned.py RAW_FOLDER [--photos 800]

RAW_FOLDER holds `class/file` or `train/class/file`. The feature pass counts; a second head does not need it.
"""

import argparse
import tempfile
import time
from pathlib import Path

from catsdogs_lib.data import manifest
from catsdogs_lib.training.settings import TrainingSettings
from catsdogs_lib.training.trainer import TrainingPaths, train


def main() -> None:
    """Print the times and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path)
    parser.add_argument("--photos", type=int, default=0, help="at most so many of each class and split; 0 for all")
    options = parser.parse_args()
    table = manifest.build_manifest(options.raw, manifest.PrepareSettings())
    table = manifest.used(table)
    if options.photos:
        table = table.groupby(["label", "split"]).head(options.photos).reset_index(drop=True)
    with tempfile.TemporaryDirectory() as folder:
        places = TrainingPaths(options.raw, Path(folder) / "features", Path(folder) / "checkpoints")

        def timed(settings: TrainingSettings) -> float:
            begin = time.monotonic()
            train(table, places, settings)
            return time.monotonic() - begin

        first = timed(TrainingSettings())
        second = timed(TrainingSettings(logistic_regression_c=0.1))
        # Starts from the same cached features, so what is timed is fine-tuning alone.
        tuned = timed(TrainingSettings(method="finetune", epochs=3))
    print(f"{len(table)} photos: frozen {first:.1f} s, another head {second:.1f} s, three epochs {tuned:.1f} s")
    print(f"frozen / fine-tuned: {first / tuned:.3f}; another head / frozen: {second / first:.3f}")


if __name__ == "__main__":
    main()
