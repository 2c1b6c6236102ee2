"""A graph in int8 is a quarter of the size, keeps its outputs, and says what it lost."""

import io

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.export import quantization
from catsdogs_lib.export.onnx_export import export
from catsdogs_lib.export.parity import graph_outputs
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.pipeline.stages import package
from catsdogs_lib.serving.model import Model
from catsdogs_lib.training.checkpoint import TrainedModel


def png(kind, seed):
    stream = io.BytesIO()
    draw(kind, seed, (160, 160)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def whole(packaged):
    return packaged[1].bundle


@pytest.fixture(scope="module")
def small(whole):
    pictures = [png(kind, 3000 + seed) for seed in range(12) for kind in ("cat", "dog")]
    return quantization.quantize(whole.graph, pictures, Classifier(whole).load)


def layers(graph):
    return [
        node
        for node in onnx.load_model_from_string(graph).graph.node
        if node.op_type in quantization.WEIGHTED_OPERATORS
    ]


def test_it_has_the_same_doors_and_gives_nearly_the_same_answers(whole, small):
    before, after = Classifier(whole), Classifier(whole, graph=small)
    pictures = [png(kind, 4000 + seed) for seed in range(10) for kind in ("cat", "dog")]
    exact, rounded = (graph_outputs(classifier, pictures, "") for classifier in (before, after))
    assert np.mean(exact.probabilities.argmax(axis=1) == rounded.probabilities.argmax(axis=1)) >= 0.9
    assert 0 < np.abs(exact.unfamiliarity - rounded.unfamiliarity).max() < 0.1
    assert after.run([after.load(pictures[0])]).activation_map.shape == before.run([before.load(pictures[0])])[3].shape


def test_all_but_the_first_and_the_last_layers_are_in_int8(small):
    model = onnx.load_model_from_string(small)
    stored = {value.name: value.data_type for value in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}

    def in_int8(node):
        maker = makers.get(node.input[1])
        return maker is not None and stored[maker.input[0]] == TensorProto.INT8 and node.input[0] in makers

    float_inputs = [node for node in layers(small) if makers.get(node.input[0], node).op_type != "DequantizeLinear"]
    convolutions = [node for node in layers(small) if node.op_type == "Conv"]
    assert not in_int8(convolutions[0])
    assert not in_int8(convolutions[1])
    # The first two, and what gives the map, the logits and the unfamiliarity.
    assert len(float_inputs) == quantization.FLOAT_FIRST_LAYERS + 3
    assert len(layers(small)) > 45


def test_it_has_a_quarter_of_the_bytes(small, fp32_graph):
    assert len(small) <= 0.28 * len(fp32_graph)


def test_a_temperature_can_be_put_in_anew(whole, small):
    picture, results = png("dog", 5000), []
    for temperature in (1.0, 4.0):
        classifier = Classifier(whole, graph=quantization.with_temperature(small, temperature))
        results.append(classifier.run([classifier.load(picture)]))
    assert np.array_equal(results[0].logits, results[1].logits)
    softened = np.exp(results[1].logits / 4.0)
    assert results[1].probabilities == pytest.approx(softened / softened.sum(), abs=1e-6)


def test_a_network_from_scratch_is_quantized_too(trained):
    model = TrainedModel.load(trained.trained / "baseline_cnn")
    graph = export(model, 1.0)
    rng = np.random.default_rng(0)
    small = quantization.quantize(graph, range(4), lambda _: rng.normal(size=(3, 224, 224)).astype(np.float32))
    # Most of its weights are in one matrix behind the convolutions; they are stored in fp16 before.
    assert len(small) < 0.6 * len(graph)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_made_integers(fp32_graph, number):
    graph = onnx.load_model_from_string(fp32_graph)
    head = next(value for value in graph.graph.initializer if value.name == "network.head.weight")
    weights = numpy_helper.to_array(head).copy()
    weights[0, 0] = number
    head.CopyFrom(numpy_helper.from_array(weights, head.name))
    with pytest.raises(quantization.QuantizationError, match="'network.head.weight' are not all finite"):
        quantization.quantize(graph.SerializeToString(), [], lambda _: None)


@pytest.mark.slow
def test_the_bundle_in_int8_has_figures_and_thresholds_of_its_own(copy, whole):
    made = package.package(copy, int8=True).bundle
    assert made.description.graph.weights == "int8"
    assert 1e-4 < made.description.parity.max_difference < 0.5
    assert made.description.parity.photos >= 100
    assert made.description.thresholds != whole.description.thresholds
    assert made.description.metrics["accuracy"].value >= whole.description.metrics["accuracy"].value - 0.1
    assert made.description.temperature != whole.description.temperature
    assert Model.load(copy.bundle).classifier.bundle.version == made.version == Bundle.load(copy.bundle).version
