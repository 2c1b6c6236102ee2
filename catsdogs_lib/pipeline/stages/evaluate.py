"""Evaluation: every trained model measured on validation and test photos."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catsdogs_lib.common import files
from catsdogs_lib.data import manifest
from catsdogs_lib.evaluation.report import EVALUATED_SPLITS, Evaluation, assess
from catsdogs_lib.pipeline.stages.prepare import read_manifest
from catsdogs_lib.pipeline.stages.train import runs, trained_models
from catsdogs_lib.pipeline.workspace import Workspace
from catsdogs_lib.registry import tracking
from catsdogs_lib.training.checkpoint import TrainedModel
from catsdogs_lib.training.trainer import photo_paths


def evaluate(ws: Workspace) -> list[Evaluation]:
    """Evaluate, save and log every trained model, the candidate first, as notebook 04_evaluate does."""
    ws.sweep()
    table = read_manifest(ws)
    evaluations = [evaluate_model(ws, table, name, trained) for name, trained in trained_models(ws).items()]
    save_evaluations(ws, evaluations)
    tracking.connect(ws.tracking_uri, ws.artifacts)
    for evaluation in evaluations:
        with tracking.run(evaluation.name, runs(ws)["runs"][evaluation.name]):
            tracking.log_data(evaluation.rows["test"], "test", manifest.data_hash(table), ("test",))
            tracking.log_test_metrics({**evaluation.metric_values("test"), "temperature": evaluation.temperature})
    return evaluations


def evaluate_model(ws: Workspace, table: pd.DataFrame, name: str, trained: TrainedModel) -> Evaluation:
    """Evaluate one model on the photos of a manifest."""
    rows = {split: manifest.used(table, split) for split in EVALUATED_SPLITS}
    features = split_features(ws, rows, trained, name)
    logits = {split: trained.logits(features[split]) for split in EVALUATED_SPLITS}
    unfamiliarity = {split: trained.unfamiliarity(features[split]) for split in EVALUATED_SPLITS}
    return assess(name, trained, rows, logits, unfamiliarity, features)


def split_features(
    ws: Workspace, rows: dict[str, pd.DataFrame], trained: TrainedModel, name: str
) -> dict[str, NDArray[np.float32]]:
    """Compute the features of each split's photos with a model's backbone: float32 (photos, features)."""
    # In one call: compiling the network takes longer than some hundred photos.
    features = trained.features(photo_paths(pd.concat(rows.values()), ws.raw), what=f"{name} on val and test photos")
    ends = np.cumsum([len(part) for part in rows.values()])
    return dict(zip(rows, np.split(features, ends[:-1]), strict=True))


def save_evaluations(ws: Workspace, evaluations: Sequence[Evaluation]) -> None:
    """Write metrics and predictions of all models; the first one is the candidate."""
    with files.replacing(ws.evaluation) as partial:
        partial.mkdir()
        for evaluation in evaluations:
            evaluation.predictions().to_csv(
                partial / f"predictions-{evaluation.name}.csv", index=False, lineterminator="\n"
            )
        summaries = {evaluation.name: evaluation.summary() for evaluation in evaluations}
        files.write_json(partial / ws.metrics.name, {"candidate": evaluations[0].name, "models": summaries})
