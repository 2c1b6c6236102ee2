"""MLflow: runs, what is logged, the registry and its alias."""

import contextlib
import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import mlflow.data.pandas_dataset
import mlflow.onnx
import numpy as np
import onnx
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.environment_variables import MLFLOW_TRACKING_URI
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import Schema, TensorSpec
from sqlalchemy.exc import SQLAlchemyError

from catsdogs_lib.common.class_names import canonical_classes
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import INPUT, LOGITS, PROBABILITIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from catsdogs_lib.training.checkpoint import Epoch

EXPERIMENT = "catsdogs"
CHAMPION = "champion"
LEARNED_FILE, REFERENCE_FILE = "learned-photos.txt", "monitoring/reference.jsonl"
MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's codes for a name that is not there, and for an alias that is not there."""


class TrackingError(CatsdogsError):
    """The tracking store cannot be used."""


def connect(uri: str, artifacts: Path) -> None:
    """Use a tracking store and make the experiment in it, once.

    Parameters
    ----------
    uri
        ``sqlite:///...`` or a server's address.
    artifacts
        Where artifacts of a SQLite store lie; a server has its own place.

    Raises
    ------
    TrackingError
        The store cannot be reached.
    """
    # Progress bars, links and advice of MLflow's own would fill the notebooks' reports and what commands print.
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.utils.environment"):
        logging.getLogger(name).setLevel(logging.WARNING)
    local = uri.startswith("sqlite:")
    if local:
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    named = os.environ.get(MLFLOW_TRACKING_URI.name)
    try:
        mlflow.set_tracking_uri(uri)
        if named is None:
            # MLflow puts the address into the environment, where the next workspace would take it for a wish.
            os.environ.pop(MLFLOW_TRACKING_URI.name, None)
        if mlflow.get_experiment_by_name(EXPERIMENT) is None:
            mlflow.create_experiment(EXPERIMENT, artifact_location=artifacts.resolve().as_uri() if local else None)
        mlflow.set_experiment(EXPERIMENT)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        first = str(error).splitlines()[0]
        raise TrackingError(f"MLflow at {uri} cannot be used ({first}); check MLFLOW_TRACKING_URI") from None


@contextlib.contextmanager
def run(name: str, run_id: str | None = None, **tags: str) -> Iterator[str]:
    """Start a run, or go on with `run_id` where the store still knows it; yields its id.

    A block that fails leaves the run marked as failed.
    """
    if run_id is not None and not _known(run_id):
        run_id = None
    with mlflow.start_run(run_id=run_id, run_name=None if run_id else name, tags=tags or None) as active:
        yield active.info.run_id


