"""Inference during training: torch for few photos, ONNX Runtime for many on a CPU.

On two cores with bf16, torch ran 36 photos a second in eager float32 and 97 in bf16; ONNX Runtime ran 190 in float32.
The export takes some seconds, so few photos stay with torch.
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

from catsdogs_lib.training.precision import autocast, device, resolve_precision

MIN_PHOTOS_FOR_ONNX = 256
"""Minimum number of photos at which ONNX export pays off."""

ONNX_RUNTIME = "fp32, ONNX Runtime"
INPUT = "image"
"""Input of the exported graph."""
Forward = Callable[[Tensor], NDArray[np.float32]]


def resolve(precision: str, photos: int) -> str:
    """Choose runtime and precision for a number of photos: `ONNX_RUNTIME`, or torch in ``fp32`` or ``bf16``.

    Parameters
    ----------
    precision
        ``fp32``, ``bf16``, or ``auto``: the fastest on this machine that is no coarser than bf16.
    photos
        Number of photos.
    """
    if not torch.cuda.is_available() and precision != "bf16" and photos >= MIN_PHOTOS_FOR_ONNX:
        return ONNX_RUNTIME
    return resolve_precision(precision)


def prepare(network: nn.Module, size: int, resolved: str) -> Forward:
    """Prepare a network for inference.

    Parameters
    ----------
    network
        Left in eval mode.
    size
        Height and width of its input, pixels.
    resolved
        As `resolve` chose it.

    Returns
    -------
    callable
        Maps float32 (N, 3, H, W), anywhere, to float32 (N, outputs).
    """
    if resolved == ONNX_RUNTIME:
        return _in_onnx_runtime(network, size)
    target = device()
    network_on_device = network.to(target, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def run(images: Tensor) -> NDArray[np.float32]:
        with torch.inference_mode(), autocast(resolved):
            inputs = images.to(target, non_blocking=True).contiguous(memory_format=torch.channels_last)
            return np.asarray(network_on_device(inputs).float().cpu().numpy())

    return run


def _in_onnx_runtime(network: nn.Module, size: int) -> Forward:
    # A copy: the network may be in training, in the memory order that suits that.
    network = copy.deepcopy(network).to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    options = ort.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    # Threads that spin between batches would take cores from the processes that read photos.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    graph = to_onnx(network, size, ["outputs"]).model_proto.SerializeToString()
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> NDArray[np.float32]:
        return np.asarray(session.run(None, {INPUT: images.contiguous().numpy()})[0])

    return run


def to_onnx(network: nn.Module, size: int, outputs: list[str]) -> Any:
    """Export a network on the CPU, with the input ``image`` float32 (N, 3, size, size), as torch's `ONNXProgram`.

    Constants are folded so that the runtime can fuse layers. Batch norm is left to the runtime, which folds it when it
    loads the graph: folded here, the weights would no longer be exact in fp16.
    """
    with _quiet("torch.onnx"), warnings.catch_warnings():
        # The exporter uses deprecated internals of torch, which we cannot change.
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            network,
            # Two photos: with one, the exporter would treat the batch size as a constant.
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
