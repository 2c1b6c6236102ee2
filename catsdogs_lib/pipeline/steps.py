"""What each notebook does, as functions on a workspace: fetch, prepare, train, evaluate, package."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from catsdogs_lib.common import files
from catsdogs_lib.common.git import git_commit
from catsdogs_lib.data import manifest, sources
from catsdogs_lib.evaluation import gate
from catsdogs_lib.evaluation.metrics import Interval
from catsdogs_lib.evaluation.report import SPLITS, Evaluation, assess
from catsdogs_lib.export import model_card, packaging, quantization
from catsdogs_lib.inference.bundle import Bundle, RiskBound, Thresholds
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.monitoring import records
from catsdogs_lib.pipeline.workspace import Workspace, project_root
from catsdogs_lib.registry import promotion, tracking
from catsdogs_lib.training import trainer as training
from catsdogs_lib.training.checkpoint import Epoch, TrainedModel
from catsdogs_lib.training.settings import TrainingSettings, baseline_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CALIBRATION_PHOTOS = 200
"""Of training, to see what values occur in a network that is quantised."""
DEMO_PER_CLASS = 60
"""Drawn pictures of each kind in the demo: enough to see everything, soon done."""


def fetch(ws: Workspace, source: str, per_class: int = 300, seed: int = 0) -> sources.Fetched:
    """Bring the photos of `source` into the workspace; see `sources.fetch`."""
    ws.sweep()
    fetched = sources.fetch(source, ws.raw, downloads=ws.downloads, per_class=per_class, seed=seed)
    files.write_json(ws.source, asdict(fetched))
    return fetched


def prepare(ws: Workspace, settings: manifest.PrepareSettings | None = None) -> pd.DataFrame:
    """Check all photos and write the manifest; photos of an earlier manifest keep their split."""
    if ws.demo and not ws.source.exists():
        fetch(ws, "sample", DEMO_PER_CLASS)
    ws.sweep()
    settings = settings or manifest.PrepareSettings()
    raw = ws.need(ws.raw, "01_explore")
    key = manifest.split_key(settings)
    previous = None
    if ws.manifest.exists() and ws.summary.exists() and files.read_json(ws.summary)["split_key"] == key:
        previous = manifest.read_manifest(ws.manifest)
    table = manifest.build_manifest(raw, settings, previous)
    if previous is None:
        # Without its summary a manifest is no ledger: a kill between the two writes cannot mix two splits.
        ws.summary.unlink(missing_ok=True)
    manifest.write_manifest(table, ws.manifest)
    used = manifest.used(table)
    files.write_json(
        ws.summary,
        {
            "split_key": key,
            "data_hash": manifest.data_hash(table),
            "files": len(table),
            "used": len(used),
            "excluded": len(table) - len(used),
            "photos": {str(split): int(count) for split, count in used["split"].value_counts().sort_index().items()},
        },
    )
    return table


def read_manifest(ws: Workspace) -> pd.DataFrame:
    """The manifest; the demo makes it when it is missing."""
    if ws.demo and not ws.summary.exists():
        return prepare(ws)
    return manifest.read_manifest(ws.need(ws.manifest, "02_prepare"))


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
    runs: dict[str, str] = {}
    for one in settings:
        runs[one.model] = _train_one(ws, places, table, one, models)
    files.write_json(ws.runs, {"candidate": candidate.model, "runs": runs})
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
    return {name: TrainedModel.load(ws.trained / name) for name in _runs(ws)["runs"]}


def _runs(ws: Workspace) -> dict[str, Any]:
    runs: dict[str, Any] = files.read_json(ws.need(ws.runs, "03_train"))
    return runs


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
        files.write_json(partial / ws.figures.name, {"candidate": evaluations[0].name, "models": summary})
    tracking.connect(ws.tracking_uri, ws.artifacts)
    for one in evaluations:
        with tracking.run(one.name, _runs(ws)["runs"][one.name]):
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


def log_plots(ws: Workspace, model: str, figures: "dict[str, Figure]") -> None:
    """Keep figures in the MLflow run of a model."""
    tracking.connect(ws.tracking_uri, ws.artifacts)
    with tracking.run(model, _runs(ws)["runs"][model]):
        tracking.log_figures(figures)


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
    if ws.demo and not ws.figures.exists():
        evaluate(ws)
    summary = files.read_json(ws.need(ws.figures, "04_evaluate"))
    name = summary["candidate"]
    figures, run_id = summary["models"][name], _runs(ws)["runs"][name]
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
        "certificate": evaluation.certificate,
        "metrics": packaging.described({name: evaluation.figures["test"][name] for name in evaluation.defined("test")}),
        "card": model_card.facts(whole.description.classes, whole.description.data.source, evaluation.summary()),
    }
    return packaging.repackage(whole, graph, facts, parity_photos, ws.bundle)
