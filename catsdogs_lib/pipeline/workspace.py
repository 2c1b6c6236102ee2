"""Where the pipeline keeps things: every path by name, below one folder."""

import os
from dataclasses import dataclass
from pathlib import Path

from catsdogs_lib.common import files
from catsdogs_lib.common.errors import CatsdogsError

ANCHOR = "dvc.yaml"
"""The file that marks the root of a project."""
URI_VARIABLE = "MLFLOW_TRACKING_URI"
"""Environment variable: the tracking server, where it is not a file of the workspace."""


class MissingInputError(CatsdogsError):
    """A step lacks what an earlier one makes."""


def project_root(start: Path | None = None) -> Path:
    """The nearest folder upwards from `start` (or from where we are) that holds `ANCHOR`; else `start` itself.

    Notebooks run in their own folder under nbmake and in the caller's under papermill: both find the same root.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / ANCHOR).is_file():
            return folder
    return here


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
            A folder, relative to the project's root; "" is the demo: a small drawn sample of its own
            below ``build/demo``, where a step makes for itself what earlier ones would have made.
        """
        root = project_root()
        return cls(root / "build" / "demo", demo=True) if name == "" else cls((root / name).resolve())

    @property
    def raw(self) -> Path:
        """Photos as fetched: ``[split/]class/file``."""
        return self.root / "data" / "raw"

    @property
    def source(self) -> Path:
        """What was fetched, JSON."""
        return self.root / "data" / "source.json"

    @property
    def downloads(self) -> Path:
        """What was downloaded, kept between runs."""
        return self.root / "data" / "downloads"

    @property
    def manifest(self) -> Path:
        """The table of all photos."""
        return self.root / "data" / "manifest.csv"

    @property
    def summary(self) -> Path:
        """What the manifest comes to, JSON."""
        return self.root / "data" / "summary.json"

    @property
    def features(self) -> Path:
        """Cache of features."""
        return self.root / "data" / "features"

    @property
    def checkpoints(self) -> Path:
        """What killed training goes on from."""
        return self.root / "checkpoints"

    @property
    def trained(self) -> Path:
        """Trained models, a folder each."""
        return self.root / "models" / "trained"

    @property
    def runs(self) -> Path:
        """Which MLflow run made which model, JSON."""
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
        """Records of the bundle's answers to validation photos: what monitoring compares with."""
        return self.root / "monitoring" / "reference.jsonl"

    @property
    def reports(self) -> Path:
        """Executed notebooks and their HTML."""
        return self.root / "reports"

    @property
    def tracking_uri(self) -> str:
        """The server that ``MLFLOW_TRACKING_URI`` names, else a SQLite file of this workspace."""
        return os.environ.get(URI_VARIABLE) or f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def artifacts(self) -> Path:
        """Where MLflow's artifacts lie when it keeps them itself."""
        return self.root / "mlartifacts"

    def sweep(self) -> None:
        """Remove what a killed run left unfinished in any of the folders; one run at a time uses a workspace."""
        for folder in (self.root, self.raw.parent, self.checkpoints, self.trained, self.bundle.parent, self.reports):
            files.sweep(folder)

    def need(self, path: Path, notebook: str) -> Path:
        """Give `path` back if it is there.

        Raises
        ------
        MissingInputError
            It is not; the message names the notebook that makes it.
        """
        if not path.exists():
            raise MissingInputError(f"{path} is missing; run notebook {notebook} first, or the whole graph: dvc repro")
        return path
