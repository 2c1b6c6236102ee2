"""Quantization: a graph in int8 has a quarter of the bytes, and is faster on CPUs with int8 instructions.

Static quantization (Jacob et al., 2018, https://arxiv.org/abs/1712.05877): weights by output channel, activations by
the range of values that training photos give. Weights use seven bits: int8 products overflow on CPUs without VNNI
otherwise, and answers must not depend on the CPU.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.onnx_model import ONNXModel

from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.common.progress import track
from catsdogs_lib.inference.classifier import INPUT, PROBABILITIES

WEIGHTED_OPERATORS = ("Conv", "Gemm", "MatMul")
FLOAT_FIRST_LAYERS = 2
"""Layers at the input that stay in float; in int8 they cost one percentage point of accuracy."""
MIN_INT8_STORED_VALUES = 2**16
"""Minimum size of a matrix that is stored in int8 although its layer computes in float."""

Inputs = NDArray[np.float32]


class QuantizationError(CatsdogsError):
    """A graph cannot be quantized."""


def quantize(graph: bytes, photos: Sequence[Any], load: Callable[[Any], Inputs]) -> bytes:
    """Quantize a graph.

    Parameters
    ----------
    graph
        As `onnx_export.export` makes it.
    photos
        Some hundred training photos, for the range of activations.
    load
        Reads a photo as model input, float32 (3, H, W).

    Returns
    -------
    bytes
        A graph with the same inputs and outputs. Its first two layers and its last ones compute in float.

    Raises
    ------
    QuantizationError
        A weight is not finite; quantization would turn it into an ordinary integer.
    """
    _require_finite_weights(graph)
    with tempfile.TemporaryDirectory() as name:
        folded, small = Path(name) / "folded.onnx", Path(name) / "small.onnx"
        _fold(graph, folded)
        quantize_static(
            folded,
            small,
            _Reader(photos, load),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(WEIGHTED_OPERATORS),
            nodes_to_exclude=_float_layers(ONNXModel(onnx.load(folded))),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        quantized = onnx.load(small)
    _slim(quantized)
    onnx.checker.check_model(quantized)
    return bytes(quantized.SerializeToString())


def with_temperature(graph: bytes, temperature: float) -> bytes:
    """Replace the temperature in a graph, which divides the logits before the softmax."""
    model = ONNXModel(onnx.load_model_from_string(graph))
    producers = model.output_name_to_node()
    division = producers[producers[PROBABILITIES].input[0]]
    divisor = model.get_initializer(division.input[1])
    divisor.CopyFrom(onnx.numpy_helper.from_array(np.array(temperature, np.float32), divisor.name))
    return bytes(model.model.SerializeToString())


def _require_finite_weights(graph: bytes) -> None:
    for initializer in onnx.load_model_from_string(graph).graph.initializer:
        values = onnx.numpy_helper.to_array(initializer)
        if values.ndim >= 2 and values.dtype.kind == "f" and not np.isfinite(values).all():
            raise QuantizationError(
                f"the weights '{initializer.name}' are not all finite numbers; train the model again, with a lower "
                "learning rate"
            )


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, photos: Sequence[Any], load: Callable[[Any], Inputs]) -> None:
        self._inputs: Iterator[Inputs] = (load(photo) for photo in track(photos, "calibrating activations"))

    def get_next(self) -> dict[str, Inputs] | None:
        """Return the next photo as input; None at the end."""
        image = next(self._inputs, None)
        return None if image is None else {INPUT: image[None]}


def _fold(graph: bytes, path: Path) -> None:
    """Fold batch norm and casts into the weights, as the runtime does when it loads a graph."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _float_layers(model: ONNXModel) -> list[str]:
    """Name the first layers, and the last ones, which give the outputs."""
    layers = [node for node in model.nodes() if node.op_type in WEIGHTED_OPERATORS]
    readers = model.input_name_to_nodes()

    def followed(node: Any) -> bool:
        following = [reader for name in node.output for reader in readers.get(name, ())]
        return any(reader.op_type in WEIGHTED_OPERATORS or followed(reader) for reader in following)

    return [node.name for node in layers[:FLOAT_FIRST_LAYERS]] + [
        node.name for node in layers[FLOAT_FIRST_LAYERS:] if not followed(node)
    ]


def _slim(model: Any) -> None:
    """Remove what a graph does not need (metadata, long names, zero points of zero); store matrices in int8."""
    graph = model.graph
    del graph.value_info[:]
    used = {node.domain for node in graph.node} | {""}
    for opset in [opset for opset in model.opset_import if opset.domain not in used]:
        model.opset_import.remove(opset)
    values = {value.name: value for value in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and len(node.input) == 3:
            zero = values[node.input[2]]
            # For int32 and int8, no zero point means 0.
            signed = zero.data_type in (onnx.TensorProto.INT32, onnx.TensorProto.INT8)
            if signed and not onnx.numpy_helper.to_array(zero).any():
                del node.input[2]
    _store_matrices(graph)
    ONNXModel(model).clean_initializers()
    _rename(graph)


def _store_matrices(graph: Any) -> None:
    for initializer in list(graph.initializer):
        values = onnx.numpy_helper.to_array(initializer)
        if values.dtype != np.float32 or values.ndim != 2 or values.size < MIN_INT8_STORED_VALUES:
            continue
        scale = np.maximum(np.abs(values).max(axis=0), np.finfo(np.float32).tiny) / np.float32(127)
        name = initializer.name
        integers = np.rint(values / scale).astype(np.int8)
        initializer.CopyFrom(onnx.numpy_helper.from_array(integers, f"{name}.int8"))
        graph.initializer.append(onnx.numpy_helper.from_array(scale.astype(np.float32), f"{name}.scale"))
        inputs = [f"{name}.int8", f"{name}.scale"]
        graph.node.insert(0, onnx.helper.make_node("DequantizeLinear", inputs, [name], axis=1))


def _rename(graph: Any) -> None:
    fixed = {value.name for value in (*graph.input, *graph.output)}
    names: dict[str, str] = {"": ""}

    def short(name: str) -> str:
        return name if name in fixed else names.setdefault(name, f"{len(names)}")

    for initializer in graph.initializer:
        initializer.name = short(initializer.name)
    for number, node in enumerate(graph.node):
        node.name = f"n{number}"
        node.doc_string = ""
        del node.metadata_props[:]
        for names_of_node in (node.input, node.output):
            names_of_node[:] = [short(name) for name in names_of_node]
