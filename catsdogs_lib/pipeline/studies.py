"""What notebooks look into beside the graph's own products: the data set, scores of doubt, life after deployment."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catsdogs_lib.data import manifest
from catsdogs_lib.data.synthetic.out_of_distribution import draw_others
from catsdogs_lib.evaluation import label_audit, ood
from catsdogs_lib.evaluation.report import Evaluation
from catsdogs_lib.imaging.decoding import SUFFIXES
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.monitoring import records
from catsdogs_lib.monitoring.report import Report, report
from catsdogs_lib.pipeline import steps
from catsdogs_lib.pipeline.steps import read_manifest
from catsdogs_lib.pipeline.workspace import Workspace, project_root
from catsdogs_lib.registry import tracking
from catsdogs_lib.training import feature_extractor
from catsdogs_lib.training import trainer as training
from catsdogs_lib.training.features import FeatureCache, part_features
from catsdogs_lib.training.models import LITE0, build, imagenet_classifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORED = 500
"""Train photos that scores of unfamiliarity are compared on, about."""
REHEARSED = 60
"""Answers of the demo's rehearsal."""


def ask_doctor(ws: Workspace) -> pd.DataFrame:
    """Let the dataset doctor look at the train and validation photos; see `evaluation.doctor.examine`."""
    table = read_manifest(ws)
    rows = manifest.used(table)
    rows = rows[rows["split"] != "test"]
    classes = manifest.classes(table)
    built = build(LITE0, len(classes))
    paths = training.photo_paths(rows, ws.raw)
    looking = feature_extractor.resolve("auto", len(rows))
    photos = label_audit.AuditData(
        paths=paths,
        names=rows["path"].tolist(),
        sha256=rows["sha256"].tolist(),
        labels=training.label_indices(rows, classes),
        groups=rows["group"].tolist(),
        classes=classes,
        features=FeatureCache(ws.features, built, looking).get(paths, rows["sha256"].tolist()),
    )
    return label_audit.audit(
        photos, lambda some: part_features(built, some, feature_extractor.resolve("auto", 4 * len(some)))
    )


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


def rehearse(ws: Workspace) -> Path:
    """Let the demo's bundle answer test photos and strangers, as if they had been sent; the file of records."""
    if not ws.bundle.exists():
        steps.package(ws)
    rows = manifest.used(read_manifest(ws), "test").head(REHEARSED)
    photos: list[bytes | Path] = [*training.photo_paths(rows, ws.raw)]
    truths = rows["label"].tolist()
    others = ood.as_png(draw_others(REHEARSED // 6))
    path = ws.root / "monitoring" / "rehearsal.jsonl"
    made = records.make(Classifier(Bundle.load(ws.bundle)), [*photos, *others], [*truths, *[""] * len(others)])
    records.write(made, path)
    return path


def monitor(ws: Workspace, window: Sequence[Path], reference: Path | None = None) -> tuple[Report, pd.DataFrame]:
    """Read a window of records against the reference of a workspace's bundle.

    Parameters
    ----------
    ws
        Holds the bundle and, where `reference` is None, its validation records.
    window
        Files or folders of records; see `records.read`.
    reference
        Validation records of another bundle.
    """
    bundle = Bundle.load(ws.need(ws.bundle, "05_package"))
    known = records.read([reference or ws.need(ws.reference, "05_package")])
    found = records.read(window)
    return report(known, found, bundle.description.thresholds.unfamiliar), found


def log_report(ws: Workspace, found: Report, figures: "dict[str, Figure]") -> None:
    """Keep a report as a run of its own in MLflow: its sentence, numbers, table and pictures."""
    tracking.connect(ws.tracking_uri, ws.artifacts)
    tags = {"kind": "monitor", "verdict": found.sentence[:5000]}
    with tracking.run("monitor", None, **tags):
        tracking.log_metrics(found.figures())
        tracking.log_table(pd.DataFrame([vars(one) for one in found.findings]), "findings.csv")
        tracking.log_figures(figures)
