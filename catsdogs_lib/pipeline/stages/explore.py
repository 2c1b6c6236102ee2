"""Exploration: the photos of a source, fetched into the workspace."""

from dataclasses import asdict

from catsdogs_lib.common import files
from catsdogs_lib.data import sources
from catsdogs_lib.pipeline.workspace import Workspace


def fetch(ws: Workspace, source: str, per_class: int = 300, seed: int = 0) -> sources.Fetched:
    """Fetch the photos of `source` into the workspace and record what they are; see `sources.fetch`."""
    ws.sweep()
    fetched = sources.fetch(source, ws.raw, downloads=ws.downloads, per_class=per_class, seed=seed)
    files.write_json(ws.source, asdict(fetched))
    return fetched
