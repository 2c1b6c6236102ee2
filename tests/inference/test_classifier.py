import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.imaging.decoding import PhotoError
from catsdogs_lib.inference.bundle import Bundle, BundleCorruptError
from catsdogs_lib.inference.classifier import Classifier, InferenceError, Outputs, golden_difference
from catsdogs_lib.inference.explanation import explain

ROOT = Path(__file__).parents[2]


def png(kind, seed):
    stream = io.BytesIO()
    draw(kind, seed, (160, 160)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def classifier(bundle_folder):
    return Classifier(Bundle.load(bundle_folder))


def test_an_answer_has_every_class_and_sums_to_one(classifier):
    answer = classifier.predict(classifier.bundle.description.golden[0].data)
    assert list(answer.probabilities) == ["cat", "dog"]
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-6)
    assert answer.confidence == max(answer.probabilities.values())


def test_golden_answers_hold(classifier):
    assert golden_difference(classifier) < 1e-5


def test_golden_answers_find_another_model(classifier):
    golden = classifier.bundle.description.golden[0]
    flipped = golden.model_copy(update={"probabilities": {"cat": 1.0, "dog": 0.0}})
    contrary = golden.model_copy(update={"probabilities": {"cat": 0.0, "dog": 1.0}})
    description = classifier.bundle.description.model_copy(update={"golden": (flipped, contrary)})
    other = Classifier(dataclasses.replace(classifier.bundle, description=description))
    assert golden_difference(other) > 0.4


def test_below_the_threshold_an_answer_says_why_it_is_not_confident(classifier):
    sure = classifier.interpret(outputs(0.0, 1.0))
    assert sure.confident
    assert sure.reason is None
    unsure = classifier.interpret(outputs(0.501, 0.499))
    assert unsure.prediction == "cat"
    assert not unsure.confident
    assert "it may be cat or dog" in unsure.reason
    assert "below the threshold" in unsure.reason


def test_an_unfamiliar_photo_is_doubted_however_probable_its_answer(classifier):
    strange = classifier.interpret(outputs(0.0, 1.0, unfamiliarity=1.5))
    assert strange.prediction == "dog"
    assert not strange.confident
    assert strange.reason.startswith("the photo is unlike those that the model has learned from (unfamiliarity 1.500")
    assert not classifier.interpret(outputs(0.0, 1.0, unfamiliarity=float("nan"))).confident


def outputs(*probabilities, unfamiliarity=0.0):
    found = np.array([probabilities], dtype=np.float32)
    return Outputs(found, found, np.array([unfamiliarity], dtype=np.float32), None)


def test_many_photos_are_answered_in_their_order(classifier, tmp_path):
    paths = []
    for number, golden in enumerate(classifier.bundle.description.golden * 5):
        path = tmp_path / f"{number:02d}.png"
        path.write_bytes(golden.data)
        paths.append(path)
    paths.insert(3, tmp_path / "missing.png")
    answers = list(classifier.predict_many(paths))
    assert [answer.path for answer in answers] == paths
    assert answers[3].prediction is None
    assert "cannot be read" in answers[3].error
    single = classifier.predict(paths[0]).probabilities
    assert answers[0].prediction.probabilities == pytest.approx(single, abs=1e-6)


def test_a_batch_answers_like_single_photos(classifier):
    inputs = [classifier.load(golden.data) for golden in classifier.bundle.description.golden]
    together = classifier.run(inputs)[1]
    alone = np.concatenate([classifier.run([one])[1] for one in inputs])
    assert together == pytest.approx(alone, abs=1e-5)


def test_probabilities_are_the_logits_with_the_temperature(classifier):
    logits, probabilities, *_ = classifier.run([classifier.load(classifier.bundle.description.golden[1].data)])
    scaled = np.exp(logits / classifier.bundle.description.temperature)
    assert probabilities == pytest.approx(scaled / scaled.sum(), abs=1e-5)


def test_a_photo_that_cannot_be_used_is_an_error(classifier):
    with pytest.raises(PhotoError):
        classifier.predict(b"no photo")


def test_a_graph_that_the_runtime_cannot_load_is_refused(classifier):
    with pytest.raises(BundleCorruptError, match="cannot load the graph"):
        Classifier(classifier.bundle, graph=b"no graph")