def _known(run_id: str) -> bool:
    try:
        return bool(MlflowClient().get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException:
        return False


def log_epoch(epoch: "Epoch") -> None:
    """Log the figures of one epoch in the active run."""
    figures = {"val_loss": epoch.val_loss, "val_accuracy": epoch.val_accuracy, "seconds": epoch.seconds}
    if epoch.train_loss is not None:
        figures["train_loss"] = epoch.train_loss
    mlflow.log_metrics(figures, step=epoch.epoch)


def logged_epochs(run_id: str) -> set[int]:
    """The epochs whose figures a run has already: one that went on after a kill must not log them twice."""
    return {metric.step for metric in MlflowClient().get_metric_history(run_id, "val_loss")}


def log_test_metrics(values: dict[str, float]) -> None:
    """Log figures measured on test photos in the active run, as ``test_NAME``."""
    mlflow.log_metrics({f"test_{name}": value for name, value in values.items()})


def log_metrics(values: dict[str, float]) -> None:
    """Log figures in the active run under their own names."""
    mlflow.log_metrics(values)


def log_reference(path: Path) -> None:
    """Keep the records of validation photos in the active run: what monitoring compares with."""
    mlflow.log_artifact(str(path), "monitoring")


def log_parameters(values: dict[str, Any]) -> None:
    """Log parameters in the active run; a run that went on after a kill has them already."""
    client, run_id = MlflowClient(), _active()
    have = client.get_run(run_id).data.params
    mlflow.log_params({name: value for name, value in values.items() if name not in have})


def _active() -> str:
    active = mlflow.active_run()
    if active is None:
        raise TrackingError("no MLflow run is active; log inside 'with tracking.run(...)'")
    return str(active.info.run_id)


def log_figures(figures: dict[str, "Figure"]) -> None:
    """Log matplotlib figures in the active run, as ``figures/NAME.png``."""
    for name, figure in figures.items():
        mlflow.log_figure(figure, f"figures/{name}.png")


def log_table(table: pd.DataFrame, name: str) -> None:
    """Keep a table in the active run, as CSV."""
    mlflow.log_text(table.to_csv(index=False), name)


def log_reports(reports: Sequence[Path]) -> None:
    """Keep HTML reports in the active run, below ``reports``."""
    for report in reports:
        mlflow.log_artifact(str(report), "reports")


def log_data(rows: pd.DataFrame, source: str, digest: str, splits: Sequence[str]) -> None:
    """Log which photos the active run saw, a dataset for each split."""
    columns = ["path", "label", "sha256", "split"]
    for split in splits:
        part = rows.loc[rows["split"] == split, columns].reset_index(drop=True)
        with warnings.catch_warnings():
            # Schema inference warns about integer columns that this table does not have.
            warnings.simplefilter("ignore")
            data = mlflow.data.pandas_dataset.from_pandas(
                part, source=source, name=f"{split}-{digest[:12]}", targets="label"
            )
        mlflow.log_input(data, context={"train": "training", "val": "validation"}.get(split, "testing"))


def registered_name(slug: str, classes: Sequence[str]) -> str:
    """Name in the registry: one for each set of classes and data source.

    A model that was registered when ``cat`` and ``dog`` were ``cats`` and ``dogs`` keeps its name.
    """
    names = canonical_classes(classes)
    words = [re.sub(r"\W+", "-", word.lower()).strip("-") or "x" for word in (slug, *names)]
    # Two hyphens between words that hold no two themselves: other sets of classes get other names.
    name = "--".join(["catsdogs", *words])[:200]
    former = name.replace("--cat--dog", "--cats--dogs")
    if names == ("cat", "dog") and MlflowClient().search_registered_models(f"name = '{former}'"):
        return former
    return name


def champion(name: str) -> ModelVersion | None:
    """The version that the alias `CHAMPION` points at; None where there is none."""
    try:
        return MlflowClient().get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code not in MISSING:
            raise TrackingError(f"the registry cannot be read ({str(error).splitlines()[0]}); run it again") from None
        return None


def champion_bundle(version: ModelVersion, folder: Path) -> Bundle:
    """Fetch the bundle that a registered version was made from, into `folder`."""
    path = mlflow.artifacts.download_artifacts(
        run_id=version.run_id, artifact_path="bundle", dst_path=str(folder), tracking_uri=mlflow.get_tracking_uri()
    )
    return Bundle.load(Path(path))


def register(bundle: Bundle, name: str) -> ModelVersion:
    """Log a bundle and its model (with a signature) in the active run, and register the model under `name`."""
    description = bundle.description
    mlflow.log_artifacts(str(bundle.folder), "bundle")
    side, count = description.preprocessing.size, len(description.classes)
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 3, side, side), INPUT)]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, count), key) for key in (LOGITS, PROBABILITIES)]),
    )
    info = mlflow.onnx.log_model(
        onnx.load_model_from_string(bundle.graph),
        name="model",
        signature=signature,
        registered_model_name=name,
        # Named here: inferring them would load the model in another process.
        pip_requirements=["onnxruntime", "onnx", "numpy"],
        metadata={"bundle_version": bundle.version, "classes": list(description.classes)},
        save_as_external_data=False,
    )
    client, number = MlflowClient(), str(info.registered_model_version)
    client.set_model_version_tag(name, number, "bundle_version", bundle.version)
    client.set_model_version_tag(name, number, "data", description.data.sha256[:12])
    return client.get_model_version(name, number)


def log_learned_photos(rows: pd.DataFrame) -> None:
    """Keep which photos the active run's model has learned from, by their SHA-256: a later gate leaves them out."""
    mlflow.log_text("\n".join(sorted(rows["sha256"])) + "\n", LEARNED_FILE)


def reference_records(name: str, number: str, folder: Path) -> Path | None:
    """Fetch the validation records of a registered version into `folder`; None where its run has none."""
    client = MlflowClient()
    run_id = str(client.get_model_version(name, number).run_id)
    if REFERENCE_FILE not in {one.path for one in client.list_artifacts(run_id, "monitoring")}:
        return None
    return Path(client.download_artifacts(run_id, REFERENCE_FILE, str(folder)))


def learned_photos(version: ModelVersion, folder: Path) -> set[str]:
    """SHA-256 of the photos that a registered version has learned from; none where its run does not say."""
    client = MlflowClient()
    if LEARNED_FILE not in {one.path for one in client.list_artifacts(str(version.run_id))}:
        return set()
    return set(Path(client.download_artifacts(str(version.run_id), LEARNED_FILE, str(folder))).read_text().split())


def log_verdict(version: ModelVersion, sentence: str, checks: dict[str, Any], force: str = "") -> None:
    """Keep what the gate said of a version: the sentence as its tag, every check in its run."""
    client = MlflowClient()
    client.set_model_version_tag(version.name, version.version, "gate", sentence[:5000])
    if force:
        client.set_model_version_tag(version.name, version.version, "gate_overruled", force[:5000])
    client.log_dict(str(version.run_id), {"sentence": sentence, "checks": checks}, "gate.json")


def version_of(name: str, bundle_version: str) -> ModelVersion | None:
    """The latest registered version that was made from a bundle; None where there is none."""
    found = [
        version
        for version in MlflowClient().search_model_versions(f"name = '{name}'")
        if version.tags.get("bundle_version") == bundle_version
    ]
    return max(found, key=lambda version: int(version.version), default=None)


def promote(version: ModelVersion) -> None:
    """Point the alias `CHAMPION` at a version."""
    MlflowClient().set_registered_model_alias(version.name, CHAMPION, version.version)
