"""Training with tracking: each model in an MLflow run of its own, which the next call resumes after a kill."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from catsdogs_lib.common import files
from catsdogs_lib.common.git import git_commit
from catsdogs_lib.data import manifest
from catsdogs_lib.pipeline.stages.prepare import read_manifest
from catsdogs_lib.pipeline.workspace import Workspace, project_root
from catsdogs_lib.registry import tracking
from catsdogs_lib.training import trainer
from catsdogs_lib.training.checkpoint import TrainedModel
from catsdogs_lib.training.settings import TrainingSettings, baseline_settings


def train(ws: Workspace, candidate: TrainingSettings, baseline: TrainingSettings | None = None) -> list[TrainedModel]:
    """Train the candidate, and a baseline to compare it with, as notebook 03_train does."""
    ws.sweep()
    table = read_manifest(ws)
    # A candidate that is the baseline itself needs no other one, whose folder would have the same name.
    settings = [candidate] if baseline is None or baseline.model == candidate.model else [candidate, baseline]
    models = {run_id: model for model, run_id in (train_and_log(ws, table, each) for each in settings)}
    finish_runs(ws, table, models)
    return list(models.values())


def training_data(ws: Workspace, table: pd.DataFrame) -> trainer.TrainingData:
    """Select the train and validation photos of a workspace."""
    return trainer.prepare_data(table, trainer.TrainingPaths(ws.raw, ws.features, ws.checkpoints))


def train_and_log(ws: Workspace, table: pd.DataFrame, settings: TrainingSettings) -> tuple[TrainedModel, str]:
    """Train and save a model in an MLflow run, or resume the run if it was killed; returns the model and the run's id.

    Parameters
    ----------
    ws
        Holds the photos.
    table
        The manifest.
    settings
        Model, method and hyperparameters.
    """
    data, folder = training_data(ws, table), ws.trained / settings.model
    source, commit = files.read_json(ws.source)["source"], git_commit(project_root())
    tracking.connect(ws.tracking_uri, ws.artifacts)
    with tracking.run(f"{settings.model} {settings.method}", resume=data.run_file(settings), commit=commit) as run_id:
        tracking.log_parameters({**settings.model_dump(), "source": source, "data_hash": data.data_hash})
        tracking.log_data(manifest.used(table), source, data.data_hash, ("train", "val"))
        model = trainer.train(table, data.paths, settings, tracking.log_epoch)
        model.save(folder)
        tracking.log_trained_model(folder)
    return model, run_id


def finish_runs(ws: Workspace, table: pd.DataFrame, models: Mapping[str, TrainedModel]) -> None:
    """Write which MLflow run made which model, the candidate first, and remove the checkpoints for resuming them."""
    settings = {run_id: model.record.settings for run_id, model in models.items()}
    run_ids = {each.model: run_id for run_id, each in settings.items()}
    files.write_json(ws.runs, {"candidate": next(iter(run_ids)), "runs": run_ids})
    data = training_data(ws, table)
    for each in settings.values():
        data.forget_checkpoint(each)


def runs(ws: Workspace) -> dict[str, Any]:
    """Read which MLflow run made which model: `candidate`, a name, and `runs`, ids by name; the demo trains first."""
    if ws.demo and not ws.runs.exists():
        train(ws, TrainingSettings(), baseline_settings(1))
    return dict(files.read_json(ws.need(ws.runs, "03_train")))


def trained_models(ws: Workspace) -> dict[str, TrainedModel]:
    """Load the trained models by name, the candidate first."""
    return {name: TrainedModel.load(ws.trained / name) for name in runs(ws)["runs"]}
