import copy
import io

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from PIL import Image

from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.export import model_card, packaging, parity
from catsdogs_lib.export.parity import (
    PARITY_TOLERANCE,
    ParityError,
    check_parity,
    drawn_picture,
    quantization_parity,
)
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier, InferenceError
from catsdogs_lib.inference.description import Parity
from catsdogs_lib.training.checkpoint import TrainedModel


@pytest.fixture(scope="module")
def model(trained):
    return TrainedModel.load(trained.trained / "efficientnet_lite0")


@pytest.fixture(scope="module")
def bundle(packaged):
    return packaged[1].bundle


def test_torch_and_onnx_agree_on_at_least_a_hundred_photos(bundle):
    assert bundle.description.parity.photos >= 100
    assert bundle.description.parity.max_difference < PARITY_TOLERANCE


def test_the_graph_is_one_file_with_the_contracts_names(bundle):
    graph = onnx.load_model_from_string(bundle.graph)
    assert [node.name for node in graph.graph.input] == ["image"]
    assert [node.name for node in graph.graph.output] == [
        "logits",
        "probabilities",
        "unfamiliarity",
        "activation_map",
    ]
    assert not any(initializer.external_data for initializer in graph.graph.initializer)
    shape = [d.dim_param or d.dim_value for d in graph.graph.input[0].type.tensor_type.shape.dim]
    assert isinstance(shape[0], str)
    assert shape[1:] == [3, 224, 224]


def test_fp16_storage_loses_nothing_of_the_trained_weights(bundle, model):
    graph = onnx.load_model_from_string(bundle.graph)
    stored = {i.name: numpy_helper.to_array(i) for i in graph.graph.initializer}
    matrices = {name: value for name, value in stored.items() if name.endswith(".fp16")}
    assert len(matrices) > 40
    assert all(value.dtype == np.float16 for value in matrices.values())
    head = matrices["network.head.weight.fp16"].astype(np.float32)
    assert np.array_equal(head, model.network.head.weight.detach().numpy())


def test_fp32_storage_is_kept_when_asked_for(fp32_graph):
    graph = onnx.load_model_from_string(fp32_graph)
    assert {i.data_type for i in graph.graph.initializer} <= {TensorProto.FLOAT, TensorProto.INT64}


def test_a_graph_that_answers_otherwise_is_refused(model, bundle):
    other = copy.deepcopy(model.network)
    with torch.no_grad():
        other.head.bias += torch.tensor([3.0, 0.0])
    with pytest.raises(ParityError, match="differs from the trained model"):
        check_parity(TrainedModel(other, model.record), Classifier(bundle), [])


@pytest.mark.parametrize("answers", ["probabilities", "unfamiliarity"])
def test_a_model_that_answers_nan_has_no_parity(model, bundle, monkeypatch, answers):
    monkeypatch.setattr(parity, "PARITY_PHOTOS", 2)
    broken = copy.deepcopy(model.network)
    with torch.no_grad():
        (broken.head.bias if answers == "probabilities" else broken.prototypes)[0] = float("nan")
    with pytest.raises(CatsdogsError, match="not a finite number|differs from the trained model by nan"):
        check_parity(TrainedModel(broken, model.record), Classifier(bundle), [])


def test_a_graph_that_answers_nan_has_no_parity(model, tiny_graph, tiny_description, monkeypatch, tmp_path):
    monkeypatch.setattr(parity, "PARITY_PHOTOS", 2)
    graph = tiny_graph(unfamiliarity_bias=float("nan"))
    classifier = packaging.classifier_of(tiny_description(graph), graph)
    with pytest.raises(InferenceError, match="'unfamiliarity' is not a finite number"):
        check_parity(model, classifier, [])
    with pytest.raises(InferenceError, match="'unfamiliarity' is not a finite number"):
        quantization_parity(Parity(photos=1, max_difference=0), classifier, classifier, [])
    with pytest.raises(InferenceError, match="'unfamiliarity' is not a finite number"):
        packaging.write_bundle(tmp_path / "bundle", tiny_description(graph), graph, Parity(photos=1, max_difference=0))
    assert not any(tmp_path.iterdir())


def test_golden_answers_hold_both_kinds_as_small_pictures(bundle):
    golden = bundle.description.golden
    assert {answer.name.split("-")[0] for answer in golden} == {"cat", "dog"}
    for answer in golden:
        assert len(answer.data) < 60_000
        assert Image.open(io.BytesIO(answer.data)).size == (160, 160)


def test_the_card_says_how_good_and_on_what(bundle):
    card = model_card.markdown(bundle.description)
    assert f"{bundle.description.metrics['accuracy'].value:.4f}" in card
    assert "sample" in card
    assert "Apache-2.0" in card


def test_the_bundle_says_where_it_comes_from(packaged):
    ws, made = packaged
    from catsdogs_lib.common import files

    description = Bundle.load(ws.bundle).description
    assert description.mlflow_run == files.read_json(ws.runs)["runs"]["efficientnet_lite0"]
    assert description.data.sha256 == files.read_json(ws.summary)["data_hash"]
    assert description.training["method"] == "frozen"
    assert made.bundle.description == description


def test_no_path_of_the_machine_that_made_it_is_in_a_bundle(packaged):
    ws, made = packaged
    home = str(ws.root).encode()
    for path in ws.bundle.iterdir():
        assert home not in path.read_bytes()
        assert b"site-packages" not in path.read_bytes()
    assert made.bundle.description.data.source == "sample"


def test_drawn_pictures_are_told_apart(bundle):
    classifier = Classifier(bundle)
    answers = {
        kind: [classifier.predict(drawn_picture(kind, 500 + n)).prediction for n in range(20)]
        for kind in ("cat", "dog")
    }
    right = answers["cat"].count("cat") + answers["dog"].count("dog")
    assert right >= 36, answers
