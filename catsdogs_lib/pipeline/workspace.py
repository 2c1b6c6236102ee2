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


@dataclass(frozen=True)
class Workspace:
    """The folders and files of one pipeline, all below `root`."""

    root: Path
    demo: bool = False

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
    def raw(self) -> Path:
        """Photos as fetched: ``[split/]class/file``."""
        return self.root / "data" / "raw"

    @property
    def source(self) -> Path:
        """Origin of the photos, JSON."""
        return self.root / "data" / "source.json"

    @property
    def downloads(self) -> Path:
        """Downloads, kept between runs."""
        return self.root / "data" / "downloads"

    @property
    def manifest(self) -> Path:
        """The table of all photos."""
        return self.root / "data" / "manifest.csv"

    @property
    def summary(self) -> Path:
        """Counts of the manifest, JSON."""
        return self.root / "data" / "summary.json"

    @property
    def features(self) -> Path:
        """Cache of features."""
        return self.root / "data" / "features"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints for resuming training."""
        return self.root / "checkpoints"

    @property
    def trained(self) -> Path:
        """Trained models, one folder each."""
        return self.root / "models" / "trained"

    @property
    def runs(self) -> Path:
        """MLflow run of each trained model, JSON."""
        return self.trained / "runs.json"

    @property
    def metrics(self) -> Path:
        """Metrics of every model, JSON."""
        return self.evaluation / "metrics.json"

    @property
    def evaluation(self) -> Path:
        """Metrics and predictions."""
        return self.root / "evaluation"

    @property
    def bundle(self) -> Path:
        """The bundle."""
        return self.root / "models" / "bundle"

    @property
    def reference(self) -> Path:
        """Records of the bundle's predictions on validation photos, the reference for monitoring."""
        return self.root / "monitoring" / "reference.jsonl"

    @property
    def reports(self) -> Path:
        """Executed notebooks and their HTML."""
        return self.root / "reports"

    @property
    def tracking_uri(self) -> str:
        """Tracking server that ``MLFLOW_TRACKING_URI`` names, else a SQLite file in this workspace."""
        return os.environ.get(URI_VARIABLE) or f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def artifacts(self) -> Path:
        """Artifacts of an MLflow store in this workspace."""
        return self.root / "mlartifacts"

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
