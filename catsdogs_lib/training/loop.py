"""The training loop: epochs with a checkpoint after each, so that a kill loses at most one of them."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy.special import logsumexp
from timm.optim._param_groups import param_groups_layer_decay
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from catsdogs_lib.common import files, progress
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.training import distillation, distributed
from catsdogs_lib.training.checkpoint import Epoch, network_outputs
from catsdogs_lib.training.dataset import PhotoDataset, batches, to_device
from catsdogs_lib.training.models import Network
from catsdogs_lib.training.precision import autocast, deterministic, device, resolve_precision
from catsdogs_lib.training.settings import TrainingSettings

OnEpoch = Callable[[Epoch], None]

STATE_FILE, BEST_FILE, HISTORY_FILE = "state.pt", "best.safetensors", "history.json"


class DivergedError(CatsdogsError):
    """Training has diverged: a loss is not a finite number."""

    def __init__(self, epoch: int) -> None:
        super().__init__(
            f"training has diverged in epoch {epoch}: the loss is not a finite number; lower learning_rate"
        )
        self.epoch = epoch


class Fit(NamedTuple):
    """Metrics of each epoch, and the best one, whose weights the network has."""

    history: tuple[Epoch, ...]
    best_epoch: int


def measure(
    network: nn.Module, photos: PhotoDataset, settings: TrainingSettings, precision: str
) -> tuple[float, float]:
    """Compute the mean cross-entropy in nats and the accuracy (0..1) of a network on photos."""
    logits = network_outputs(network, photos, settings.batch_size, "validation", precision)
    return cross_entropy(logits.astype(np.float64), np.asarray(photos.labels, dtype=np.int64))


def cross_entropy(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Compute the mean cross-entropy in nats and the accuracy (0..1) of logits (N, C)."""
    log_probabilities = logits - logsumexp(logits, axis=1, keepdims=True)
    loss = -log_probabilities[np.arange(len(labels)), labels].mean()
    return float(loss), float((logits.argmax(axis=1) == labels).mean())


