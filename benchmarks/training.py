"""Training to an accuracy: frozen features and a head beside fastai's `fine_tune` and torchvision's reference loop.

    python benchmarks/training.py RAW_FOLDER [--rounds 1] [--rates 5e-4 5e-3] [--skip fastai torchvision]

RAW_FOLDER holds `train/class/file` and `test/class/file`. Every side starts from the same ImageNet weights, learns from
train alone and is judged on test; timed is what happens before that, from an empty cache. fastai has its defaults
(rate 2e-3), and other rates that are stated beside; torchvision's loop runs as many epochs. Half an hour and more on
two cores. What a GPU is kept busy with: `accelerator.py`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from comparison import Part, Ratio

from catsdogs_lib.data import manifest
from catsdogs_lib.evaluation.calibration import softmax
from catsdogs_lib.training.settings import TrainingSettings
from catsdogs_lib.training.trainer import TrainingPaths, label_indices, photo_paths, train

ROOT = Path(__file__).parents[1]
RIVALS = ROOT / "benchmarks" / "rivals"
EPOCHS = 2
BAR = 8.0
"""fastai's `fine_tune(2)` with its defaults takes so many times as long."""


def frozen(raw: Path) -> dict[str, Any]:
    """Train as the pipeline does by default; seconds, and figures on the test photos."""
    table = manifest.used(manifest.build_manifest(raw, manifest.PrepareSettings()))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        trained = train(
            table, TrainingPaths(raw, Path(folder) / "features", Path(folder) / "checkpoints"), TrainingSettings()
        )
        seconds = time.perf_counter() - began
    rows = manifest.used(table, "test")
    labels = label_indices(rows, trained.record.classes)
    probabilities = softmax(trained.logits(trained.features(photo_paths(rows, raw))), 1.0)
    truth = probabilities[np.arange(len(labels)), labels]
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    return {"seconds": seconds, "accuracy": accuracy, "log_loss": float(-np.log(truth).mean()), "photos": len(table)}


def rival(python: Path, script: str, raw: Path, *arguments: object) -> dict[str, Any]:
    """Train in a process of the rival's environment."""
    command = [str(python), script, str(raw), *map(str, arguments)]
    done = subprocess.run(command, cwd=RIVALS, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Run all; ends with 1 where the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rates", type=float, nargs="*", default=[5e-4, 5e-3], help="of fastai, beside its default")
    parser.add_argument("--skip", nargs="*", default=[], choices=("fastai", "torchvision"))
    options = parser.parse_args()
    raw = options.raw.resolve()
    runs: dict[str, list[dict[str, Any]]] = {"catsdogs, frozen": []}
    fastai = ROOT / ".venv-fastai" / "bin" / "python"
    for _ in range(options.rounds):
        runs["catsdogs, frozen"].append(frozen(raw))
        if "fastai" not in options.skip and fastai.exists():
            runs.setdefault("fastai", []).append(rival(fastai, "fastai_training.py", raw, EPOCHS))
        if "torchvision" not in options.skip:
            result = rival(Path(sys.executable), "torchvision_training.py", raw, EPOCHS, 1e-2)
            runs.setdefault("torchvision's loop", []).append(result)
    if "fastai" in runs:
        for rate in options.rates:
            runs[f"fastai, rate {rate:g}"] = [rival(fastai, "fastai_training.py", raw, EPOCHS, rate)]
    if not part(runs, options.rounds).keep():
        raise SystemExit(1)


def part(runs: dict[str, list[dict[str, Any]]], rounds: int) -> Part:
    """Put the figures together."""

    def column(name: str, key: str) -> Sequence[float]:
        return [run[key] for run in runs[name]]

    ours, *others = runs
    ratios = []
    for name in others:
        pairs = column(ours, "seconds")[: len(runs[name])], column(name, "seconds")
        ratios.append(Ratio("training", "s", name, *pairs, bar=BAR if name == "fastai" else None))
        errors = [[1 - value for value in column(side, "accuracy")] for side in (ours, name)]
        ratios.append(Ratio("errors on test photos", "", name, *errors, bar=1.0 if name == "fastai" else None))
    rows = [
        {"training": name, **{key: float(np.median(column(name, key))) for key in ("seconds", "accuracy", "log_loss")}}
        for name in runs
    ]
    return Part(
        "training",
        "Training from the same weights on the same photos",
        f"{rounds} rounds, in turn. fastai: `fine_tune({EPOCHS})`, its defaults of transforms, head and rates, a fifth "
        "of the photos held out; torchvision: the reference loop, as many epochs, at rate 0.01.",
        ratios,
        {"All, on the test photos": rows},
    )


if __name__ == "__main__":
    main()
