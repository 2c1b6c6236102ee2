"""Registered models: versions with their bundles, the gate's verdict, and the champion's alias."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnx
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from catsdogs_lib.common.class_names import canonical_classes
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import INPUT, LOGITS, PROBABILITIES
from catsdogs_lib.registry.tracking import TrackingError

CHAMPION = "champion"
BUNDLE_FOLDER, MONITORING_FOLDER = "bundle", "monitoring"
TRAINING_PHOTOS_FILE, REFERENCE_FILE = "learned-photos.txt", f"{MONITORING_FOLDER}/reference.jsonl"
NOT_FOUND_CODES = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's error codes for an unknown name, and for an unknown alias."""


def registered_name(slug: str, classes: Sequence[str]) -> str:
    """Return the name in the registry: one for each data source and set of classes.

    A model that was registered when ``cat`` and ``dog`` were ``cats`` and ``dogs`` keeps its name.
    """
    names = canonical_classes(classes)
    words = [re.sub(r"\W+", "-", word.lower()).strip("-") or "x" for word in (slug, *names)]
    # No word holds two hyphens in a row, so other sets of classes have other names.
    name = "--".join(["catsdogs", *words])[:200]
    former = name.replace("--cat--dog", "--cats--dogs")
    if names == ("cat", "dog") and mlflow.MlflowClient().search_registered_models(f"name = '{former}'"):
        return former
    return name


def register(bundle: Bundle, name: str) -> ModelVersion:
    """Log a bundle and its model, with a signature, in the active run, and register the model under `name`."""
    description = bundle.description
    mlflow.log_artifacts(str(bundle.folder), BUNDLE_FOLDER)
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
        # Listed here, because MLflow would load the model in another process to infer them.
        pip_requirements=["onnxruntime", "onnx", "numpy"],
        metadata={"bundle_version": bundle.version, "classes": list(description.classes)},
        save_as_external_data=False,
    )
    client, number = mlflow.MlflowClient(), str(info.registered_model_version)
    client.set_model_version_tag(name, number, "bundle_version", bundle.version)
    client.set_model_version_tag(name, number, "data", description.data.sha256[:12])
    return client.get_model_version(name, number)


def version_of(name: str, bundle_version: str) -> ModelVersion | None:
    """Return the latest registered version made from a bundle; None if there is none."""
    versions = [
        version
        for version in mlflow.MlflowClient().search_model_versions(f"name = '{name}'")
        if version.tags.get("bundle_version") == bundle_version
    ]
    return max(versions, key=lambda version: int(version.version), default=None)


def champion(name: str) -> ModelVersion | None:
    """Return the version that the alias `CHAMPION` points at; None if there is none."""
    try:
        return mlflow.MlflowClient().get_model_version_by_alias(name, CHAMPION)
    except mlflow.MlflowException as error:
        if error.error_code not in NOT_FOUND_CODES:
            raise TrackingError(f"the registry cannot be read ({str(error).splitlines()[0]}); run it again") from None
        return None


def promote(version: ModelVersion) -> None:
    """Point the alias `CHAMPION` at a version."""
    mlflow.MlflowClient().set_registered_model_alias(version.name, CHAMPION, version.version)


def champion_bundle(version: ModelVersion, folder: Path) -> Bundle:
    """Fetch the bundle that a registered version was made from, into `folder`."""
    return Bundle.load(Path(mlflow.MlflowClient().download_artifacts(str(version.run_id), BUNDLE_FOLDER, str(folder))))


def log_verdict(version: ModelVersion, sentence: str, checks: dict[str, Any], force: str = "") -> None:
    """Store the gate's verdict on a version: the sentence as its tag, every check in its run."""
    client = mlflow.MlflowClient()
    client.set_model_version_tag(version.name, version.version, "gate", sentence[:5000])
    if force:
        client.set_model_version_tag(version.name, version.version, "gate_overruled", force[:5000])
    client.log_dict(str(version.run_id), {"sentence": sentence, "checks": checks}, "gate.json")


def log_training_photos(rows: pd.DataFrame) -> None:
    """Log the SHA-256 of the photos that the active run's model was trained on; later gates leave them out."""
    mlflow.log_text("\n".join(sorted(rows["sha256"])) + "\n", TRAINING_PHOTOS_FILE)


def training_photos(version: ModelVersion, folder: Path) -> set[str]:
    """Return the SHA-256 of the photos that a registered version was trained on; none if its run has no list."""
    path = _fetch(str(version.run_id), TRAINING_PHOTOS_FILE, folder)
    return set(path.read_text().split()) if path else set()


def log_reference(path: Path) -> None:
    """Log the records of validation photos in the active run, for monitoring to compare with."""
    mlflow.log_artifact(str(path), MONITORING_FOLDER)


def reference_records(name: str, number: str, folder: Path) -> Path | None:
    """Fetch the validation records of a registered version into `folder`; None if its run has none."""
    return _fetch(str(mlflow.MlflowClient().get_model_version(name, number).run_id), REFERENCE_FILE, folder)


def _fetch(run_id: str, path: str, folder: Path) -> Path | None:
    client, parent = mlflow.MlflowClient(), str(Path(path).parent)
    if path not in {item.path for item in client.list_artifacts(run_id, None if parent == "." else parent)}:
        return None
    return Path(client.download_artifacts(run_id, path, str(folder)))
