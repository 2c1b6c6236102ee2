"""Every trained model measured on validation and test photos."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catsdogs_lib.common import files
from catsdogs_lib.data import manifest
from catsdogs_lib.evaluation import ood
from catsdogs_lib.evaluation.report import SPLITS, Evaluation, assess
from catsdogs_lib.imaging.decoding import SUFFIXES
from catsdogs_lib.pipeline.stages.prepare import read_manifest
from catsdogs_lib.pipeline.stages.train import runs, trained_models
from catsdogs_lib.pipeline.workspace import Workspace, project_root
from catsdogs_lib.registry import tracking
from catsdogs_lib.training import trainer as training
from catsdogs_lib.training.checkpoint import TrainedModel
from catsdogs_lib.training.models import imagenet_classifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORED = 500
"""Train photos that scores of unfamiliarity are compared on, about."""


def evaluate(ws: Workspace) -> list[Evaluation]:
    """Measure every trained model on validation and test photos and write the figures; the candidate comes first."""
    ws.sweep()
    table = read_manifest(ws)
    evaluations = [_evaluate_one(ws, table, name, trained) for name, trained in trained_models(ws).items()]
    with files.replacing(ws.evaluation) as partial:
        partial.mkdir()
        for one in evaluations:
            one.predictions().to_csv(partial / f"predictions-{one.name}.csv", index=False, lineterminator="\n")
        summary = {one.name: one.summary() for one in evaluations}
        files.write_json(partial / ws.metrics.name, {"candidate": evaluations[0].name, "models": summary})
    tracking.connect(ws.tracking_uri, ws.artifacts)
    for one in evaluations:
        with tracking.run(one.name, runs(ws)["runs"][one.name]):
            tracking.log_data(one.rows["test"], "test", manifest.data_hash(table), ("test",))
            tracking.log_test_metrics({**one.defined("test"), "temperature": one.temperature})
    return evaluations


def _evaluate_one(ws: Workspace, table: pd.DataFrame, name: str, trained: TrainedModel) -> Evaluation:
    rows = {split: manifest.used(table, split) for split in SPLITS}
    paths = {split: training.photo_paths(rows[split], ws.raw) for split in SPLITS}
    # In one go: getting ready takes longer than some hundred photos.
    both = trained.features([*paths["val"], *paths["test"]], what=f"{name} on val and test photos")
    features = {"val": both[: len(paths["val"])], "test": both[len(paths["val"]) :]}
    logits = {split: trained.logits(found) for split, found in features.items()}
    unfamiliarity = {split: trained.unfamiliarity(found) for split, found in features.items()}
    return assess(name, trained, rows, logits, unfamiliarity, features)


def log_figures(ws: Workspace, model: str, figures: "dict[str, Figure]") -> None:
    """Keep figures in the MLflow run of a model."""
    tracking.connect(ws.tracking_uri, ws.artifacts)
    with tracking.run(model, runs(ws)["runs"][model]):
        tracking.log_figures(figures)


def compare_scores(
    ws: Workspace, one: Evaluation, others: str = ""
) -> tuple[pd.DataFrame, dict[str, NDArray[np.float32]]]:
    """Hold scores of unfamiliarity against each other on a model; see `unfamiliar.comparison`.

    Gives the table, and the unfamiliarity of each other material's pictures.

    Parameters
    ----------
    ws
        Holds the photos.
    one
        The model, measured.
    others
        A folder of photos of other things; "" for drawn pictures alone.

    Raises
    ------
    EvaluationError
        The folder holds no photo.
    """
    rows = manifest.used(read_manifest(ws), "train")
    rows = rows.iloc[:: max(1, len(rows) // SCORED)]
    trained, classes = one.trained, one.trained.record.classes
    paths = training.photo_paths(rows, ws.raw)
    known = ood.KnownFeatures(
        features=trained.features(paths, what="features of train photos"),
        labels=training.label_indices(rows, classes),
        # Half of the families, so that most of what is judged is new to outlier exposure, too.
        others=trained.features(ood.exposed(), what="features of drawn pictures"),
        imagenet=imagenet_classifier(trained.record.settings.model),
    )
    materials: dict[str, Sequence[Path | bytes]] = {**ood.drawn_others(classes)}
    if others:
        folder = project_root() / others
        materials[folder.name] = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    features = {name: trained.features(found, what=f"features of {name}") for name, found in materials.items() if found}
    scores = ood.scores(trained, known)
    table = ood.comparison(scores, one.features["val"], one.features["test"], features)
    return table, {name: trained.unfamiliarity(found) for name, found in features.items()}
