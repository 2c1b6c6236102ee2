"""What each notebook does, as functions on a workspace: fetch, prepare, train, evaluate, package."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catsdogs_lib import card, champions, files, packaging, tracking
from catsdogs_lib.bundle import Bundle, Certificate, Doubt, Metric, Slice, Thresholds
from catsdogs_lib.classifier import Classifier
from catsdogs_lib.data import manifest, sources
from catsdogs_lib.evaluation import calibration, gate, metrics, risk, slices
from catsdogs_lib.evaluation.metrics import Interval
from catsdogs_lib.lineage import git_commit
from catsdogs_lib.monitoring import records
from catsdogs_lib.training import train as training
from catsdogs_lib.training.settings import TrainingSettings, baseline_settings
from catsdogs_lib.training.trained import Epoch, TrainedModel
from catsdogs_lib.workspace import Workspace, project_root

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEMO_PER_CLASS = 60
"""Drawn pictures of each kind in the demo: enough to see everything, soon done."""
MOVING = ("val", "test")
"""The splits that a model is measured on."""


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
    places = training.Places(ws.raw, ws.features, ws.checkpoints)
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
    ws: Workspace, places: training.Places, table: pd.DataFrame, settings: TrainingSettings, models: list[TrainedModel]
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


@dataclass(frozen=True)
class Evaluation:
    """One model, measured.

    Attributes
    ----------
    name
        Of the model.
    trained
        The model.
    temperature, thresholds, certificate
        Chosen on validation photos; see `evaluation.risk`.
    rows
        For ``val`` and ``test``: the manifest's rows.
    labels, probabilities, features, unfamiliarity
        For each of them: int64 (N,), calibrated float64 (N, C), float32 (N, F) and float32 (N,).
    figures
        For each of them: every metric with its interval.
    calibrated_ece
        What the ECE of a perfectly calibrated model with these test confidences stays below in 95 of 100 cases.
    """

    name: str
    trained: TrainedModel
    temperature: float
    thresholds: Thresholds
    certificate: Certificate
    rows: dict[str, pd.DataFrame]
    labels: dict[str, NDArray[np.int64]]
    probabilities: dict[str, NDArray[np.float64]]
    features: dict[str, NDArray[np.float32]]
    unfamiliarity: dict[str, NDArray[np.float32]]
    figures: dict[str, dict[str, Interval]]
    calibrated_ece: float

    def doubt(self) -> Doubt:
        """How doubt works out on the test photos."""
        table, truth = self.probabilities["test"], self.labels["test"]
        unfamiliar = self.unfamiliarity["test"] > self.thresholds.unfamiliar
        confident = ~unfamiliar & (table.max(axis=1) >= self.thresholds.confident)
        wrong = int((table.argmax(axis=1) != truth)[confident].sum())
        return Doubt(
            unsure=1 - float(confident.mean()),
            unfamiliar=float(unfamiliar.mean()),
            confident_accuracy=1 - wrong / max(1, int(confident.sum())),
            confident=int(confident.sum()),
            confident_wrong=wrong,
        )

    def weakest(self, count: int = 5) -> list[Slice]:
        """The slices of test photos with the lowest accuracy."""
        table = slices.slice_table(self.rows["test"], self.probabilities["test"], self.labels["test"])
        return [
            Slice(
                name=f"{row['slice']} {row['value']}",
                photos=row["photos"],
                accuracy=Metric(value=row["accuracy"], low=row["accuracy_low"], high=row["accuracy_high"]),
                worse=row["worse"],
            )
            for row in table.sort_values("accuracy", kind="stable").head(count).to_dict("records")
        ]

    def summary(self) -> dict[str, Any]:
        """Plain values for a JSON file; figures that are not defined are null."""
        return {
            "temperature": self.temperature,
            "thresholds": self.thresholds.model_dump(),
            "certificate": self.certificate.model_dump(),
            "doubt": self.doubt().model_dump(),
            "slices": [part.model_dump() for part in self.weakest()],
            "calibrated_ece": self.calibrated_ece,
            "epochs": len(self.trained.record.history) - 1 if self.trained.record.history[0].epoch == 0
            else len(self.trained.record.history),
            "best_epoch": self.trained.record.best_epoch,
            **{
                split: {name: {part: _plain(number) for part, number in asdict(interval).items()}
                        for name, interval in values.items()}
                for split, values in self.figures.items()
            },
        }  # fmt: skip


def _plain(number: float) -> float | None:
    return None if math.isnan(number) else number


def evaluate(ws: Workspace) -> list[Evaluation]:
    """Measure every trained model on validation and test photos and write the figures; the candidate comes first."""
    ws.sweep()
    table = read_manifest(ws)
    evaluations = [_evaluate_one(ws, table, name, trained) for name, trained in trained_models(ws).items()]
    with files.replacing(ws.evaluation) as partial:
        partial.mkdir()
        for one in evaluations:
            _predictions(one).to_csv(partial / f"predictions-{one.name}.csv", index=False, lineterminator="\n")
        summary = {one.name: one.summary() for one in evaluations}
        files.write_json(partial / ws.figures.name, {"candidate": evaluations[0].name, "models": summary})
    tracking.connect(ws.tracking_uri, ws.artifacts)
    for one in evaluations:
        with tracking.run(one.name, _runs(ws)["runs"][one.name]):
            tracking.log_data(one.rows["test"], "test", manifest.data_hash(table), ("test",))
            tracking.log_test({**_flat(one.figures["test"]), "temperature": one.temperature})
    return evaluations


def _evaluate_one(ws: Workspace, table: pd.DataFrame, name: str, trained: TrainedModel) -> Evaluation:
    classes = trained.record.classes
    rows = {split: manifest.used(table, split) for split in MOVING}
    labels = {split: training.label_indices(rows[split], classes) for split in MOVING}
    features = {
        split: trained.features(training.photo_paths(rows[split], ws.raw), what=f"{name} on {split} photos")
        for split in MOVING
    }
    logits = {split: trained.logits(found) for split, found in features.items()}
    unfamiliarity = {split: trained.unfamiliarity(found) for split, found in features.items()}
    temperature = calibration.fit_temperature(logits["val"], labels["val"])
    probabilities = {split: calibration.softmax(logits[split], temperature) for split in MOVING}
    thresholds, certificate = risk.choose_thresholds(probabilities["val"], labels["val"], unfamiliarity["val"])
    return Evaluation(
        name=name,
        trained=trained,
        temperature=temperature,
        thresholds=thresholds,
        certificate=certificate,
        rows=rows,
        labels=labels,
        probabilities=probabilities,
        features=features,
        unfamiliarity=unfamiliarity,
        figures={split: metrics.with_intervals(probabilities[split], labels[split]) for split in MOVING},
        calibrated_ece=metrics.calibrated_ece_quantile(probabilities["test"]),
    )


def _flat(values: dict[str, Interval]) -> dict[str, float]:
    return {name: interval.value for name, interval in values.items() if not math.isnan(interval.value)}


def _predictions(one: Evaluation) -> pd.DataFrame:
    parts = []
    for split in MOVING:
        part = one.rows[split][["path", "split", "label"]].reset_index(drop=True)
        for index, label in enumerate(one.trained.record.classes):
            part[f"p_{label}"] = one.probabilities[split][:, index].round(6)
        part["unfamiliarity"] = one.unfamiliarity[split].round(6)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def log_figures(ws: Workspace, model: str, figures: "dict[str, Figure]") -> None:
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


def package(ws: Workspace) -> Packaged:
    """Write the candidate's bundle, register it, and move the champion's alias if the gate lets it."""
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
        certificate=Certificate(**figures["certificate"]),
        metrics={key: Interval(**value) for key, value in figures["test"].items() if value["value"] is not None},
        source=fetched["slug"],
        data_hash=manifest.data_hash(table),
        card=card.facts(trained[name].record.classes, fetched["slug"], figures),
        photos=files.read_json(ws.summary)["photos"],
        git_commit=git_commit(project_root()),
        mlflow_run=run_id,
    )
    test = training.photo_paths(manifest.used(table, "test"), ws.raw)
    # Taken evenly over the list, so that every class is there.
    photos = test[:: max(1, len(test) // packaging.PARITY_PHOTOS)][: packaging.PARITY_PHOTOS]
    bundle = packaging.package(trained[name], facts, photos, ws.bundle)
    tracking.connect(ws.tracking_uri, ws.artifacts)
    registered = tracking.registered_name(fetched["slug"], bundle.description.classes)
    with tracking.run(name, run_id):
        tracking.log_learned_photos(manifest.used(table, "train"))
        champion = tracking.champion(registered)
        version = tracking.register(bundle, registered)
        verdict = champions.judge(ws, table, bundle, champion)
        champions.settle(version, verdict)
        val = manifest.used(table, "val")
        made = records.make(
            Classifier(bundle), training.photo_paths(val, ws.raw), val["label"].tolist(), "records of validation photos"
        )
        records.write(made, ws.reference)
        tracking.log_reference(ws.reference)
    return Packaged(bundle, registered, str(version.version), verdict)
