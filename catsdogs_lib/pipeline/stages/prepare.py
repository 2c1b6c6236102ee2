"""Preparation: every photo checked, and the manifest that says what it is used for."""

from pathlib import Path

import pandas as pd

from catsdogs_lib.common import files
from catsdogs_lib.data import manifest
from catsdogs_lib.data.settings import PrepareSettings
from catsdogs_lib.pipeline.stages.explore import fetch
from catsdogs_lib.pipeline.workspace import Workspace

DEMO_PER_CLASS = 60
"""Drawn pictures of each kind in the demo, which must be quick."""


def prepare(ws: Workspace, settings: PrepareSettings | None = None) -> pd.DataFrame:
    """Check all photos and write the manifest; photos of an earlier manifest keep their split."""
    settings = settings or PrepareSettings()
    raw = raw_photos(ws)
    ws.sweep()
    table = manifest.build_manifest(raw, settings, earlier_manifest(ws, settings))
    save_manifest(ws, table, settings)
    return table


def raw_photos(ws: Workspace) -> Path:
    """Give the folder of photos; the demo draws them if they are missing."""
    if ws.demo and not ws.source.exists():
        fetch(ws, "sample", DEMO_PER_CLASS)
    return ws.need(ws.raw, "01_explore")


def earlier_manifest(ws: Workspace, settings: PrepareSettings) -> pd.DataFrame | None:
    """Read the workspace's manifest if it has the same split settings, so that its photos can keep their split."""
    return manifest.read_manifest(ws.manifest) if _has_split(ws, settings) else None


def _has_split(ws: Workspace, settings: PrepareSettings) -> bool:
    complete = ws.manifest.exists() and ws.summary.exists()
    return complete and files.read_json(ws.summary)["split_key"] == manifest.split_key(settings)


def save_manifest(ws: Workspace, table: pd.DataFrame, settings: PrepareSettings) -> None:
    """Write a manifest and its summary."""
    if not _has_split(ws, settings):
        # Without its summary, no manifest is taken for an earlier one: a kill between the two writes mixes no splits.
        ws.summary.unlink(missing_ok=True)
    manifest.write_manifest(table, ws.manifest)
    used = manifest.used(table)
    files.write_json(
        ws.summary,
        {
            "split_key": manifest.split_key(settings),
            "data_hash": manifest.data_hash(table),
            "files": len(table),
            "used": len(used),
            "excluded": len(table) - len(used),
            "photos": {str(split): int(count) for split, count in used["split"].value_counts().sort_index().items()},
        },
    )


def read_manifest(ws: Workspace) -> pd.DataFrame:
    """Read the manifest; the demo prepares it if it is missing."""
    if ws.demo and not ws.summary.exists():
        return prepare(ws)
    return manifest.read_manifest(ws.need(ws.manifest, "02_prepare"))
