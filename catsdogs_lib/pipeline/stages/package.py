"""The candidate's bundle, registered and held against the champion."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from catsdogs_lib.common import files
from catsdogs_lib.common.git import git_commit
from catsdogs_lib.data import manifest
from catsdogs_lib.evaluation import gate
from catsdogs_lib.evaluation.metrics import Interval
from catsdogs_lib.evaluation.report import SPLITS, assess
from catsdogs_lib.export import model_card, packaging, quantization
from catsdogs_lib.inference.bundle import Bundle, RiskBound, Thresholds
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.monitoring import records
from catsdogs_lib.pipeline.stages.evaluate import evaluate
from catsdogs_lib.pipeline.stages.prepare import read_manifest
from catsdogs_lib.pipeline.stages.train import runs, trained_models
from catsdogs_lib.pipeline.workspace import Workspace, project_root
from catsdogs_lib.registry import promotion, tracking
from catsdogs_lib.training import trainer as training
from catsdogs_lib.training.checkpoint import TrainedModel

CALIBRATION_PHOTOS = 200
"""Of training, to see what values occur in a network that is quantised."""


@dataclass(frozen=True)
class Packaged:
    """What packaging left: the bundle, its name and version in the registry, and the gate's verdict."""

    bundle: Bundle
    registered: str
    version: str
    verdict: gate.Verdict


def package(ws: Workspace, int8: bool = False) -> Packaged:
    """Write the candidate's bundle, register it, and move the champion's alias if the gate lets it.

    Parameters
    ----------
    ws
        Holds the trained model and its figures.
    int8
        Quantise it; temperature, thresholds and figures are then those of the quantised graph.
    """
    ws.sweep()
    trained = trained_models(ws)
    if ws.demo and not ws.metrics.exists():
        evaluate(ws)
    summary = files.read_json(ws.need(ws.metrics, "04_evaluate"))
    name = summary["candidate"]
    figures, run_id = summary["models"][name], runs(ws)["runs"][name]
    table = read_manifest(ws)
    fetched = files.read_json(ws.source)
    facts = packaging.Facts(
        temperature=figures["temperature"],
        thresholds=Thresholds(**figures["thresholds"]),
        certificate=RiskBound(**figures["certificate"]),
        metrics={key: Interval(**value) for key, value in figures["test"].items() if value["value"] is not None},
        source=fetched["slug"],
        data_hash=manifest.data_hash(table),
        card=model_card.facts(trained[name].record.classes, fetched["slug"], figures),
        photos=files.read_json(ws.summary)["photos"],
        git_commit=git_commit(project_root()),
        mlflow_run=run_id,
    )
    test = training.photo_paths(manifest.used(table, "test"), ws.raw)
    photos = _evenly(test, packaging.PARITY_PHOTOS)
    if int8:
        with tempfile.TemporaryDirectory() as folder:
            whole = packaging.package(trained[name], facts, photos, Path(folder) / "bundle")
            bundle = _in_int8(ws, table, trained[name], whole, photos)
    else:
        bundle = packaging.package(trained[name], facts, photos, ws.bundle)
    tracking.connect(ws.tracking_uri, ws.artifacts)
    registered = tracking.registered_name(fetched["slug"], bundle.description.classes)
    with tracking.run(name, run_id):
        tracking.log_learned_photos(manifest.used(table, "train"))
        champion = tracking.champion(registered)
        version = tracking.register(bundle, registered)
        verdict = promotion.judge(ws.raw, table, bundle, champion)
        promotion.settle(version, verdict)
        val = manifest.used(table, "val")
        made = records.make(
            Classifier(bundle), training.photo_paths(val, ws.raw), val["label"].tolist(), "records of validation photos"
        )
        records.write(made, ws.reference)
        tracking.log_reference(ws.reference)
    return Packaged(bundle, registered, str(version.version), verdict)


def _evenly(photos: Sequence[Path], most: int) -> Sequence[Path]:
    """Some of a list from all over it, so that every class is there."""
    return photos[:: max(1, len(photos) // most)][:most]


def _in_int8(
    ws: Workspace, table: pd.DataFrame, trained: TrainedModel, whole: Bundle, parity_photos: Sequence[Path]
) -> Bundle:
    train = training.photo_paths(manifest.used(table, "train"), ws.raw)
    some = _evenly(train, CALIBRATION_PHOTOS)
    before = Classifier(whole)
    graph = quantization.quantize(whole.graph, some, before.load)
    after = Classifier(whole, graph=graph)
    rows = {split: manifest.used(table, split) for split in SPLITS}
    outputs = {
        split: packaging.outputs_of(after, training.photo_paths(rows[split], ws.raw), f"int8 on {split} photos")
        for split in SPLITS
    }
    evaluation = assess(
        trained.record.settings.model,
        trained,
        rows,
        {split: found.logits for split, found in outputs.items()},
        {split: found.unfamiliarity for split, found in outputs.items()},
        {},
    )
    graph = quantization.with_temperature(graph, evaluation.temperature)
    facts = {
        "temperature": evaluation.temperature,
        "thresholds": evaluation.thresholds,
        "certificate": evaluation.risk_bound,
        "metrics": packaging.described(
            {name: evaluation.metrics["test"][name] for name in evaluation.metric_values("test")}
        ),
        "card": model_card.facts(whole.description.classes, whole.description.data.source, evaluation.summary()),
    }
    return packaging.repackage(whole, graph, facts, parity_photos, ws.bundle)
