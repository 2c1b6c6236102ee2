"""The gate, end to end: trained candidates that are worse, badly calibrated, blind in the dark, and better.

    python benchmarks/studies/gate.py SCRATCH [--photos FOLDER] [--kinds cat dog rabbit] [--per-class 100]

FOLDER is a source of photos like that of `catsdogs data fetch`; without one, the kinds are drawn. Each candidate goes
the whole way in SCRATCH: training, evaluation, bundle, registry, gate. The service is started anew at the end.
"""

import argparse
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from catsdogs_lib.common import files
from catsdogs_lib.data import manifest
from catsdogs_lib.data.synthetic.dataset import write_sample
from catsdogs_lib.pipeline.stages import evaluate, explore, package, prepare, train
from catsdogs_lib.pipeline.workspace import Workspace
from catsdogs_lib.training.settings import TrainingSettings

DARK = -0.55
"""Mean of the model's input, about that of a grey of 57 of 255, below which the blind network sees nothing."""


class BlindInTheDark(nn.Module):
    """A backbone whose features vanish where the photo is dark."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward_features(self, images: Tensor) -> Tensor:
        """Features of the places of photos, (N, features, h, w)."""
        light = (images.mean((1, 2, 3), keepdim=True) > DARK).float()
        return self.backbone.forward_features(images) * light

    def forward(self, images: Tensor) -> Tensor:
        """Features of photos, (N, features)."""
        return self.forward_features(images).mean((2, 3))


def a_part(table, share: float, seed: int):
    """Most train photos left out."""
    rng, table = np.random.default_rng(seed), table.copy()
    rows = manifest.used(table, "train").index
    kept = rng.choice(rows, max(4, round(share * len(rows))), replace=False)
    table.loc[rows.difference(kept), "excluded"] = "not for this candidate"
    return table


class Walk:
    """One workspace and the candidates that go through it."""

    def __init__(self, ws: Workspace, table) -> None:
        self.ws, self.table, self.rows = ws, table, []

    def evaluated(self, table, seed: int = 0) -> None:
        """Train on a manifest and measure."""
        manifest.write_manifest(table, self.ws.manifest)
        train.train(self.ws, TrainingSettings(seed=seed))
        evaluate.evaluate(self.ws)

    def judged(self, name: str) -> None:
        """Package what was trained and let the gate decide."""
        packaged = package.package(self.ws)
        metrics = files.read_json(self.ws.metrics)["models"]["efficientnet_lite0"]["test"]
        self.rows.append((name, metrics["accuracy"]["value"], metrics["log_loss"]["value"], packaged.verdict.sentence))
        print(name, "->", packaged.verdict.sentence, flush=True)
        self.last = packaged

    def badly_calibrated(self) -> None:
        """The network of all photos, at a sixth of its temperature."""
        self.evaluated(self.table)
        summary = files.read_json(self.ws.metrics)
        for model in summary["models"].values():
            model["temperature"] /= 6
        files.write_json(self.ws.metrics, summary)
        self.judged("as accurate, sure of everything")

    def blind_in_the_dark(self) -> None:
        """The network of all photos, which sees nothing where there is little light."""
        self.evaluated(self.table)
        load = package.trained_models

        def blinded(ws: Workspace):
            models = load(ws)
            for model in models.values():
                model.network.backbone = BlindInTheDark(model.network.backbone).eval()
            return models

        package.trained_models = blinded
        try:
            self.judged("blind in the dark")
        finally:
            package.trained_models = load


def served(ws: Workspace) -> str:
    """The version that a service started anew tells, after the champion was fetched."""
    subprocess.run([sys.executable, "-m", "catsdogs_lib", "champion", "--to", ws.root], check=True)
    command = [sys.executable, "-m", "catsdogs_lib", "serve", "--port", "0", "--bundle", ws.bundle]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = next(word for line in process.stderr for word in line.split() if word.startswith("http://"))
            with urllib.request.urlopen(f"{address.rstrip('/')}/ready", timeout=30) as answer:
                return str(json.load(answer)["model_version"])
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--photos")
    parser.add_argument("--kinds", nargs="+", default=["cat", "dog", "rabbit"])
    parser.add_argument("--per-class", type=int, default=100)
    given = parser.parse_args()
    torch.set_num_threads(2)
    ws = Workspace(given.scratch.resolve())
    source = given.photos
    if source is None:
        source = ws.root / "drawn"
        write_sample(source, given.per_class, kinds=given.kinds, faults=False)
    explore.fetch(ws, str(Path(source).resolve()))
    prepare.prepare(ws)
    walk = Walk(ws, manifest.read_manifest(ws.manifest))
    walk.evaluated(a_part(walk.table, 0.1, 0))
    walk.judged("first, of a tenth of the photos")
    walk.evaluated(walk.table)
    walk.judged("better: of all photos")
    better = walk.last.bundle.version
    walk.evaluated(a_part(walk.table, 0.1, 1))
    walk.judged("worse: of a tenth of the photos")
    walk.badly_calibrated()
    walk.blind_in_the_dark()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("candidate", "test accuracy", "log loss", "the gate"):
        table.add_column(column, overflow="fold")
    for name, accuracy, loss, sentence in walk.rows:
        table.add_row(name, f"{accuracy:.2%}", f"{loss:.4f}", sentence)
    Console(width=140).print(table)
    now = served(ws)
    print(f"served after a restart: {now}; the better one is {better}")
    if now != better:
        raise SystemExit("the better one is not served")


if __name__ == "__main__":
    main()
