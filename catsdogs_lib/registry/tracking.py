"""MLflow runs: connecting to the store, starting and resuming a run, logging in it."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import mlflow.data.pandas_dataset
import pandas as pd
from mlflow.environment_variables import MLFLOW_TRACKING_URI
from sqlalchemy.exc import SQLAlchemyError

from catsdogs_lib.common import files
from catsdogs_lib.common.errors import CatsdogsError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from catsdogs_lib.training.checkpoint import Epoch

EXPERIMENT = "catsdogs"
MAX_MODEL_FILE_BYTES = 50_000_000
"""Larger weights (the baseline's) stay in the workspace: a copy for each run would fill the store."""


class TrackingError(CatsdogsError):
    """The tracking store cannot be used."""


def connect(uri: str, artifacts: Path) -> None:
    """Use a tracking store, and create the experiment in it if it is new.

    Parameters
    ----------
    uri
        ``sqlite:///...`` or a server's address.
    artifacts
        Folder for the artifacts of a SQLite store; a server has its own.

    Raises
    ------
    TrackingError
        The store cannot be reached.
    """
    # MLflow's progress bars, links and advice would fill the notebooks' reports and the output of commands.
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.utils.environment"):
        logging.getLogger(name).setLevel(logging.WARNING)
    local = uri.startswith("sqlite:")
    if local:
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    given = os.environ.get(MLFLOW_TRACKING_URI.name)
    try:
        mlflow.set_tracking_uri(uri)
        if given is None:
            # MLflow stores the address in the environment, where the next workspace would take it for the user's.
            os.environ.pop(MLFLOW_TRACKING_URI.name, None)
        if mlflow.get_experiment_by_name(EXPERIMENT) is None:
            mlflow.create_experiment(EXPERIMENT, artifact_location=artifacts.resolve().as_uri() if local else None)
        mlflow.set_experiment(EXPERIMENT)
    except (mlflow.MlflowException, SQLAlchemyError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise TrackingError(f"MLflow at {uri} cannot be used ({reason}); check MLFLOW_TRACKING_URI") from None


@contextlib.contextmanager
def run(name: str, run_id: str | None = None, resume: Path | None = None, **tags: str) -> Iterator[str]:
    """Run a block in a new MLflow run, or go on with an earlier one; yields its id.

    A block that fails leaves the run marked as failed.

    Parameters
    ----------
    name
        Of a new run.
    run_id
        Earlier run to go on with, if the store still has it.
    resume
        File for the run's id. If the block is killed, the next call with this file goes on with the same run. Remove
        the file when the work is finished.
    tags
        For the run.
    """
    if resume is not None and resume.exists():
        run_id = files.read_json(resume)["run_id"]
    if run_id is not None and not _is_active(run_id):
        run_id = None
    with mlflow.start_run(run_id=run_id, run_name=None if run_id else name, tags=tags or None) as active:
        if resume is not None:
            files.write_json(resume, {"run_id": active.info.run_id})
        yield active.info.run_id


def _is_active(run_id: str) -> bool:
    try:
        return bool(mlflow.MlflowClient().get_run(run_id).info.lifecycle_stage == "active")
    except mlflow.MlflowException:
        return False


def _current_run_id() -> str:
    current = mlflow.active_run()
    if current is None:
        raise TrackingError("no MLflow run is active; log inside 'with tracking.run(...)'")
    return str(current.info.run_id)


def log_parameters(values: dict[str, Any]) -> None:
    """Log parameters in the active run; a resumed run keeps those that it has."""
    logged = mlflow.MlflowClient().get_run(_current_run_id()).data.params
    mlflow.log_params({name: value for name, value in values.items() if name not in logged})


def log_data(rows: pd.DataFrame, source: str, digest: str, splits: Sequence[str]) -> None:
    """Log the photos of some splits as inputs of the active run, a dataset for each split."""
    columns = ["path", "label", "sha256", "split"]
    for split in splits:
        part = rows.loc[rows["split"] == split, columns].reset_index(drop=True)
        with warnings.catch_warnings():
            # Schema inference warns about integer columns that this table does not have.
            warnings.simplefilter("ignore")
            dataset = mlflow.data.pandas_dataset.from_pandas(
                part, source=source, name=f"{split}-{digest[:12]}", targets="label"
            )
        mlflow.log_input(dataset, context={"train": "training", "val": "validation"}.get(split, "testing"))


def log_epoch(epoch: "Epoch") -> None:
    """Log the metrics of an epoch in the active run; a resumed run keeps the epochs that it has."""
    if epoch.epoch in logged_epochs(_current_run_id()):
        return
    values = {name: getattr(epoch, name) for name in ("val_loss", "val_accuracy", "seconds", "train_loss")}
    mlflow.log_metrics({name: value for name, value in values.items() if value is not None}, step=epoch.epoch)


def logged_epochs(run_id: str) -> set[int]:
    """Return the epochs whose metrics a run has."""
    return {metric.step for metric in mlflow.MlflowClient().get_metric_history(run_id, "val_loss")}


def log_metrics(values: dict[str, float]) -> None:
    """Log numbers in the active run under their own names."""
    mlflow.log_metrics(values)


def log_test_metrics(values: dict[str, float]) -> None:
    """Log numbers measured on test photos in the active run, as ``test_NAME``."""
    mlflow.log_metrics({f"test_{name}": value for name, value in values.items()})


def log_figures(figures: dict[str, "Figure"]) -> None:
    """Log matplotlib plots in the active run, as ``figures/NAME.png``."""
    for name, figure in figures.items():
        mlflow.log_figure(figure, f"figures/{name}.png")


def log_table(table: pd.DataFrame, name: str) -> None:
    """Log a table in the active run, as CSV."""
    mlflow.log_text(table.to_csv(index=False), name)


def log_reports(reports: Sequence[Path]) -> None:
    """Log HTML reports in the active run, below ``reports``."""
    for report in reports:
        mlflow.log_artifact(str(report), "reports")


def log_trained_model(folder: Path) -> None:
    """Log the files of a trained model in the active run, below ``trained``, up to `MAX_MODEL_FILE_BYTES` each."""
    for path in sorted(folder.iterdir()):
        if path.stat().st_size <= MAX_MODEL_FILE_BYTES:
            mlflow.log_artifact(str(path), "trained")
