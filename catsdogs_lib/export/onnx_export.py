"""ONNX export: the graph that serving runs, with raw logits, probabilities, unfamiliarity and activation map."""

from typing import Any

import numpy as np
import onnx
import torch

from catsdogs_lib.inference.classifier import ACTIVATION_MAP, LOGITS, PROBABILITIES, UNFAMILIARITY
from catsdogs_lib.training.checkpoint import TrainedModel
from catsdogs_lib.training.feature_extractor import to_onnx
from catsdogs_lib.training.models import Network


class ServingNetwork(torch.nn.Module):
    """A network with all outputs that serving needs."""

    def __init__(self, network: Network, temperature: float, maps: bool) -> None:
        super().__init__()
        self.network, self.temperature, self.maps = network, temperature, maps

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute logits, probabilities, unfamiliarity and, if the network has one, the activation map."""
        network = self.network
        maps = network.maps(image) if self.maps else None
        features = network.backbone(image) if maps is None else maps.mean((2, 3))
        logits = network.head(features)
        outputs = logits, torch.softmax(logits / self.temperature, dim=1), network.unfamiliarity(features)
        if maps is None:
            return outputs
        # Class activation maps (Zhou et al., 2016): the head applied at each position instead of to their mean.
        return *outputs, torch.nn.functional.conv2d(maps, network.head.weight[:, :, None, None])


def export(trained: TrainedModel, temperature: float) -> bytes:
    """Export a trained model as one ONNX file.

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
    graph = to_onnx(
        ServingNetwork(network, temperature, maps).eval(),
        size,
        [LOGITS, PROBABILITIES, UNFAMILIARITY, *([ACTIVATION_MAP] if maps else [])],
    ).model_proto
    _strip(graph)
    if trained.record.settings.weights == "fp16":
        _store_as_fp16(graph)
    onnx.checker.check_model(graph)
    return bytes(graph.SerializeToString())


def _strip(graph: Any) -> None:
    """Remove the exporter's metadata: stack traces with paths of this machine do not belong in a bundle."""
    del graph.metadata_props[:]
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.graph.input, *graph.graph.output, *graph.graph.value_info, *graph.graph.initializer):
        del value.metadata_props[:]


def _store_as_fp16(graph: Any) -> None:
    casts = []
    for initializer in graph.graph.initializer:
        values = onnx.numpy_helper.to_array(initializer)
        if values.dtype != np.float32 or values.ndim < 2:
            continue
        half = values.astype(np.float16)
        if np.array_equal(half.astype(np.float32), values):
            name = initializer.name
            initializer.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.fp16"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}.fp16"], [name], to=onnx.TensorProto.FLOAT))
    for cast in reversed(casts):
        graph.graph.node.insert(0, cast)
