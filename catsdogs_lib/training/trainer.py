"""Training, step by step: data, features, head, epochs, and the finished model."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catsdogs_lib.common import class_names, files
from catsdogs_lib.data import manifest
from catsdogs_lib.imaging.preprocessing import Preprocessing
from catsdogs_lib.training import distillation, distributed, feature_extractor, head, loop, precision
from catsdogs_lib.training.checkpoint import Epoch, TrainedModel, TrainingRecord, network_outputs
from catsdogs_lib.training.dataset import Augmentation, PhotoDataset
from catsdogs_lib.training.features import FeatureCache
from catsdogs_lib.training.models import ModelSpec, build, interpolate_weights, round_to_fp16
from catsdogs_lib.training.prototypes import prototypes
from catsdogs_lib.training.settings import TrainingSettings

Features = dict[str, NDArray[np.float32]]
"""Features of the ``train`` and ``val`` photos and of their mirror images, float32 (photos, 2, features) each."""


@dataclass(frozen=True)
class TrainingPaths:
    """Folders that training reads and writes.

    Attributes
    ----------
    raw
        Folder that the manifest's paths start from.
    features
        Cache of features; may be shared by all runs.
    checkpoints
        Checkpoints for resuming training; may be shared by all runs.
    """

    raw: Path
    features: Path
    checkpoints: Path


@dataclass(frozen=True)
class TrainingData:
    """The train and validation photos of a manifest, by split.

    Attributes
    ----------
    rows
        Manifest rows of ``train`` and ``val``.
    classes
        Class names in the order of the outputs.
    data_hash
        Identifies photos, labels and splits.
    paths
        Folders to read and write.
    """

    rows: dict[str, pd.DataFrame]
    classes: tuple[str, ...]
    data_hash: str
    paths: TrainingPaths

    def labels(self, split: str) -> NDArray[np.int64]:
        """Return the labels of a split, int64 (photos,)."""
        return label_indices(self.rows[split], self.classes)

    def dataset(
        self, split: str, preprocessing: Preprocessing, settings: TrainingSettings, augmented: bool = False
    ) -> PhotoDataset:
        """Return the photos of a split as model input."""
        augmentation = Augmentation(settings.crop_scale, settings.jitter) if augmented else None
        paths = photo_paths(self.rows[split], self.paths.raw)
        return PhotoDataset(paths, self.labels(split).tolist(), preprocessing, augmentation, settings.seed)

    def feature_precision(self, settings: TrainingSettings) -> str:
        """Return the runtime and precision for features, chosen by the number of all photos.

        The cache keeps features of each precision apart: a part of the photos must be found where all were stored.
        """
        return feature_extractor.resolve(settings.precision, sum(map(len, self.rows.values())))

    def checkpoint(self, settings: TrainingSettings) -> Path:
        """Return the folder for checkpoints of these settings on this data."""
        return self.paths.checkpoints / files.digest([settings.model_dump(), self.data_hash])[:16]

    def run_file(self, settings: TrainingSettings) -> Path:
        """Return the file that names the MLflow run of an unfinished training; see `registry.tracking.run`."""
        return self.checkpoint(settings).with_suffix(".run.json")

    def forget_checkpoint(self, settings: TrainingSettings) -> None:
        """Remove checkpoints of a finished training; call it once the trained model is safely on disk."""
        self.run_file(settings).unlink(missing_ok=True)
        for finished in (settings, settings.teacher):
            if finished is not None:
                files.remove(self.checkpoint(finished))


def prepare_data(table: pd.DataFrame, paths: TrainingPaths) -> TrainingData:
    """Select the train and validation photos of a manifest. Test photos are left out."""
    rows = {split: manifest.used(table, split) for split in ("train", "val")}
    return TrainingData(rows, manifest.classes(table), manifest.data_hash(table), paths)


def photo_paths(rows: pd.DataFrame, raw: Path) -> list[Path]:
    """Return the paths of photos in manifest rows."""
    return [raw / path for path in rows["path"]]


def label_indices(rows: pd.DataFrame, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the labels of manifest rows as positions in `classes`, int64 (photos,)."""
    positions = {name: index for index, name in enumerate(class_names.canonical_classes(classes))}
    return np.array([positions[class_names.canonical_class(label, classes)] for label in rows["label"]], dtype=np.int64)


def train(
    table: pd.DataFrame, paths: TrainingPaths, settings: TrainingSettings, on_epoch: loop.OnEpoch | None = None
) -> TrainedModel:
    """Train a model on the manifest's train photos, choosing the best epoch on its validation photos.

    Parameters
    ----------
    table
        The manifest. Test photos are not touched.
    paths
        Folders to read and write.
    settings
        Model, method and hyperparameters.
    on_epoch
        Called after each epoch.

    Returns
    -------
    TrainedModel
        With its matrices rounded to fp16 if the settings store them in fp16.
    """
    begin = time.monotonic()
    data = prepare_data(table, paths)
    spec = build_model(settings, data.classes)
    teacher = train_teacher(settings, data)
    fit = fit_model(spec, data, settings, on_epoch, teacher)
    return finish(spec, data, settings, fit, time.monotonic() - begin)


