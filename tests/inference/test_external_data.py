import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from catsdogs_lib.inference.external_data import has_external_data


def model(name="weights", external=False, inside=False) -> bytes:
    """A graph with one tensor, perhaps in another file, perhaps inside an attribute."""
    tensor = numpy_helper.from_array(np.ones((2, 2), np.float32), name)
    if external:
        set_external_data(tensor, "weights.bin", 0, 16)
        tensor.ClearField("raw_data")
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])
    if inside:
        nodes, initializers = [helper.make_node("Constant", [], ["y"], value=tensor)], []
    else:
        nodes, initializers = [helper.make_node("Identity", [name], ["y"])], [tensor]
    graph = helper.make_graph(nodes, "g", [], [result], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


@pytest.mark.parametrize("inside", [False, True])
def test_external_data_is_found_wherever_the_tensor_is(inside):
    assert has_external_data(model(external=True, inside=inside))
    assert not has_external_data(model(inside=inside))


@pytest.mark.parametrize("name", ["locations", "the_location", "allocation.location.weight"])
def test_a_longer_name_is_no_external_data(name):
    graph = model(name)
    assert b"location" in graph
    assert not has_external_data(graph)
    assert has_external_data(model(name, external=True))


@pytest.mark.parametrize("padding", [b"", b"\x80", b"\x80" * 3])
def test_a_padded_length_hides_nothing(padding):
    # The tensor by hand: its name, and external data with an entry of key and value, lengths recomputed around it.
    key = b"\x0a\x88" + padding + b"\x00location"
    entry = key + b"\x12\x0bweights.bin"
    tensor = b"\x08\x02\x10\x01B\x01w\x6a" + bytes([len(entry)]) + entry + b"\x70\x01"
    parsed = onnx.TensorProto.FromString(tensor)
    assert parsed.external_data[0].key == "location"
    assert has_external_data(tensor)


def test_the_reference_graph_has_none(bundle_folder):
    assert not has_external_data((bundle_folder / "model.onnx").read_bytes())
