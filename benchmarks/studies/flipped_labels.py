"""Does the doctor find labels that were flipped on purpose, and what is its advice worth?

    python benchmarks/studies/flipped_labels.py RAW_FOLDER [--share 0.03] [--seeds 5] [--features FOLDER]

RAW_FOLDER holds `train/class/file` and `test/class/file`. A flip goes to another class drawn evenly. The advice is
followed in three ways: unattended, "wrong label" alone is relabelled; unattended, all contradicted labels are left
out; a person looks at the first 4 % and relabels what was flipped. Test labels are never touched, and choose nothing.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from catsdogs_lib.data import manifest
from catsdogs_lib.evaluation import calibration, label_audit, metrics
from catsdogs_lib.training import precision
from catsdogs_lib.training import trainer as training
from catsdogs_lib.training.features import FeatureCache
from catsdogs_lib.training.head import fit_head
from catsdogs_lib.training.models import LITE0, build
from catsdogs_lib.training.settings import TrainingSettings

FIRST = 0.04
"""Share of the photos that a person would look at."""


def flipped(labels: np.ndarray, classes: int, share: float, seed: int) -> np.ndarray:
    """Labels with a share of them moved to another class."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(labels), round(share * len(labels)), replace=False)
    wrong = labels.copy()
    wrong[chosen] = (labels[chosen] + rng.integers(1, classes, len(chosen))) % classes
    return wrong


def load(raw: Path, kept: Path | None) -> tuple[label_audit.AuditData, int, np.ndarray, np.ndarray]:
    """Photos to look at, how many of them train, and features and labels of the test photos."""
    table = manifest.build_manifest(raw, manifest.PrepareSettings())
    classes = manifest.classes(table)
    built = build(LITE0, len(classes))
    rows = {split: manifest.used(table, split) for split in ("train", "val", "test")}
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(kept or Path(folder), built, precision.resolve_precision("auto"))
        features = {
            split: cache.get(training.photo_paths(part, raw), part["sha256"].tolist()) for split, part in rows.items()
        }
    truth = {split: training.label_indices(part, classes) for split, part in rows.items()}
    known = [rows["train"], rows["val"]]
    photos = label_audit.AuditData(
        paths=[path for part in known for path in training.photo_paths(part, raw)],
        names=[name for part in known for name in part["path"]],
        sha256=[sha for part in known for sha in part["sha256"]],
        labels=np.concatenate([truth["train"], truth["val"]]),
        groups=[group for part in known for group in part["group"]],
        classes=classes,
        features=np.concatenate([features["train"], features["val"]]),
    )
    return photos, len(rows["train"]), features["test"][:, 0], truth["test"]


def main() -> None:
    """Print what was found, and test accuracy and log loss with clean, flipped and mended labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path)
    parser.add_argument("--share", type=float, default=0.03)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--features", type=Path, help="where features are cached; a temporary folder unless named")
    options = parser.parse_args()
    photos, count, test, truth = load(options.raw, options.features)
    clean, classes = photos.labels, photos.classes
    head_layer = build(LITE0, len(classes)).network.head
    position = {sha: index for index, sha in enumerate(photos.sha256)}

    def test_metrics(labels: np.ndarray, kept: np.ndarray) -> tuple[float, float]:
        """Test accuracy and log loss of the default model, its temperature fitted on validation photos."""
        train = np.arange(len(kept)) < count
        inside, outside = np.flatnonzero(kept & train), np.flatnonzero(kept & ~train)
        fit_head(photos.features[inside], labels[inside], TrainingSettings(), head_layer)
        weight, bias = head_layer.weight.detach().numpy(), head_layer.bias.detach().numpy()
        temperature = calibration.fit_temperature(photos.features[outside, 0] @ weight.T + bias, labels[outside])
        probabilities = calibration.softmax(test @ weight.T + bias, temperature)
        values = metrics.point(probabilities, truth)
        return values["accuracy"], values["log_loss"]

    everything = np.ones(len(clean), dtype=bool)
    first = round(FIRST * len(clean))
    shown = Table(
        "seed",
        "flipped",
        f"found in first {first}",
        "proposed",
        "of these flipped",
        "clean",
        "flipped",
        "relabelled",
        "left out",
        "confirmed",
        box=None,
        header_style="bold",
    )
    collected = []
    before = test_metrics(clean, everything)
    for seed in range(options.seeds):
        labels = flipped(clean, len(classes), options.share, seed)
        wrong = labels != clean
        findings = label_audit.audit(replace(photos, labels=labels), seed=seed)
        advised = findings[findings["finding"] == "wrong label"]
        at = np.array([position[sha] for sha in advised["sha256"]], dtype=int)
        probabilities = label_audit.cross_validated(replace(photos, labels=labels), seed)
        margin = label_audit.margins(probabilities, labels)
        head = np.argsort(margin)[:first]
        mended, confirmed = labels.copy(), labels.copy()
        confirmed[head] = clean[head]
        mended[at] = [classes.index(text.removeprefix("relabel:")) for text in advised["proposal"]]
        results = [
            before,
            test_metrics(labels, everything),
            test_metrics(mended, everything),
            test_metrics(labels, margin >= 0),
            test_metrics(confirmed, everything),
        ]
        recall, share = wrong[head].sum() / wrong.sum(), wrong[at].mean() if len(at) else 0.0
        collected.append([recall, len(at), share, *(value for pair in results for value in pair)])
        shown.add_row(
            str(seed),
            str(wrong.sum()),
            f"{recall:.1%}",
            str(len(at)),
            f"{share:.1%}",
            *(f"{accuracy:.2%} {loss:.4f}" for accuracy, loss in results),
        )
    mean = np.mean(collected, axis=0)
    shown.add_row(
        "mean",
        "",
        f"{mean[0]:.1%}",
        f"{mean[1]:.0f}",
        f"{mean[2]:.1%}",
        *(f"{mean[i]:.2%} {mean[i + 1]:.4f}" for i in (3, 5, 7, 9, 11)),
    )
    Console(width=170).print(shown)


if __name__ == "__main__":
    main()
