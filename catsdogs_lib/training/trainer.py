"""From the manifest's photos to a trained model, by whichever method the settings name."""

import copy
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catsdogs_lib.common import files
from catsdogs_lib.common.class_names import canonical_class, canonical_classes
from catsdogs_lib.data import manifest
from catsdogs_lib.imaging.decoding import Preprocessing
from catsdogs_lib.training import distributed, feature_extractor, loop, precision
from catsdogs_lib.training.checkpoint import Epoch, TrainedModel, TrainingRecord, network_outputs
from catsdogs_lib.training.dataset import Augmentation, PhotoDataset
from catsdogs_lib.training.distillation import Teacher
from catsdogs_lib.training.features import FeatureCache
from catsdogs_lib.training.head import fit_head
from catsdogs_lib.training.loop import Fit, OnEpoch
from catsdogs_lib.training.models import ModelSpec, build, interpolate_weights, round_to_fp16
from catsdogs_lib.training.prototypes import prototypes
from catsdogs_lib.training.settings import TrainingSettings


@dataclass(frozen=True)
class TrainingPaths:
    """Where training reads and keeps things.

    Attributes
    ----------
    raw
        Folder that the manifest's paths start from.
    features
        Cache of features; may be shared by all runs.
    checkpoints
        What killed runs go on from; may be shared by all runs.
    """

    raw: Path
    features: Path
    checkpoints: Path


def photo_paths(rows: pd.DataFrame, raw: Path) -> list[Path]:
    """Where the photos of manifest rows lie."""
    return [raw / path for path in rows["path"]]