def test_a_graph_with_other_inputs_is_refused(classifier):
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    with pytest.raises(BundleCorruptError, match="inputs"):
        Classifier(classifier.bundle, graph=model.SerializeToString())


def test_nothing_is_reported_to_the_makers_of_the_runtime(tmp_path):
    """ONNX Runtime would write an id below the home folder, and report."""
    own = ("COVERAGE", "ORT_", "XDG_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    code = """
from pathlib import Path
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier
Classifier(Bundle.load(Path("models/reference")))
"""
    subprocess.run([sys.executable, "-c", code], env=environment | {"HOME": str(tmp_path)}, cwd=ROOT, check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tiny(tiny_graph, tiny_description):
    """Makes a classifier with a tiny graph."""

    def made(changes=None, **options):
        graph = tiny_graph(**options)
        return Classifier(Bundle(Path(), tiny_description(graph, **(changes or {}))), graph=graph)

    return made


def test_a_tiny_graph_answers(tiny):
    assert 0 < tiny().predict(png("cat", 1)).confidence < 1


@pytest.mark.parametrize(
    ("biases", "name"),
    [
        ({"logit_bias": (0.0, float("nan"))}, "logits"),
        ({"logit_bias": (float("inf"), 0.0)}, "logits"),
        ({"logit_bias": (0.0, -float("inf"))}, "logits"),
        ({"unfamiliarity_bias": float("nan")}, "unfamiliarity"),
    ],
)
def test_outputs_that_are_not_finite_are_an_error_that_says_so(tiny, tmp_path, biases, name):
    broken = tiny(**biases)
    with pytest.raises(InferenceError, match=f"'{name}' is not a finite number"):
        broken.predict(png("cat", 1))
    with pytest.raises(InferenceError, match="not a finite number"):
        broken.predict_with_statistics(png("cat", 1))
    with pytest.raises(InferenceError, match="not a finite number"):
        explain(broken, png("cat", 1))
    (tmp_path / "photo.png").write_bytes(png("cat", 1))
    (answer,) = broken.predict_many([tmp_path / "photo.png"])
    assert answer.prediction is None
    assert "not a finite number" in answer.error


def test_a_map_beyond_float32_is_an_error(tiny):
    largest = float(np.finfo(np.float32).max)
    with pytest.raises(InferenceError, match="saliency map"):
        explain(tiny(logit_bias=(largest, -largest)), png("cat", 1))


@pytest.mark.parametrize("biases", [{"logit_bias": (0.0, float("nan"))}, {"unfamiliarity_bias": float("nan")}])
def test_a_golden_picture_without_a_finite_answer_is_no_agreement(tiny, biases):
    with pytest.raises(BundleCorruptError, match="no answer to the golden picture cat-1"):
        golden_difference(tiny(**biases))


def test_a_golden_picture_that_is_none_is_refused(tiny):
    golden = tiny().bundle.description.golden[0].model_copy(update={"png": "bm8gcGhvdG8="})
    with pytest.raises(BundleCorruptError, match="no answer to the golden picture cat-1"):
        golden_difference(tiny(changes={"golden": (golden,)}))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"logit_bias": (0.0, 0.0, 0.0), "classes": 3}, r"'logits' of the graph is a tensor\(float\) of shape"),
        ({"size": 32}, "does not fit 2 classes and 16 x 16 pixels"),
    ],
)
def test_a_graph_that_does_not_fit_the_description_is_refused(tiny, options, says):
    with pytest.raises(BundleCorruptError, match=says):
        tiny(**options)


def test_more_probabilities_than_classes_are_an_error_where_the_graph_hides_their_number(tiny):
    with pytest.raises(InferenceError, match=r"'logits' has shape \(1, 3\)"):
        tiny(logit_bias=(0.0, 0.0, 0.0), classes="C").predict(png("cat", 1))


def test_a_graph_that_cannot_be_run_is_an_error_without_the_runtimes_words(tiny):
    with pytest.raises(InferenceError) as raised:
        tiny(photos=7).predict(png("cat", 1))
    assert str(raised.value) == "the model gives no usable answer: its graph cannot be run"
