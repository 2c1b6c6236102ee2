"""From the manifest's photos to a trained model, by whichever method the settings name."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catsdogs_lib import files
from catsdogs_lib.data import manifest
from catsdogs_lib.training import arithmetic, forward, loop, processes
from catsdogs_lib.training.features import FeatureCache
from catsdogs_lib.training.head import fit_head
from catsdogs_lib.training.loop import OnEpoch
from catsdogs_lib.training.models import Built, build, round_to_fp16
from catsdogs_lib.training.photos import Augmentation, Photos
from catsdogs_lib.training.prototypes import prototypes
from catsdogs_lib.training.settings import TrainingSettings
from catsdogs_lib.training.trained import Epoch, Record, TrainedModel, network_outputs


@dataclass(frozen=True)
class Places:
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
    positions = {name: index for index, name in enumerate(classes)}
    return np.array([positions[label] for label in rows["label"]], dtype=np.int64)


def train(
    table: pd.DataFrame, places: Places, settings: TrainingSettings, on_epoch: OnEpoch | None = None
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
    arithmetic.deterministic(settings.seed)
    classes = manifest.classes(table)
    rows = {split: manifest.used(table, split) for split in ("train", "val")}
    built = build(settings.model, len(classes))
    if settings.size:
        built = replace(built, preprocessing=replace(built.preprocessing, size=settings.size))
    # By all of them, so that any part of them is found in the cache.
    looking = forward.resolve(settings.precision, sum(map(len, rows.values())))
    data_hash = manifest.data_hash(table)
    checkpoint = places.checkpoints / files.digest([settings.model_dump(), data_hash])[:16]

    history: tuple[Epoch, ...] = ()
    best, before = 0, 0.0
    if settings.method != "scratch":
        with processes.first_one_then_all():
            history = (_frozen(built, rows, classes, places, settings, looking),)
    if settings.method != "frozen":
        train_photos, val_photos = (
            Photos(photo_paths(rows[split], places.raw), label_indices(rows[split], classes).tolist(),
                   built.preprocessing, augmentation, settings.seed)
            for split, augmentation in (("train", Augmentation(settings.crop_scale, settings.jitter)), ("val", None))
        )  # fmt: skip
        fitted = loop.fit(built.network, train_photos, val_photos, settings, checkpoint, on_epoch)
        history, best = fitted.history, fitted.best_epoch
        before = sum(epoch.seconds for epoch in history)
    elif on_epoch is not None:
        on_epoch(history[0])
    if settings.weights == "fp16":
        round_to_fp16(built.network)
    with processes.first_one_then_all():
        built.network.prototypes = prototypes(_train_features(built, rows["train"], places, settings, looking))
    record = Record(
        settings=settings,
        classes=classes,
        preprocessing=built.preprocessing,
        weights_licence=built.licence,
        data_hash=data_hash,
        history=history,
        best_epoch=best,
        # A run that went on after a kill counts the epochs done before it, too.
        seconds=round(max(time.monotonic() - begin, before), 1),
        precision=looking if settings.method == "frozen" else arithmetic.resolve(settings.precision),
    )
    return TrainedModel(built.network.to("cpu").eval(), record)


def forget_checkpoint(places: Places, record: Record) -> None:
    """Remove what a finished run no longer needs; call it when the trained model is safely on disk."""
    files.remove(places.checkpoints / files.digest([record.settings.model_dump(), record.data_hash])[:16])


def _frozen(
    built: Built,
    rows: dict[str, pd.DataFrame],
    classes: tuple[str, ...],
    places: Places,
    settings: TrainingSettings,
    looking: str,
) -> Epoch:
    """Fit the head on cached features; its figures as epoch 0."""
    begin = time.monotonic()
    cache = FeatureCache(places.features, built, looking)
    both = pd.concat([rows["train"], rows["val"]])
    features = cache.get(photo_paths(both, places.raw), both["sha256"].tolist())
    labels = label_indices(both, classes)
    count = len(rows["train"])
    fit_head(features[:count], labels[:count], settings, built.network.head)
    losses = [_cross_entropy(built, features[part, 0], labels[part]) for part in (slice(0, count), slice(count, None))]
    return Epoch(0, losses[0][0], *losses[1], time.monotonic() - begin)


def _train_features(
    built: Built, train: pd.DataFrame, places: Places, settings: TrainingSettings, looking: str
) -> NDArray[np.float32]:
    """Features of train photos, (photos, features): of the cache where the backbone is as it came, else computed."""
    paths = photo_paths(train, places.raw)
    if settings.method == "frozen":
        return FeatureCache(places.features, built, looking).get(paths, train["sha256"].tolist())[:, 0]
    photos = Photos(paths, [0] * len(paths), built.preprocessing)
    return network_outputs(built.network.backbone, photos, settings.batch_size, "looking back", settings.precision)


def _cross_entropy(built: Built, features: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy of the head on features."""
    head = built.network.head
    logits = features.astype(np.float64) @ head.weight.detach().double().numpy().T + head.bias.detach().double().numpy()
    return loop.cross_entropy(logits, labels)