def build_model(settings: TrainingSettings, classes: tuple[str, ...]) -> ModelSpec:
    """Seed torch and build the network that the settings name, for their input size."""
    precision.deterministic(settings.seed)
    spec = build(settings.model, len(classes))
    if not settings.size:
        return spec
    return replace(spec, preprocessing=replace(spec.preprocessing, size=settings.size))


def train_teacher(settings: TrainingSettings, data: TrainingData) -> ModelSpec | None:
    """Train the teacher for distillation; None if the settings have none."""
    if settings.teacher is None:
        return None
    spec = build_model(settings.teacher, data.classes)
    fit_model(spec, data, settings.teacher)
    return spec


def fit_model(
    spec: ModelSpec,
    data: TrainingData,
    settings: TrainingSettings,
    on_epoch: loop.OnEpoch | None = None,
    teacher: ModelSpec | None = None,
) -> loop.Fit:
    """Train a network in place: its head on frozen features, then all of it, as far as the method goes."""
    if settings.method == "scratch":
        return fit_network(spec, data, settings, on_epoch)
    begin = time.monotonic()
    with distributed.main_process_first():
        features = extract_features(spec, data, settings)
        head.fit_head(features["train"], data.labels("train"), settings, spec.network.head)
    if settings.method == "finetune":
        return fit_network(spec, data, settings, on_epoch, teacher)
    epoch = measure_head(spec, features, data, time.monotonic() - begin)
    if on_epoch is not None:
        on_epoch(epoch)
    return loop.Fit((epoch,), 0)


def extract_features(spec: ModelSpec, data: TrainingData, settings: TrainingSettings) -> Features:
    """Run train and validation photos through the pretrained backbone, or read their features from the cache."""
    rows = pd.concat(data.rows.values())
    cache = FeatureCache(data.paths.features, spec, data.feature_precision(settings))
    features = cache.get(photo_paths(rows, data.paths.raw), rows["sha256"].tolist())
    count = len(data.rows["train"])
    return {"train": features[:count], "val": features[count:]}


def measure_head(spec: ModelSpec, features: Features, data: TrainingData, seconds: float) -> Epoch:
    """Measure a head on the features that it was fitted on, and on those of validation photos, as epoch 0."""
    weight, bias = (value.detach().double().numpy() for value in (spec.network.head.weight, spec.network.head.bias))
    metrics = {
        split: loop.cross_entropy(values[:, 0].astype(np.float64) @ weight.T + bias, data.labels(split))
        for split, values in features.items()
    }
    return Epoch(0, metrics["train"][0], *metrics["val"], seconds)


def fit_network(
    spec: ModelSpec,
    data: TrainingData,
    settings: TrainingSettings,
    on_epoch: loop.OnEpoch | None = None,
    teacher: ModelSpec | None = None,
) -> loop.Fit:
    """Train the whole network in place, epoch by epoch, going on from its checkpoint; see `loop.fit`.

    With a teacher the network learns the teacher's probabilities instead of labels.
    """
    return loop.fit(
        spec.network,
        data.dataset("train", (teacher or spec).preprocessing, settings, augmented=True),
        data.dataset("val", spec.preprocessing, settings),
        settings,
        data.checkpoint(settings),
        on_epoch,
        distillation.Teacher(teacher.network, spec.preprocessing.size) if teacher else None,
    )


def finish(
    spec: ModelSpec, data: TrainingData, settings: TrainingSettings, fit: loop.Fit, seconds: float
) -> TrainedModel:
    """Make a trained model of a fitted network: interpolate and round its weights, and add prototypes.

    Parameters
    ----------
    spec
        The network, with the weights of its best epoch; changed in place.
    data, settings, fit
        What it was trained on, how, and with what metrics.
    seconds
        Wall-clock time of training.
    """
    network = spec.network
    if settings.weight_interpolation < 1:
        pretrained = build(settings.model, len(data.classes)).network.backbone.state_dict()
        interpolate_weights(network.backbone, pretrained, settings.weight_interpolation)
    if settings.weights == "fp16":
        round_to_fp16(network)
    with distributed.main_process_first():
        network.prototypes = prototypes(_train_features(spec, data, settings))
    frozen = settings.method == "frozen"
    record = TrainingRecord(
        settings=settings,
        classes=data.classes,
        preprocessing=spec.preprocessing,
        weights_licence=spec.licence,
        data_hash=data.data_hash,
        history=fit.history,
        best_epoch=fit.best_epoch,
        # A resumed run also counts the epochs done before it was killed.
        seconds=round(max(seconds, sum(epoch.seconds for epoch in fit.history)), 1),
        precision=data.feature_precision(settings) if frozen else precision.resolve_precision(settings.precision),
    )
    return TrainedModel(network.to("cpu").eval(), record)


def _train_features(spec: ModelSpec, data: TrainingData, settings: TrainingSettings) -> NDArray[np.float32]:
    """Return features of train photos, (photos, features): cached if the backbone is frozen, else computed."""
    if settings.method == "frozen":
        return extract_features(spec, data, settings)["train"][:, 0]
    photos = data.dataset("train", spec.preprocessing, settings)
    return network_outputs(
        spec.network.backbone, photos, settings.batch_size, "features for prototypes", settings.precision
    )
