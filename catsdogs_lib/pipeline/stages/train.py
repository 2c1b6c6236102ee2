"""The candidate and its baseline, each a run in MLflow."""

from pathlib import Path
from typing import Any

import pandas as pd

from catsdogs_lib.common import files
from catsdogs_lib.common.git import git_commit
from catsdogs_lib.data import manifest
from catsdogs_lib.pipeline.stages.prepare import read_manifest
from catsdogs_lib.pipeline.workspace import Workspace, project_root
from catsdogs_lib.registry import tracking
from catsdogs_lib.training import trainer as training
from catsdogs_lib.training.checkpoint import Epoch, TrainedModel
from catsdogs_lib.training.settings import TrainingSettings, baseline_settings


def train(ws: Workspace, candidate: TrainingSettings, baseline: TrainingSettings | None = None) -> list[TrainedModel]:
    """Train the candidate, and the baseline to hold it against; each is a run in MLflow.

    A killed call that is made again goes on where it was, in the same runs.
    """
    ws.sweep()
    table = read_manifest(ws)
    tracking.connect(ws.tracking_uri, ws.artifacts)
    # A candidate that is the baseline itself needs none beside it, and would lose its name to it.
    settings = [candidate] if baseline is None or baseline.model == candidate.model else [candidate, baseline]
    places = training.TrainingPaths(ws.raw, ws.features, ws.checkpoints)
    models: list[TrainedModel] = []
    run_ids: dict[str, str] = {}
    for one in settings:
        run_ids[one.model] = _train_one(ws, places, table, one, models)
    files.write_json(ws.runs, {"candidate": candidate.model, "runs": run_ids})
    for model in models:
        training.forget_checkpoint(places, model.record)
        _pending(ws, model.record.settings, model.record.data_hash).unlink(missing_ok=True)
    return models


def _pending(ws: Workspace, settings: TrainingSettings, data_hash: str) -> Path:
    return ws.checkpoints / f"{files.digest([settings.model_dump(), data_hash])[:16]}.run.json"


def _train_one(
    ws: Workspace,
    places: training.TrainingPaths,
    table: pd.DataFrame,
    settings: TrainingSettings,
    models: list[TrainedModel],
) -> str:
    data_hash = manifest.data_hash(table)
    pending = _pending(ws, settings, data_hash)
    earlier = files.read_json(pending)["run_id"] if pending.exists() else None
    source = files.read_json(ws.source)["source"]
    with tracking.run(f"{settings.model} {settings.method}", earlier, commit=git_commit(project_root())) as run_id:
        files.write_json(pending, {"run_id": run_id})
        tracking.log_parameters({**settings.model_dump(), "source": source, "data_hash": data_hash})
        tracking.log_data(manifest.used(table), source, data_hash, ("train", "val"))
        already = tracking.logged_epochs(run_id)

        def log(epoch: Epoch) -> None:
            if epoch.epoch not in already:
                tracking.log_epoch(epoch)

        trained = training.train(table, places, settings, log)
        trained.save(ws.trained / settings.model)
        models.append(trained)
    return run_id


def trained_models(ws: Workspace) -> dict[str, TrainedModel]:
    """The trained models by name, the candidate first; the demo trains them when they are missing."""
    if ws.demo and not ws.runs.exists():
        train(ws, TrainingSettings(), baseline_settings(1))
    return {name: TrainedModel.load(ws.trained / name) for name in runs(ws)["runs"]}


def runs(ws: Workspace) -> dict[str, Any]:
    """Read which MLflow run made which model: `candidate`, a name, and `runs`, ids by name."""
    content: dict[str, Any] = files.read_json(ws.need(ws.runs, "03_train"))
    return content
