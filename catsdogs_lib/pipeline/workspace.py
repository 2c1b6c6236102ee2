"""The workspace: every file of a pipeline by name, below one folder."""

import os
from dataclasses import dataclass
from pathlib import Path

from catsdogs_lib.common import files
from catsdogs_lib.common.errors import CatsdogsError

ANCHOR = "dvc.yaml"
"""File that marks the root of a project."""
URI_VARIABLE = "MLFLOW_TRACKING_URI"
"""Environment variable that names a tracking server to use instead of a file in the workspace."""


class MissingInputError(CatsdogsError):
    """A stage lacks an output of an earlier one."""


def project_root(start: Path | None = None) -> Path:
    """Find the nearest folder that holds `ANCHOR`, upwards from `start` or the current folder; else return `start`.

    nbmake runs a notebook in its own folder, papermill in the caller's; the root is the same for both.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / ANCHOR).is_file():
            return folder
    return start


class _Below:
    """A path below a workspace's root, as a read-only attribute with a description."""

    def __init__(self, path: str, description: str) -> None:
        self._path = path
        self.__doc__ = description

    def __get__(self, workspace: "Workspace", owner: object) -> Path:
        return workspace.root / self._path


@dataclass(frozen=True)
class Workspace:
    """The folders and files of one pipeline, all below `root`."""

    root: Path
    demo: bool = False

    raw = _Below("data/raw", "Photos as fetched: ``[split/]class/file``.")
    source = _Below("data/source.json", "Origin of the photos, JSON.")
    downloads = _Below("data/downloads", "Downloads, kept between runs.")
    manifest = _Below("data/manifest.csv", "The table of all photos.")
    summary = _Below("data/summary.json", "Counts of the manifest, JSON.")
    features = _Below("data/features", "Cache of features.")
    checkpoints = _Below("checkpoints", "Checkpoints for resuming training.")
    trained = _Below("models/trained", "Trained models, one folder each.")
    runs = _Below("models/trained/runs.json", "MLflow run of each trained model, JSON.")
    evaluation = _Below("evaluation", "Metrics and predictions.")
    metrics = _Below("evaluation/metrics.json", "Metrics of every model, JSON.")
    bundle = _Below("models/bundle", "The bundle.")
    reference = _Below(
        "monitoring/reference.jsonl",
        "Records of answers to validation photos, which monitoring compares with.",
    )
    reports = _Below("reports", "Executed notebooks and their HTML.")
    artifacts = _Below("mlartifacts", "Artifacts of an MLflow store in this workspace.")

    @classmethod
    def open(cls, name: str) -> "Workspace":
        """Open the workspace that a notebook parameter names.

        Parameters
        ----------
        name
            A folder, relative to the project's root. "" is the demo: a small drawn sample in ``build/demo``, for which
            a stage runs the earlier ones itself.
        """
        root = project_root()
        return cls(root / "build" / "demo", demo=True) if name == "" else cls((root / name).resolve())

    @property
    def tracking_uri(self) -> str:
        """Tracking server that ``MLFLOW_TRACKING_URI`` names, else a SQLite file in this workspace."""
        return os.environ.get(URI_VARIABLE) or f"sqlite:///{self.root / 'mlflow.db'}"

    def sweep(self) -> None:
        """Remove unfinished files that a killed run left; one run at a time may use a workspace."""
        for folder in (self.root, self.raw.parent, self.checkpoints, self.trained, self.bundle.parent, self.reports):
            files.sweep(folder)

    def need(self, path: Path, notebook: str) -> Path:
        """Return `path` if it exists.

        Raises
        ------
        MissingInputError
            It does not; the message names the notebook that writes it.
        """
        if not path.exists():
            raise MissingInputError(f"{path} is missing; run notebook {notebook} first, or the whole graph: dvc repro")
        return path
