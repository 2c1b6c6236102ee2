"""From a trained model to a bundle: export, parity, golden answers, the description."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from catsdogs_lib.common import files
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.common.progress import track
from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.evaluation.calibration import softmax
from catsdogs_lib.evaluation.metrics import Interval
from catsdogs_lib.inference.bundle import (
    Bundle,
    Card,
    Data,
    Description,
    Golden,
    Graph,
    Metric,
    Parity,
    RiskBound,
    Thresholds,
)
from catsdogs_lib.inference.classifier import ACTIVATION_MAP, LOGITS, PROBABILITIES, UNFAMILIARITY, Classifier, Outputs
from catsdogs_lib.training.checkpoint import TrainedModel
from catsdogs_lib.training.feature_extractor import to_onnx
from catsdogs_lib.training.models import Network

PARITY_TOLERANCE = 1e-3
PARITY_PHOTOS = 128
"""Photos that torch and ONNX are compared on; drawn ones fill up where there are too few."""
GOLDEN = (("cat", 1), ("cat", 2), ("dog", 1), ("dog", 2))
GOLDEN_SIDE = 160


class ParityError(CatsdogsError):
    """The exported graph answers otherwise than the trained model."""


@dataclass(frozen=True)
class Facts:
    """What a bundle says that was found out before packaging.

    Attributes
    ----------
    temperature, thresholds, certificate
        Chosen on validation photos.
    metrics
        Measured on test photos.
    source, data_hash, photos
        Name of the data, its digest, and the photos used in each split.
    card
        What whoever uses the model should know.
    git_commit, mlflow_run
        Where code and figures can be found again.
    """

    temperature: float
    thresholds: Thresholds
    certificate: RiskBound
    metrics: dict[str, Interval]
    source: str
    data_hash: str
    photos: dict[str, int]
    card: Card
    git_commit: str
    mlflow_run: str


class _Serving(nn.Module):
    """The network with all that serving wants to know beside its raw logits."""

    def __init__(self, network: Network, temperature: float, maps: bool) -> None:
        super().__init__()
        self.network, self.temperature, self.maps = network, temperature, maps

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        network = self.network
        maps = network.maps(image) if self.maps else None
        features = network.backbone(image) if maps is None else maps.mean((2, 3))
        logits = network.head(features)
        found = logits, torch.softmax(logits / self.temperature, dim=1), network.unfamiliarity(features)
        if maps is None:
            return found
        # Class activation maps (Zhou et al., 2016): the head at each place instead of at their mean.
        return *found, nn.functional.conv2d(maps, network.head.weight[:, :, None, None])


def export(trained: TrainedModel, temperature: float) -> bytes:
    """Export as one ONNX file.

    Parameters
    ----------
    trained
        In eval mode, on the CPU.
    temperature
        Applied in the graph.

    Returns
    -------
    bytes
        Input ``image`` float32 (N, 3, H, W); outputs ``logits`` and ``probabilities`` float32 (N, C),
        ``unfamiliarity`` float32 (N,), and ``activation_map`` float32 (N, C, h, w) where the network has one.
        Matrices that are exactly representable in fp16 are stored so and cast when the graph is loaded.
    """
    size = trained.record.preprocessing.size
    network = trained.network.to(memory_format=torch.contiguous_format)
    maps = network.has_maps(size)
    program = to_onnx(
        _Serving(network, temperature, maps).eval(),
        size,
        [LOGITS, PROBABILITIES, UNFAMILIARITY, *([ACTIVATION_MAP] if maps else [])],
    )
    graph = program.model_proto
    _strip(graph)
    if trained.record.settings.weights == "fp16":
        _store_as_fp16(graph)
    onnx.checker.check_model(graph)
    data: bytes = graph.SerializeToString()
    return data


def _strip(graph: Any) -> None:
    """Drop the exporter's notes: stack traces with paths of this machine have no place in a bundle."""
    del graph.metadata_props[:]
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.graph.input, *graph.graph.output, *graph.graph.value_info, *graph.graph.initializer):
        del value.metadata_props[:]


def _store_as_fp16(graph: Any) -> None:
    casts = []
    for initializer in graph.graph.initializer:
        values = numpy_helper.to_array(initializer)
        if values.dtype != np.float32 or values.ndim < 2:
            continue
        half = values.astype(np.float16)
        if np.array_equal(half.astype(np.float32), values):
            name = initializer.name
            initializer.CopyFrom(numpy_helper.from_array(half, f"{name}.fp16"))
            casts.append(helper.make_node("Cast", [f"{name}.fp16"], [name], to=TensorProto.FLOAT))
    for cast in reversed(casts):
        graph.graph.node.insert(0, cast)


