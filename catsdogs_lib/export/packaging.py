"""The bundle: an exported graph with its description and golden answers."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catsdogs_lib.common import files
from catsdogs_lib.export import model_card
from catsdogs_lib.export.parity import drawn_picture
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.inference.description import Data, Description, Golden, Graph, Metric, Parity, RiskBound, Thresholds
from catsdogs_lib.training.checkpoint import TrainedModel

GOLDEN_PICTURES = (("cat", 1), ("cat", 2), ("dog", 1), ("dog", 2))
"""Kind and seed of each drawn picture with a golden answer."""


@dataclass(frozen=True)
class Provenance:
    """Data, code and MLflow run that a bundle's model comes from.

    Attributes
    ----------
    source, data_hash, photos
        Name of the data, its digest, and the number of photos used in each split.
    git_commit, mlflow_run
        Commit of the code, and the run with parameters and metrics.
    """

    source: str
    data_hash: str
    photos: dict[str, int]
    git_commit: str
    mlflow_run: str


def describe(
    trained: TrainedModel, graph: bytes, evaluation: Mapping[str, Any], provenance: Provenance, int8: bool = False
) -> Description:
    """Describe an exported model; `write_bundle` adds parity and golden answers.

    Parameters
    ----------
    trained
        The model.
    graph
        The ONNX file.
    evaluation
        The model's entry in ``evaluation/metrics.json``: temperature and thresholds, chosen on validation photos, and
        metrics of test photos.
    provenance
        Where the model comes from.
    int8
        The graph is quantized.
    """
    record = trained.record
    return Description(
        model=record.settings.model,
        classes=record.classes,
        graph=Graph(
            sha256=files.sha256_bytes(graph),
            bytes=len(graph),
            weights="int8" if int8 else record.settings.weights,
        ),
        preprocessing=record.preprocessing,
        temperature=evaluation["temperature"],
        thresholds=Thresholds(**evaluation["thresholds"]),
        certificate=RiskBound(**evaluation["certificate"]),
        explanation="activation map" if trained.network.has_maps(record.preprocessing.size) else "occlusion",
        metrics={name: Metric(**value) for name, value in evaluation["test"].items() if value["value"] is not None},
        parity=Parity(photos=0, max_difference=0.0),
        golden=(),
        card=model_card.facts(record.classes, provenance.source, evaluation),
        data=Data(source=provenance.source, sha256=provenance.data_hash, photos=provenance.photos),
        training=record.settings.model_dump(),
        git_commit=provenance.git_commit,
        mlflow_run=provenance.mlflow_run,
        created=datetime.now(UTC).replace(microsecond=0),
        weights_licence=record.weights_licence,
    )


def classifier_of(description: Description, graph: bytes) -> Classifier:
    """Load a graph with its description, before there is a bundle on disk."""
    return Classifier(Bundle(Path(), description), graph=graph)


def write_bundle(folder: Path, description: Description, graph: bytes, parity: Parity) -> Bundle:
    """Write a bundle with its parity and golden answers; `folder` is replaced as a whole, or left as it was."""
    classifier = classifier_of(description, graph)
    golden = tuple(_golden_answer(classifier, kind, seed) for kind, seed in GOLDEN_PICTURES)
    return Bundle.write(folder, description.model_copy(update={"parity": parity, "golden": golden}), graph)


def _golden_answer(classifier: Classifier, kind: str, seed: int) -> Golden:
    picture = drawn_picture(kind, seed)
    probabilities = classifier.predict(picture).probabilities
    return Golden(name=f"{kind}-{seed}", png=base64.b64encode(picture).decode(), probabilities=probabilities)
