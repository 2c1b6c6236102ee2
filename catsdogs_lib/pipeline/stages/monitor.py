"""Monitoring: answers after deployment, compared with those to validation photos."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from catsdogs_lib.data import manifest
from catsdogs_lib.data.synthetic.out_of_distribution import draw_others
from catsdogs_lib.evaluation import ood
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.monitoring import drift, records
from catsdogs_lib.monitoring.report import MonitoringReport, summarize
from catsdogs_lib.pipeline.stages.package import package
from catsdogs_lib.pipeline.stages.prepare import read_manifest
from catsdogs_lib.pipeline.workspace import Workspace
from catsdogs_lib.training.trainer import photo_paths

REHEARSAL_PHOTOS = 60
"""Test photos in the demo's rehearsal."""


def rehearse(ws: Workspace) -> Path:
    """Answer test photos and drawn pictures with the demo's bundle, as if users had sent them; the file of records."""
    if not ws.bundle.exists():
        package(ws)
    rows = manifest.used(read_manifest(ws), "test").head(REHEARSAL_PHOTOS)
    others = [ood.png_bytes(other.picture) for other in draw_others(REHEARSAL_PHOTOS // 6)]
    photos: list[bytes | Path] = [*photo_paths(rows, ws.raw), *others]
    truths = [*rows["label"], *[""] * len(others)]
    path = ws.root / "monitoring" / "rehearsal.jsonl"
    records.write(records.make(Classifier(Bundle.load(ws.bundle)), photos, truths), path)
    return path


def monitor(
    ws: Workspace, paths: Sequence[Path], reference: Path | None = None
) -> tuple[MonitoringReport, pd.DataFrame]:
    """Compare a window of records with the validation records of a workspace's bundle.

    Parameters
    ----------
    ws
        Holds the bundle and, where `reference` is None, its validation records.
    paths
        Files or folders of records; see `records.read`.
    reference
        Validation records of another bundle.
    """
    bundle = Bundle.load(ws.need(ws.bundle, "05_package"))
    validation = records.read([reference or ws.need(ws.reference, "05_package")])
    window = records.read(paths)
    signals = drift.compare(validation, window, bundle.description.thresholds.unfamiliar)
    return summarize(validation, window, signals), window
