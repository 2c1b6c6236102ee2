"""How soon changes are seen, and how often none is seen wrongly: streams of test photos against validation records.

    python benchmarks/studies/drift.py PROJECT OTHERS [--seeds 20]

PROJECT is a pipeline workspace that holds photos and a bundle, OTHERS a folder of photos of other things. The network
runs once for each photo and change; streams are resamples of these answers, at most 500 records long.
"""

import argparse
import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import ImageEnhance, ImageFilter

from catsdogs_lib.data import manifest
from catsdogs_lib.imaging import decoding
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.monitoring import drift, records
from catsdogs_lib.pipeline.workspace import Workspace

CHANGES = {
    "unchanged": lambda photo: photo,
    "brightness x 0.7": lambda photo: ImageEnhance.Brightness(photo).enhance(0.7),
    # 1.5 pixels where the shorter side has 224.
    "blur of 1.5 pixels": lambda photo: photo.filter(ImageFilter.GaussianBlur(1.5 * min(photo.size) / 224)),
}


def changed(path: Path, change) -> bytes:
    photo, stream = change(decoding.read(path)), io.BytesIO()
    photo.save(stream, "JPEG", quality=95)
    return stream.getvalue()


def record_table(classifier, photos, labels, name, folder):
    path = folder / "records.jsonl"
    records.write(records.make(classifier, photos, labels, name), path)
    table = records.read([path])
    path.unlink()
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("others", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    ws = Workspace(given.project.resolve())
    classifier = Classifier(Bundle.load(given.bundle or ws.bundle))
    limit = classifier.bundle.description.thresholds.unfamiliar
    table = manifest.read_manifest(ws.manifest)
    folder = Path("build")
    folder.mkdir(exist_ok=True)
    rows = {split: manifest.used(table, split) for split in ("val", "test")}
    paths = {split: [ws.raw / path for path in rows[split]["path"]] for split in rows}

    def recorded(name, photos, labels, change="unchanged"):
        # Every photo goes through the same encoder, so that nothing but the change differs.
        return record_table(classifier, [changed(path, CHANGES[change]) for path in photos], labels, name, folder)

    reference = recorded("reference", paths["val"], rows["val"]["label"].tolist())
    streams = {name: recorded(name, paths["test"], rows["test"]["label"].tolist(), name) for name in CHANGES}
    foreign = sorted(path for path in given.others.iterdir() if path.suffix.lower() in decoding.SUFFIXES)
    others = recorded("other things", foreign, [""] * len(foreign))
    plain = streams["unchanged"]
    kinds = {
        name: lambda rng, stream=stream: stream.iloc[rng.integers(0, len(stream), 500)]
        for name, stream in streams.items()
    }
    last = plain[plain["truth"] == classifier.classes[-1]]
    kinds[f"all {classifier.classes[-1]}"] = lambda rng: last.iloc[rng.integers(0, len(last), 500)]
    kinds["a tenth of other things"] = lambda rng: pd.concat(
        [plain.iloc[rng.integers(0, len(plain), 450)], others.iloc[rng.integers(0, len(others), 50)]]
    ).sample(frac=1, random_state=int(rng.integers(2**31)))
    print(f"reference: {len(reference)} validation records; {given.seeds} seeds, windows of at most 500")
    for name, draw in kinds.items():
        took, named = [], {}
        for seed in range(given.seeds):
            count, findings = drift.watch(reference, draw(np.random.default_rng([seed, 1])), limit)
            if count is not None:
                took.append(count)
                for finding in findings:
                    if finding.alarm:
                        named[finding.signal] = named.get(finding.signal, 0) + 1
        spread = f"after {np.median(took):.0f} records ({min(took)} to {max(took)})" if took else ""
        print(f"{name:26s} {len(took):2d} of {given.seeds} alarms {spread}  {named}", flush=True)


if __name__ == "__main__":
    main()