def package(trained: TrainedModel, facts: Facts, parity_photos: Sequence[Path], folder: Path) -> Bundle:
    """Write the bundle of a trained model, after checking that it answers like the model itself.

    Parameters
    ----------
    trained
        The model.
    facts
        What else the description says.
    parity_photos
        Real photos to compare torch and ONNX on; drawn ones are added up to `PARITY_PHOTOS`.
    folder
        Replaced as a whole, or left as it was.

    Raises
    ------
    ParityError
        A probability differs by more than `PARITY_TOLERANCE`.
    """
    graph = export(trained, facts.temperature)
    record = trained.record
    description = Description(
        model=record.settings.model,
        classes=record.classes,
        graph=Graph(sha256=files.sha256_bytes(graph), bytes=len(graph), weights=record.settings.weights),
        preprocessing=record.preprocessing,
        temperature=facts.temperature,
        thresholds=facts.thresholds,
        certificate=facts.certificate,
        explanation="activation map" if trained.network.has_maps(record.preprocessing.size) else "occlusion",
        metrics=described(facts.metrics),
        parity=Parity(photos=0, max_difference=0.0),
        golden=(),
        card=facts.card,
        data=Data(source=facts.source, sha256=facts.data_hash, photos=facts.photos),
        training=record.settings.model_dump(),
        git_commit=facts.git_commit,
        mlflow_run=facts.mlflow_run,
        created=datetime.now(UTC).replace(microsecond=0),
        weights_licence=record.weights_licence,
    )
    classifier = Classifier(Bundle(folder, description), graph=graph)
    filled = description.model_copy(
        update={
            "parity": parity(trained, classifier, facts.temperature, parity_photos),
            "golden": tuple(_golden(classifier, kind, seed) for kind, seed in GOLDEN),
        }
    )
    return Bundle.write(folder, filled, graph)


def described(figures: Mapping[str, Interval]) -> dict[str, Metric]:
    """Figures as a description holds them."""
    return {name: Metric(value=one.value, low=one.low, high=one.high) for name, one in figures.items()}


def repackage(
    whole: Bundle, graph: bytes, facts: Mapping[str, Any], parity_photos: Sequence[Path], folder: Path
) -> Bundle:
    """Write the bundle of a graph that was quantised.

    Parameters
    ----------
    whole
        The bundle that it was made of.
    graph
        The graph in int8.
    facts
        Fields of the description that it has otherwise.
    parity_photos
        To say by how much its probabilities differ, at most.
    folder
        Replaced as a whole, or left as it was.
    """
    description = whole.description.model_copy(
        update={**facts, "graph": Graph(sha256=files.sha256_bytes(graph), bytes=len(graph), weights="int8")}
    )
    before, after = Classifier(whole), Classifier(Bundle(whole.folder, description), graph=graph)
    sources = _and_drawn(parity_photos)
    found = [outputs_of(one, sources, "comparing with the whole graph").probabilities for one in (before, after)]
    difference = whole.description.parity.max_difference + float(np.abs(found[0] - found[1]).max())
    filled = description.model_copy(
        update={
            "parity": Parity(photos=len(sources), max_difference=difference),
            "golden": tuple(_golden(after, kind, seed) for kind, seed in GOLDEN),
        }
    )
    return Bundle.write(folder, filled, graph)


def outputs_of(classifier: Classifier, sources: Sequence[Path | bytes], what: str) -> Outputs:
    """What a graph gives for N photos, one at a time as in serving, with a bar named `what`; without maps."""
    parts = [classifier.run([classifier.load(source)])[:3] for source in track(sources, what)]
    logits, probabilities, unfamiliarity = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Outputs(logits, probabilities, unfamiliarity, None)


def parity(trained: TrainedModel, classifier: Classifier, temperature: float, photos: Sequence[Path]) -> Parity:
    """Compare the probabilities and the unfamiliarity of torch and ONNX Runtime photo by photo.

    Raises
    ------
    ParityError
        They differ by more than `PARITY_TOLERANCE`.
    """
    sources = _and_drawn(photos)
    found = outputs_of(classifier, sources, "checking parity of ONNX")
    features = trained.features(sources, what="checking parity of torch")
    expected = softmax(trained.logits(features), temperature)
    difference = float(np.abs(found.probabilities - expected).max())
    distance = found.unfamiliarity - trained.unfamiliarity(features)
    worst = max(difference, float(np.abs(distance).max()))
    if not worst <= PARITY_TOLERANCE:
        raise ParityError(
            f"the exported graph differs from the trained model by {worst:.2g} in a probability or the unfamiliarity "
            f"({PARITY_TOLERANCE:g} allowed); check that every layer of '{trained.record.settings.model}' exports"
        )
    return Parity(photos=len(sources), max_difference=difference)


def _and_drawn(photos: Sequence[Path]) -> list[Path | bytes]:
    """Photos, and drawn pictures where they are fewer than `PARITY_PHOTOS`."""
    drawn = [_png(kind, 1000 + seed) for seed in range(PARITY_PHOTOS) for kind in ("cat", "dog")]
    return [*photos, *drawn[: max(0, PARITY_PHOTOS - len(photos))]]


def _golden(classifier: Classifier, kind: str, seed: int) -> Golden:
    png = _png(kind, seed)
    probabilities = classifier.predict(png).probabilities
    return Golden(name=f"{kind}-{seed}", png=base64.b64encode(png).decode(), probabilities=probabilities)


def _png(kind: str, seed: int) -> bytes:
    stream = io.BytesIO()
    draw(kind, seed, (GOLDEN_SIDE, GOLDEN_SIDE)).save(stream, "PNG", optimize=True)
    return stream.getvalue()