def label_indices(rows: pd.DataFrame, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Labels of manifest rows as int64 (photos,), positions in `classes`."""
    positions = {name: index for index, name in enumerate(canonical_classes(classes))}
    return np.array([positions[canonical_class(label, classes)] for label in rows["label"]], dtype=np.int64)


def train(
    table: pd.DataFrame, places: TrainingPaths, settings: TrainingSettings, on_epoch: OnEpoch | None = None
) -> TrainedModel:
    """Train a model on the manifest's train photos, choosing the best epoch on its validation photos.

    Parameters
    ----------
    table
        The manifest. Test photos are not touched.
    places
        Where to read and keep things.
    settings
        How to train.
    on_epoch
        Called after each epoch.

    Returns
    -------
    TrainedModel
        Its matrices already rounded to fp16, where the settings store them so.
    """
    begin = time.monotonic()
    precision.deterministic(settings.seed)
    material = _Material.of(table, places, settings)
    built, teacher = _build(settings, material), None
    if settings.teacher is not None:
        teacher = _build(settings.teacher, material)
        _learn(teacher, settings.teacher, material)
    pretrained = copy.deepcopy(built.network.backbone.state_dict())
    fitted = _learn(built, settings, material, on_epoch, teacher)
    before = sum(epoch.seconds for epoch in fitted.history)
    if settings.weight_interpolation < 1:
        interpolate_weights(built.network.backbone, pretrained, settings.weight_interpolation)
    if settings.weights == "fp16":
        round_to_fp16(built.network)
    with distributed.first_one_then_all():
        built.network.prototypes = prototypes(_train_features(built, settings, material))
    record = TrainingRecord(
        settings=settings,
        classes=material.classes,
        preprocessing=built.preprocessing,
        weights_licence=built.licence,
        data_hash=material.data_hash,
        history=fitted.history,
        best_epoch=fitted.best_epoch,
        # A run that went on after a kill counts the epochs done before it, too.
        seconds=round(max(time.monotonic() - begin, before), 1),
        precision=material.looking if settings.method == "frozen" else precision.resolve(settings.precision),
    )
    return TrainedModel(built.network.to("cpu").eval(), record)


def forget_checkpoint(places: TrainingPaths, record: TrainingRecord) -> None:
    """Remove what a finished run no longer needs; call it when the trained model is safely on disk."""
    for settings in (record.settings, record.settings.teacher):
        if settings is not None:
            files.remove(_checkpoint(places, settings, record.data_hash))


def _checkpoint(places: TrainingPaths, settings: TrainingSettings, data_hash: str) -> Path:
    return places.checkpoints / files.digest([settings.model_dump(), data_hash])[:16]


@dataclass(frozen=True)
class _Material:
    """What there is to learn from: manifest rows of train and val, and how frozen features are computed."""

    rows: dict[str, pd.DataFrame]
    classes: tuple[str, ...]
    data_hash: str
    places: TrainingPaths
    looking: str

    @classmethod
    def of(cls, table: pd.DataFrame, places: TrainingPaths, settings: TrainingSettings) -> "_Material":
        rows = {split: manifest.used(table, split) for split in ("train", "val")}
        # By all of them, so that any part of them is found in the cache.
        looking = feature_extractor.resolve(settings.precision, sum(map(len, rows.values())))
        return cls(rows, manifest.classes(table), manifest.data_hash(table), places, looking)

    def photos(self, split: str, preprocessing: Preprocessing, how: TrainingSettings, varied: bool) -> PhotoDataset:
        rows = self.rows[split]
        augmentation = Augmentation(how.crop_scale, how.jitter) if varied else None
        labels = label_indices(rows, self.classes).tolist()
        return PhotoDataset(photo_paths(rows, self.places.raw), labels, preprocessing, augmentation, how.seed)


def _build(settings: TrainingSettings, material: _Material) -> ModelSpec:
    """The network of the settings, for pictures of their size."""
    built = build(settings.model, len(material.classes))
    if not settings.size:
        return built
    return replace(built, preprocessing=replace(built.preprocessing, size=settings.size))


def _learn(
    built: ModelSpec,
    settings: TrainingSettings,
    material: _Material,
    on_epoch: OnEpoch | None = None,
    teacher: ModelSpec | None = None,
) -> Fit:
    """Train the network in place."""
    if settings.method != "scratch":
        with distributed.first_one_then_all():
            first = _frozen(built, settings, material)
        if settings.method == "frozen":
            if on_epoch is not None:
                on_epoch(first)
            return Fit((first,), 0)
    return loop.fit(
        built.network,
        material.photos("train", (teacher or built).preprocessing, settings, varied=True),
        material.photos("val", built.preprocessing, settings, varied=False),
        settings,
        _checkpoint(material.places, settings, material.data_hash),
        on_epoch,
        Teacher(teacher.network, built.preprocessing.size) if teacher else None,
    )


def _frozen(built: ModelSpec, settings: TrainingSettings, material: _Material) -> Epoch:
    """Fit the head on cached features; its figures as epoch 0."""
    begin = time.monotonic()
    cache = FeatureCache(material.places.features, built, material.looking)
    both = pd.concat([material.rows["train"], material.rows["val"]])
    features = cache.get(photo_paths(both, material.places.raw), both["sha256"].tolist())
    labels = label_indices(both, material.classes)
    count = len(material.rows["train"])
    fit_head(features[:count], labels[:count], settings, built.network.head)
    losses = [_cross_entropy(built, features[part, 0], labels[part]) for part in (slice(0, count), slice(count, None))]
    return Epoch(0, losses[0][0], *losses[1], time.monotonic() - begin)


def _train_features(built: ModelSpec, settings: TrainingSettings, material: _Material) -> NDArray[np.float32]:
    """Features of train photos, (photos, features): of the cache where the backbone is as it came, else computed."""
    rows = material.rows["train"]
    if settings.method == "frozen":
        cache = FeatureCache(material.places.features, built, material.looking)
        return cache.get(photo_paths(rows, material.places.raw), rows["sha256"].tolist())[:, 0]
    photos = material.photos("train", built.preprocessing, settings, varied=False)
    return network_outputs(built.network.backbone, photos, settings.batch_size, "looking back", settings.precision)


def _cross_entropy(built: ModelSpec, features: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy of the head on features."""
    head = built.network.head
    logits = features.astype(np.float64) @ head.weight.detach().double().numpy().T + head.bias.detach().double().numpy()
    return loop.cross_entropy(logits, labels)
