"""How a network that only answers is run: torch, or ONNX Runtime where a CPU has many photos to look at.

On two cores with bf16 torch's eager float32 looked at 36 photos a second, its bf16 at 97, ONNX Runtime in float32 at
190. Handing the network over takes some seconds, so that few photos stay with torch.
"""

import contextlib
import copy
import logging
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import onnxscript.optimizer
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from catsdogs_lib.training import precision as arithmetic

MIN_PHOTOS_FOR_ONNX = 256
"""From so many photos on handing over pays."""

ONNX = "fp32, ONNX Runtime"
INPUT = "image"
"""Input of the exported graph."""
Forward = Callable[[Tensor], NDArray[np.float32]]


def resolve(precision: str, photos: int) -> str:
    """Say what so many photos are looked at with: `ONNX`, ``fp32`` or ``bf16``.

    Parameters
    ----------
    precision
        ``fp32``, ``bf16``, or ``auto``: whatever is fast here, and not less than bf16.
    photos
        How many there will be.
    """
    if not torch.cuda.is_available() and precision != "bf16" and photos >= MIN_PHOTOS_FOR_ONNX:
        return ONNX
    return arithmetic.resolve(precision)


def prepare(network: nn.Module, size: int, resolved: str) -> Forward:
    """Get a network ready to look at photos.

    Parameters
    ----------
    network
        Left in eval mode.
    size
        Height and width of its input, pixels.
    resolved
        What `resolve` gave.

    Returns
    -------
    callable
        Maps float32 (N, 3, H, W), anywhere, to float32 (N, outputs).
    """
    if resolved == ONNX:
        return _in_onnx_runtime(network, size)
    device = arithmetic.device()
    placed = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def run(images: Tensor) -> NDArray[np.float32]:
        with torch.inference_mode(), arithmetic.autocast(resolved):
            near = images.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
            found: NDArray[np.float32] = placed(near).float().cpu().numpy()
        return found

    return run


def _in_onnx_runtime(network: nn.Module, size: int) -> Forward:
    # A copy: the network may be in training, in the memory order that suits that.
    network = copy.deepcopy(network).to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    options = ort.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    # Spinning between two batches would take the cores from the processes that read photos.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    graph = to_onnx(network, size, ["outputs"]).model_proto.SerializeToString()
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(None, {INPUT: images.contiguous().numpy()})[0]
        return found

    return run


def to_onnx(network: nn.Module, size: int, outputs: list[str]) -> Any:
    """Export a network on the CPU with the input ``image`` float32 (N, 3, size, size) as torch's `ONNXProgram`.

    Constants are folded, or the runtime could not fuse layers; batch norm is not, since that would be done to rounded
    weights, and the runtime does it when loading.
    """
    with _quiet("torch.onnx"), warnings.catch_warnings():
        # The exporter deprecates its own insides; nothing in them is ours to mend.
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            network,
            # Two photos: with one, the exporter would take the batch for a constant.
            (torch.zeros(2, 3, size, size),),
            input_names=[INPUT],
            output_names=outputs,
            dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    onnxscript.optimizer.fold_constants(program.model)
    onnxscript.optimizer.remove_unused_nodes(program.model)
    return program


@contextlib.contextmanager
def _quiet(name: str) -> Any:
    level = logging.getLogger(name).level
    logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger(name).setLevel(level)