def parameter_groups(network: Network, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Group parameters by learning rate: full for the head, times `layer_decay` for each block below it."""
    if settings.method == "scratch":
        return [{"params": list(network.parameters()), "lr": settings.learning_rate}]
    groups = param_groups_layer_decay(network.backbone, settings.weight_decay, layer_decay=settings.layer_decay)
    for group in groups:
        group["lr"] = settings.learning_rate * group.pop("lr_scale") * settings.layer_decay
        group.pop("param_names", None)
    head = {"params": list(network.head.parameters()), "lr": settings.learning_rate}
    return [*groups, {**head, "weight_decay": settings.weight_decay}]


def fit(
    network: Network,
    train: PhotoDataset,
    validation: PhotoDataset,
    settings: TrainingSettings,
    checkpoint: Path,
    on_epoch: OnEpoch | None = None,
    teacher: distillation.Teacher | None = None,
) -> Fit:
    """Train `network` in place and leave it with the weights of its best epoch.

    Parameters
    ----------
    network
        On the CPU; moved to the GPU where there is one and back.
    train, validation
        Photos with and without augmentation.
    settings
        Method and hyperparameters.
    checkpoint
        Folder for checkpoints; no other run may use it.
    on_epoch
        Called after each epoch, also for those read back from the checkpoint.
    teacher
        Gives probabilities to learn instead of labels; `train` then has the teacher's input size.

    Returns
    -------
    Fit

    Raises
    ------
    DivergedError
        A loss is not a finite number.
    """
    run = TrainingRun(network, train, settings, len(batches(train, settings.batch_size)), teacher)
    history = run.resume(checkpoint)
    for epoch in history:
        if on_epoch is not None:
            on_epoch(epoch)

    def validate(number: int, train_loss: float | None, begin: float) -> list[Epoch]:
        # Only the main process validates, writes checkpoints and reports epochs.
        with distributed.main_process_first():
            if distributed.rank() > 0:
                return _history(checkpoint)
            loss, accuracy = measure(run.eval_network, validation, settings, run.precision)
            if not math.isfinite(loss):
                raise DivergedError(number)
            epoch = Epoch(number, train_loss, loss, accuracy, time.monotonic() - begin if number else 0.0)
            return _save_epoch(history, epoch, run, checkpoint, on_epoch)

    if settings.method == "finetune" and not history:
        # Fine-tuning starts from the frozen head and must beat it to be kept.
        history = validate(0, None, 0.0)
    done = history[-1].epoch if history else 0
    for number in range(done + 1, settings.epochs + 1):
        begin = time.monotonic()
        history = validate(number, run.train_epoch(number), begin)
    network.to("cpu")
    network.load_state_dict(load_file(_folder(checkpoint, history[-1]) / BEST_FILE))
    return Fit(tuple(history), _best(history).epoch)


def _folder(checkpoint: Path, epoch: Epoch) -> Path:
    return checkpoint / f"epoch-{epoch.epoch:04d}"


def _history(checkpoint: Path) -> list[Epoch]:
    done = sorted(checkpoint.glob("epoch-*"))
    return [Epoch(**past) for past in files.read_json(done[-1] / HISTORY_FILE)] if done else []


def _best(history: list[Epoch]) -> Epoch:
    return min(history, key=lambda epoch: epoch.val_loss)


def _save_epoch(
    history: list[Epoch], epoch: Epoch, run: "TrainingRun", checkpoint: Path, on_epoch: OnEpoch | None
) -> list[Epoch]:
    """Write the checkpoint of an epoch, whole or not at all, with the weights of the best epoch so far."""
    history = [*history, epoch]
    with files.replacing(_folder(checkpoint, epoch)) as partial:
        partial.mkdir()
        torch.save(run.state(), partial / STATE_FILE)
        if _best(history) is epoch:
            save_file(run.weights(), partial / BEST_FILE)
        else:
            (partial / BEST_FILE).hardlink_to(_folder(checkpoint, history[-2]) / BEST_FILE)
        files.write_json(partial / HISTORY_FILE, [asdict(past) for past in history])
    if len(history) > 1:
        files.remove(_folder(checkpoint, history[-2]))
    if on_epoch is not None:
        on_epoch(epoch)
    return history


class TrainingRun:
    """Optimizer, schedule and averaged weights of one training; `fit` writes its checkpoints."""

    def __init__(
        self,
        network: Network,
        train: PhotoDataset,
        settings: TrainingSettings,
        steps: int,
        teacher: distillation.Teacher | None = None,
    ) -> None:
        self.device = device()
        self.teacher = teacher.to(self.device) if teacher else None
        self.precision = resolve_precision(settings.precision)
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parallel_network = distributed.data_parallel(self.network)
        self.train, self.settings = train, settings
        groups = parameter_groups(network, settings)
        self.optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, [group["lr"] for group in groups], total_steps=max(2, settings.epochs * steps)
        )
        self.averaged: AveragedModel | None = None
        if settings.ema_decay > 0:
            average = get_ema_multi_avg_fn(settings.ema_decay)  # type: ignore[no-untyped-call]
            self.averaged = AveragedModel(self.network, multi_avg_fn=average, use_buffers=False)

    @property
    def eval_network(self) -> nn.Module:
        """The network that is validated and saved: with averaged weights, if the settings average them."""
        return self.averaged.module if self.averaged is not None else self.network

    def train_epoch(self, number: int) -> float:
        """Make one pass over the training photos and return the mean loss in nats."""
        deterministic(self.settings.seed * 10_007 + number)
        self.network.train()
        if self.settings.method == "finetune":
            # Batch norm keeps ImageNet's statistics: those of small batches are worse.
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        self.train.epoch = number
        loader = batches(self.train, self.settings.batch_size, shuffle=True)
        losses: list[Tensor] = []
        label = f"epoch {number} of {self.settings.epochs}"
        left = len(self.train)
        for images, labels in progress.track(to_device(loader, self.device), label, total=len(loader)):
            batch = min(self.settings.batch_size, left)
            left -= batch
            loss = self.step(images, labels, distributed.loss_weight(len(labels), batch))
            losses.append(loss * len(labels) / (1 if len(labels) < batch else distributed.world_size()))
        mean = float(distributed.total(torch.stack(losses).sum()) / len(self.train))
        if not math.isfinite(mean):
            raise DivergedError(number)
        return mean

    def step(self, images: Tensor, labels: Tensor, weight: float = 1.0) -> Tensor:
        """Take one optimizer step, with the loss times `weight`, and return the mean loss in nats on the device."""
        self.optimizer.zero_grad()
        with autocast(self.precision):
            images, expected = self.teacher.soft_targets(images) if self.teacher else (images, labels)
            logits = self.parallel_network(images)
        loss = nn.functional.cross_entropy(logits.float(), expected)
        (loss * weight).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)
        return loss.detach()

    def weights(self) -> dict[str, Tensor]:
        """Return the weights to save, on the CPU."""
        return {name: value.cpu().contiguous() for name, value in self.eval_network.state_dict().items()}

    def state(self) -> dict[str, Any]:
        """Return all that the next epoch needs."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not None else None,
        }

    def resume(self, checkpoint: Path) -> list[Epoch]:
        """Load the checkpoint, if there is one, and return the epochs that are done."""
        with distributed.main_process_first():
            files.sweep(checkpoint)
        history = _history(checkpoint)
        if history:
            file = _folder(checkpoint, history[-1]) / STATE_FILE
            state = torch.load(file, map_location=self.device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            if self.averaged is not None:
                self.averaged.load_state_dict(state["averaged"])
        return history
