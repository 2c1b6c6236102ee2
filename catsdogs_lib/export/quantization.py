"""A graph in int8: a quarter of the bytes, and faster wherever whole numbers are.

Static quantisation (Jacob et al., 2018, https://arxiv.org/abs/1712.05877): weights by output channel, activations by
the least and the largest value that training photos give. Weights keep to seven bits, since the int8 products of CPUs
without VNNI would overflow otherwise, and answers must not depend on the CPU.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from catsdogs_lib.common.progress import track
from catsdogs_lib.inference.classifier import INPUT, PROBABILITIES

WEIGHTED_OPERATORS = ("Conv", "Gemm", "MatMul")
FLOAT_FIRST_LAYERS = 2
"""So many layers at the beginning stay in float: they see the photo itself, and lost 1 point in 100 in int8."""
MIN_INT8_STORED_VALUES = 2**16
"""Matrices of so many numbers that stay in float arithmetic are stored in int8 all the same."""

Inputs = NDArray[np.float32]


def quantize(graph: bytes, photos: Sequence[Any], load: Callable[[Any], Inputs]) -> bytes:
    """Quantise a graph.

    Parameters
    ----------
    graph
        As `packaging.export` makes it.
    photos
        To see what values occur: some hundred of the training photos.
    load
        Reads one as model input, float32 (3, H, W).

    Returns
    -------
    bytes
        With the same inputs and outputs. The layers that give the outputs, and the first two, compute in float.
    """
    with tempfile.TemporaryDirectory() as name:
        folded, small = Path(name) / "folded.onnx", Path(name) / "small.onnx"
        _fold(graph, folded)
        model = onnx.load(folded)
        quantize_static(
            folded,
            small,
            _Reader(photos, load),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(WEIGHTED_OPERATORS),
            nodes_to_exclude=_left_alone(model.graph),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        made = onnx.load(small)
    _slim(made)
    onnx.checker.check_model(made)
    data: bytes = made.SerializeToString()
    return data


def with_temperature(graph: bytes, temperature: float) -> bytes:
    """Put another temperature into a graph: the logits are divided by it before the softmax."""
    model = onnx.load_model_from_string(graph)
    makers = {output: node for node in model.graph.node for output in node.output}
    division = makers[makers[PROBABILITIES].input[0]]
    (found,) = [one for one in model.graph.initializer if one.name == division.input[1]]
    found.CopyFrom(numpy_helper.from_array(np.array(temperature, np.float32), found.name))
    data: bytes = model.SerializeToString()
    return data


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, photos: Sequence[Any], load: Callable[[Any], Inputs]) -> None:
        self._inputs: Iterator[Inputs] = (load(photo) for photo in track(photos, "seeing what values occur"))

    def get_next(self) -> dict[str, Inputs] | None:
        """One photo; None at the end."""
        found = next(self._inputs, None)
        return None if found is None else {INPUT: found[None]}


def _fold(graph: bytes, path: Path) -> None:
    """Fold batch norm and casts into the weights, as the runtime does when it loads a graph."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _left_alone(graph: Any) -> list[str]:
    """The first layers, and those after which there is no other: the answers are theirs."""
    layers = [node for node in graph.node if node.op_type in WEIGHTED_OPERATORS]
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def followed(node: Any) -> bool:
        following = [reader for name in node.output for reader in readers.get(name, ())]
        return any(one.op_type in WEIGHTED_OPERATORS or followed(one) for one in following)

    return [node.name for node in layers[:FLOAT_FIRST_LAYERS]] + [
        node.name for node in layers[FLOAT_FIRST_LAYERS:] if not followed(node)
    ]


def _slim(model: Any) -> None:
    """Drop what a graph can be read without: notes, long names, zero points that are zero; store matrices in int8."""
    graph = model.graph
    del graph.value_info[:]
    used = {node.domain for node in graph.node} | {""}
    kept = [one for one in model.opset_import if one.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    values = {one.name: one for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and len(node.input) == 3:
            zero = values[node.input[2]]
            # For int32 and int8 none means 0.
            signed = zero.data_type in (onnx.TensorProto.INT32, onnx.TensorProto.INT8)
            if signed and not numpy_helper.to_array(zero).any():
                del node.input[2]
    _store_matrices(graph)
    read = {name for node in graph.node for name in node.input}
    remaining = [one for one in graph.initializer if one.name in read]
    del graph.initializer[:]
    graph.initializer.extend(remaining)
    _rename(graph)


def _store_matrices(graph: Any) -> None:
    for found in list(graph.initializer):
        values = numpy_helper.to_array(found)
        if values.dtype != np.float32 or values.ndim != 2 or values.size < MIN_INT8_STORED_VALUES:
            continue
        scale = np.maximum(np.abs(values).max(axis=0), np.finfo(np.float32).tiny) / np.float32(127)
        name = found.name
        whole = np.rint(values / scale).astype(np.int8)
        found.CopyFrom(numpy_helper.from_array(whole, f"{name}.int8"))
        graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}.scale"))
        inputs = [f"{name}.int8", f"{name}.scale"]
        graph.node.insert(0, helper.make_node("DequantizeLinear", inputs, [name], axis=1))


def _rename(graph: Any) -> None:
    fixed = {one.name for one in (*graph.input, *graph.output)}
    names: dict[str, str] = {"": ""}

    def short(name: str) -> str:
        return name if name in fixed else names.setdefault(name, f"{len(names)}")

    for one in graph.initializer:
        one.name = short(one.name)
    for number, node in enumerate(graph.node):
        node.name = f"n{number}"
        node.doc_string = ""
        del node.metadata_props[:]
        for place in (node.input, node.output):
            place[:] = [short(name) for name in place]
