"""Answers after deployment, held against those to validation photos."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from catsdogs_lib.data import manifest
from catsdogs_lib.data.synthetic.out_of_distribution import draw_others
from catsdogs_lib.evaluation import ood
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.monitoring import records
from catsdogs_lib.monitoring.report import Report, report
from catsdogs_lib.pipeline.stages.package import package
from catsdogs_lib.pipeline.stages.prepare import read_manifest
from catsdogs_lib.pipeline.workspace import Workspace
from catsdogs_lib.registry import tracking
from catsdogs_lib.training import trainer as training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REHEARSED = 60
"""Answers of the demo's rehearsal."""


def rehearse(ws: Workspace) -> Path:
    """Let the demo's bundle answer test photos and strangers, as if they had been sent; the file of records."""
    if not ws.bundle.exists():
        package(ws)
    rows = manifest.used(read_manifest(ws), "test").head(REHEARSED)
    photos: list[bytes | Path] = [*training.photo_paths(rows, ws.raw)]
    truths = rows["label"].tolist()
    others = ood.as_png(draw_others(REHEARSED // 6))
    path = ws.root / "monitoring" / "rehearsal.jsonl"
    made = records.make(Classifier(Bundle.load(ws.bundle)), [*photos, *others], [*truths, *[""] * len(others)])
    records.write(made, path)
    return path


def monitor(ws: Workspace, window: Sequence[Path], reference: Path | None = None) -> tuple[Report, pd.DataFrame]:
    """Read a window of records against the reference of a workspace's bundle.

    Parameters
    ----------
    ws
        Holds the bundle and, where `reference` is None, its validation records.
    window
        Files or folders of records; see `records.read`.
    reference
        Validation records of another bundle.
    """
    bundle = Bundle.load(ws.need(ws.bundle, "05_package"))
    known = records.read([reference or ws.need(ws.reference, "05_package")])
    found = records.read(window)
    return report(known, found, bundle.description.thresholds.unfamiliar), found


def log_report(ws: Workspace, found: Report, figures: "dict[str, Figure]") -> None:
    """Keep a report as a run of its own in MLflow: its sentence, numbers, table and pictures."""
    tracking.connect(ws.tracking_uri, ws.artifacts)
    tags = {"kind": "monitor", "verdict": found.sentence[:5000]}
    with tracking.run("monitor", None, **tags):
        tracking.log_metrics(found.metrics())
        tracking.log_table(pd.DataFrame([vars(one) for one in found.findings]), "findings.csv")
        tracking.log_figures(figures)
