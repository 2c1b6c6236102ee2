"""The network of a bundle, given to its rivals: weights for timm, a traced graph, and the settings beside them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import timm
import torch
from onnx import numpy_helper

from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier

NETWORK = "tf_efficientnet_lite0"
SAME = 1e-3
"""On the same input both networks may differ by so much in a probability."""


def write(bundle: Bundle, folder: Path) -> None:
    """Take the weights out of a bundle's graph; what runs them says the same on the golden pictures."""
    graph = onnx.load_from_string(bundle.graph).graph
    stored = {tensor.name.removesuffix(".fp16"): numpy_helper.to_array(tensor) for tensor in graph.initializer}
    description = bundle.description
    network: Any = timm.create_model(NETWORK, num_classes=len(description.classes))
    state = {}
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = value
            continue
        inside = f"network.head.{name[11:]}" if name.startswith("classifier.") else f"network.backbone.{name}"
        state[name] = torch.from_numpy(np.array(stored[inside], dtype=np.float32))
    network.load_state_dict(state)
    _check(network.eval(), bundle)
    torch.save(state, folder / "weights.pt")
    shape = description.preprocessing
    with torch.inference_mode():
        traced: Any = torch.jit.trace(network, torch.zeros(1, 3, shape.size, shape.size))
        torch.jit.save(torch.jit.freeze(traced), folder / "traced.pt")
    settings = {
        "network": NETWORK,
        "classes": description.classes,
        "temperature": description.temperature,
        "size": shape.size,
        "mean": shape.mean,
        "std": shape.std,
    }
    (folder / "settings.json").write_text(json.dumps(settings))


def _check(network: torch.nn.Module, bundle: Bundle) -> None:
    classifier, worst = Classifier(bundle), 0.0
    for golden in bundle.description.golden:
        with torch.inference_mode():
            logits = network(torch.from_numpy(classifier.load(golden.data))[None]) / bundle.description.temperature
            probabilities = torch.softmax(logits, dim=1)[0].tolist()
        worst = max(worst, *(abs(a - b) for a, b in zip(probabilities, golden.probabilities.values(), strict=True)))
    print(f"the same network: on the same input a probability differs by at most {worst:.1e}")
    if worst > SAME:
        raise SystemExit("it is not the same network")
