"""Bundles of one task side by side: what each costs, and what it knows.

    python benchmarks/profiles.py [BUNDLE ...] [--photos RAW_FOLDER]

Without BUNDLE: models/reference, and models/bundle where there is one. One thread; every photo is asked of each bundle
in turn. With photos (`test/class/file`) the test figures are measured anew, else those in the bundles are reported.
"""

import argparse
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
from comparison import Part, Ratio
from rich.progress import track

from catsdogs_lib.data.folders import find_photos
from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier

ROOT = Path(__file__).parents[1]
DRAWN = 100
FP32_BYTES = 14.78e6
"""Of the default network's graph with float32 weights."""


def photos_of(folder: Path | None, classes: tuple[str, ...]) -> tuple[list[bytes], list[int]]:
    """Test photos and their labels; drawn ones, where there is no folder."""
    if folder is None:
        pictures = []
        for number in range(DRAWN):
            stream = io.BytesIO()
            draw(("cat", "dog")[number % 2], number).resize((500, 375)).save(stream, "JPEG", quality=90)
            pictures.append(stream.getvalue())
        return pictures, [number % 2 for number in range(DRAWN)]
    photos = [photo for photo in find_photos(folder)[0] if photo.split == "test"]
    return [photo.path.read_bytes() for photo in photos], [classes.index(photo.label) for photo in photos]


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", type=Path)
    parser.add_argument("--photos", type=Path)
    options = parser.parse_args()
    there = [ROOT / "models" / name for name in ("reference", "bundle") if (ROOT / "models" / name).exists()]
    classifiers = [Classifier(Bundle.load(folder), threads=1) for folder in options.bundles or there]
    photos, labels = photos_of(options.photos, classifiers[0].classes)
    network: list[list[float]] = [[] for _ in classifiers]
    whole: list[list[float]] = [[] for _ in classifiers]
    answers: list[list[Any]] = [[] for _ in classifiers]
    for photo in track(photos, "asking each bundle"):
        for place, classifier in enumerate(classifiers):
            began = time.perf_counter()
            loaded = classifier.load(photo)
            ready = time.perf_counter()
            outputs = classifier.run([loaded])
            ended = time.perf_counter()
            network[place].append(1e3 * (ended - ready))
            whole[place].append(1e3 * (ended - began))
            answers[place].append((outputs.probabilities[0], classifier.interpret(outputs).confident))
    rows, ratios = [], []
    for place, classifier in enumerate(classifiers):
        described = classifier.bundle.description
        name = f"{classifier.bundle.version}: {described.preprocessing.size} px, {described.graph.weights}"
        probabilities = np.array([row for row, _ in answers[place]])
        right = probabilities.argmax(axis=1) == labels
        stated = {name: metric.value for name, metric in described.metrics.items()}
        measured = {
            "accuracy": float(right.mean()),
            "log loss": float(-np.log(probabilities[np.arange(len(labels)), labels].clip(1e-15)).mean()),
            "unsure": 1 - float(np.mean([sure for _, sure in answers[place]])),
        }
        if options.photos is None:
            measured = {
                "accuracy": stated["accuracy"],
                "log loss": stated["log_loss"],
                "unsure": described.card.doubt.unsure,
            }
        rows.append(
            {
                "bundle": name,
                "MB": described.graph.bytes / 1e6,
                "of float32": described.graph.bytes / FP32_BYTES,
                "network, ms": float(np.median(network[place])),
                "photo to answer, ms": float(np.median(whole[place])),
                **measured,
                "largest difference to torch": described.parity.max_difference,
            }
        )
        if place:
            ratios.append(Ratio("network", "ms", name, network[0], network[place]))
            ratios.append(Ratio("photo to answer", "ms", name, whole[0], whole[place]))
    first = rows[0]["bundle"]
    Part(
        "profiles",
        f"Profiles beside {first}",
        f"{len(photos)} {'test' if options.photos else 'drawn'} photos, asked of each bundle in turn, one thread. "
        "Below 1 the other bundle is the faster one.",
        ratios,
        {"What each costs, and knows": rows},
    ).keep()


if __name__ == "__main__":
    main()
