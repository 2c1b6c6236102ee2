"""A trained model on disk: its weights, and the record of its training."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from catsdogs_lib.common import errors, files, progress
from catsdogs_lib.imaging.preprocessing import Preprocessing
from catsdogs_lib.training import feature_extractor
from catsdogs_lib.training.dataset import PhotoDataset, batches
from catsdogs_lib.training.models import Network, build
from catsdogs_lib.training.settings import TrainingSettings

WEIGHTS_FILE = "model.safetensors"
RECORD_FILE = "training.json"


class TrainedModelError(errors.CatsdogsError):
    """A trained model cannot be read."""


@dataclass(frozen=True)
class Epoch:
    """Metrics after one epoch: mean losses in nats, accuracy 0..1, wall-clock seconds.

    Epoch 0 is the head on frozen features; it has no training loss where fine-tuning starts from it.
    """

    epoch: int
    train_loss: float | None
    val_loss: float
    val_accuracy: float
    seconds: float


@dataclass(frozen=True)
class TrainingRecord:
    """Settings, data and metrics of a training.

    `best_epoch` is the one whose weights were kept (lowest validation loss); `data_hash` identifies photos,
    labels and split; `seconds` is wall-clock time, without the gap between a kill and the resumed run.
    """

    settings: TrainingSettings
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    weights_licence: str
    data_hash: str
    history: tuple[Epoch, ...]
    best_epoch: int
    seconds: float
    precision: str

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values for a JSON file."""
        return {**asdict(self), "settings": self.settings.model_dump()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "TrainingRecord":
        """Build a record from the values of `to_json`."""
        preprocessing = value["preprocessing"]
        return cls(
            **{
                **value,
                "settings": TrainingSettings(**value["settings"]),
                "classes": tuple(value["classes"]),
                "preprocessing": Preprocessing(
                    preprocessing["size"], tuple(preprocessing["mean"]), tuple(preprocessing["std"])
                ),
                "history": tuple(Epoch(**epoch) for epoch in value["history"]),
            }
        )


@dataclass(frozen=True)
class TrainedModel:
    """A network with trained weights, on the CPU in float32, and its record."""

    network: Network
    record: TrainingRecord

    def save(self, folder: Path) -> None:
        """Write both files; `folder` appears whole or not at all."""
        fp16 = self.record.settings.weights == "fp16"
        state = {
            # Matrices were rounded when training ended, so this loses nothing.
            name: (value.half() if fp16 and value.ndim >= 2 else value).contiguous()
            for name, value in self.network.state_dict().items()
        }
        with files.replacing(folder) as partial:
            partial.mkdir()
            save_file(state, partial / WEIGHTS_FILE)
            files.write_json(partial / RECORD_FILE, self.record.to_json())

    @classmethod
    def load(cls, folder: Path) -> "TrainedModel":
        """Load a model that `save` wrote.

        Raises
        ------
        TrainedModelError
            Not there, or not readable.
        """
        try:
            record = TrainingRecord.from_json(files.read_json(folder / RECORD_FILE))
            network = build(record.settings.model, len(record.classes), pretrained=False).network
            state = {
                name: value.float() if value.is_floating_point() else value
                for name, value in load_file(folder / WEIGHTS_FILE).items()
            }
            network.prototypes = torch.empty_like(state["prototypes"])
            network.load_state_dict(state)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise TrainedModelError(f"no trained model in {folder} ({error}); run notebook 03_train first") from None
        return cls(network.eval(), record)

    def features(
        self, paths: Sequence[Path | bytes], batch_size: int = 32, what: str = "predicting"
    ) -> NDArray[np.float32]:
        """Compute features of photos in float32, as in serving: float32 (photos, features)."""
        photos = PhotoDataset(paths, [0] * len(paths), self.record.preprocessing)
        return network_outputs(self.network.backbone, photos, batch_size, what)

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute logits of features: float32 (photos, classes)."""
        with torch.inference_mode():
            return np.asarray(self.network.head(torch.from_numpy(features)).numpy())

    def unfamiliarity(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the cosine distance of features to the nearest prototype: float32 (photos,), 0..2."""
        with torch.inference_mode():
            return self.network.unfamiliarity(torch.from_numpy(features)).numpy()


def network_outputs(
    network: torch.nn.Module, photos: PhotoDataset, batch_size: int, label: str, precision: str = "fp32"
) -> NDArray[np.float32]:
    """Run photos without augmentation through a network: float32 (photos, outputs)."""
    forward = feature_extractor.prepare(
        network, photos.preprocessing.size, feature_extractor.resolve(precision, len(photos))
    )
    loader = batches(photos, batch_size)
    return np.concatenate([forward(images) for images, _ in progress.track(loader, label, total=len(loader))])
