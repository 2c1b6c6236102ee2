"""Packaging: the candidate's bundle, its version in the registry, and the gate's verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from catsdogs_lib.common import files
from catsdogs_lib.common.git import git_commit
from catsdogs_lib.data import manifest
from catsdogs_lib.evaluation import gate
from catsdogs_lib.evaluation.report import EVALUATED_SPLITS, Evaluation, assess
from catsdogs_lib.export import onnx_export, packaging, parity, quantization
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.monitoring import records
from catsdogs_lib.pipeline.stages.evaluate import evaluate
from catsdogs_lib.pipeline.stages.prepare import read_manifest
from catsdogs_lib.pipeline.stages.train import runs, trained_models
from catsdogs_lib.pipeline.workspace import Workspace, project_root
from catsdogs_lib.registry import models, promotion, tracking
from catsdogs_lib.training.checkpoint import TrainedModel
from catsdogs_lib.training.trainer import photo_paths

CALIBRATION_PHOTOS = 200
"""Train photos that give the range of activations for quantization."""


@dataclass(frozen=True)
class Packaged:
    """A bundle with its name and version in the registry, and the gate's verdict."""

    bundle: Bundle
    registered: str
    version: str
    verdict: gate.Verdict


def package(ws: Workspace, int8: bool = False) -> Packaged:
    """Write the candidate's bundle, register it, and make it champion if the gate lets it, as 05_package does.

    Parameters
    ----------
    ws
        Holds the trained model and its evaluation.
    int8
        Quantize the graph; temperature, thresholds and metrics are then those of the quantized graph.
    """
    ws.sweep()
    name, run_id = candidate_run(ws)
    trained, evaluation = trained_models(ws)[name], candidate_evaluation(ws)
    table = read_manifest(ws)
    provenance = candidate_provenance(ws, table, run_id)
    photos = evenly_spaced(photo_paths(manifest.used(table, "test"), ws.raw), parity.PARITY_PHOTOS)

    graph = onnx_export.export(trained, evaluation["temperature"])
    description = packaging.describe(trained, graph, evaluation, provenance)
    classifier = packaging.classifier_of(description, graph)
    checked = parity.check_parity(trained, classifier, photos)
    if int8:
        train_photos = photo_paths(manifest.used(table, "train"), ws.raw)
        graph = quantization.quantize(graph, evenly_spaced(train_photos, CALIBRATION_PHOTOS), classifier.load)
        quantized = evaluate_graph(ws, table, trained, packaging.classifier_of(description, graph))
        graph = quantization.with_temperature(graph, quantized.temperature)
        description = packaging.describe(trained, graph, quantized.summary(), provenance, int8=True)
        checked = parity.quantization_parity(checked, classifier, packaging.classifier_of(description, graph), photos)
    bundle = packaging.write_bundle(ws.bundle, description, graph, checked)

    tracking.connect(ws.tracking_uri, ws.artifacts)
    registered = models.registered_name(provenance.source, trained.record.classes)
    champion = models.champion(registered)
    with tracking.run(name, run_id):
        models.log_training_photos(manifest.used(table, "train"))
        version = models.register(bundle, registered)
        verdict = promotion.judge(ws.raw, table, bundle, champion)
        promotion.promote_if_passed(version, verdict)
        write_reference(ws, table, bundle)
        models.log_reference(ws.reference)
    return Packaged(bundle, registered, str(version.version), verdict)


def candidate_run(ws: Workspace) -> tuple[str, str]:
    """Return the candidate's name and the id of its MLflow run; the demo trains first."""
    content = runs(ws)
    return content["candidate"], content["runs"][content["candidate"]]


def candidate_evaluation(ws: Workspace) -> dict[str, Any]:
    """Read the candidate's entry in ``evaluation/metrics.json``; the demo evaluates first."""
    if ws.demo and not ws.metrics.exists():
        evaluate(ws)
    content = files.read_json(ws.need(ws.metrics, "04_evaluate"))
    return dict(content["models"][content["candidate"]])


def candidate_provenance(ws: Workspace, table: pd.DataFrame, run_id: str) -> packaging.Provenance:
    """Collect data, code and MLflow run of the candidate."""
    return packaging.Provenance(
        source=files.read_json(ws.source)["slug"],
        data_hash=manifest.data_hash(table),
        photos=files.read_json(ws.summary)["photos"],
        git_commit=git_commit(project_root()),
        mlflow_run=run_id,
    )


def evenly_spaced(photos: Sequence[Path], count: int) -> Sequence[Path]:
    """Take at most `count` photos at even steps, so that every class is among them."""
    return photos[:: max(1, len(photos) // count)][:count]


def evaluate_graph(ws: Workspace, table: pd.DataFrame, trained: TrainedModel, classifier: Classifier) -> Evaluation:
    """Evaluate an exported graph on validation and test photos, as its model was evaluated."""
    rows = {split: manifest.used(table, split) for split in EVALUATED_SPLITS}
    outputs = {
        split: parity.graph_outputs(classifier, photo_paths(rows[split], ws.raw), f"evaluating on {split} photos")
        for split in EVALUATED_SPLITS
    }
    return assess(
        trained.record.settings.model,
        trained,
        rows,
        {split: outputs[split].logits for split in EVALUATED_SPLITS},
        {split: outputs[split].unfamiliarity for split in EVALUATED_SPLITS},
        {},
    )


def write_reference(ws: Workspace, table: pd.DataFrame, bundle: Bundle) -> None:
    """Write the records of a bundle's answers to validation photos, for monitoring to compare with."""
    rows = manifest.used(table, "val")
    records.write(
        records.make(
            Classifier(bundle), photo_paths(rows, ws.raw), rows["label"].tolist(), "records of validation photos"
        ),
        ws.reference,
    )
