"""Every photo checked, and the manifest that says what it is used for."""

import pandas as pd

from catsdogs_lib.common import files
from catsdogs_lib.data import manifest
from catsdogs_lib.data.settings import PrepareSettings
from catsdogs_lib.evaluation import label_audit
from catsdogs_lib.pipeline.stages.explore import fetch
from catsdogs_lib.pipeline.workspace import Workspace
from catsdogs_lib.training import feature_extractor
from catsdogs_lib.training import trainer as training
from catsdogs_lib.training.features import FeatureCache, part_features
from catsdogs_lib.training.models import LITE0, build

DEMO_PER_CLASS = 60
"""Drawn pictures of each kind in the demo: enough to see everything, soon done."""


def prepare(ws: Workspace, settings: PrepareSettings | None = None) -> pd.DataFrame:
    """Check all photos and write the manifest; photos of an earlier manifest keep their split."""
    if ws.demo and not ws.source.exists():
        fetch(ws, "sample", DEMO_PER_CLASS)
    ws.sweep()
    settings = settings or PrepareSettings()
    raw = ws.need(ws.raw, "01_explore")
    key = manifest.split_key(settings)
    previous = None
    if ws.manifest.exists() and ws.summary.exists() and files.read_json(ws.summary)["split_key"] == key:
        previous = manifest.read_manifest(ws.manifest)
    table = manifest.build_manifest(raw, settings, previous)
    if previous is None:
        # Without its summary a manifest is no ledger: a kill between the two writes cannot mix two splits.
        ws.summary.unlink(missing_ok=True)
    manifest.write_manifest(table, ws.manifest)
    used = manifest.used(table)
    files.write_json(
        ws.summary,
        {
            "split_key": key,
            "data_hash": manifest.data_hash(table),
            "files": len(table),
            "used": len(used),
            "excluded": len(table) - len(used),
            "photos": {str(split): int(count) for split, count in used["split"].value_counts().sort_index().items()},
        },
    )
    return table


def read_manifest(ws: Workspace) -> pd.DataFrame:
    """The manifest; the demo makes it when it is missing."""
    if ws.demo and not ws.summary.exists():
        return prepare(ws)
    return manifest.read_manifest(ws.need(ws.manifest, "02_prepare"))


def ask_doctor(ws: Workspace) -> pd.DataFrame:
    """Let the dataset doctor look at the train and validation photos; see `evaluation.doctor.examine`."""
    table = read_manifest(ws)
    rows = manifest.used(table)
    rows = rows[rows["split"] != "test"]
    classes = manifest.classes(table)
    built = build(LITE0, len(classes))
    paths = training.photo_paths(rows, ws.raw)
    looking = feature_extractor.resolve("auto", len(rows))
    photos = label_audit.AuditData(
        paths=paths,
        names=rows["path"].tolist(),
        sha256=rows["sha256"].tolist(),
        labels=training.label_indices(rows, classes),
        groups=rows["group"].tolist(),
        classes=classes,
        features=FeatureCache(ws.features, built, looking).get(paths, rows["sha256"].tolist()),
    )
    return label_audit.audit(
        photos, lambda some: part_features(built, some, feature_extractor.resolve("auto", 4 * len(some)))
    )
