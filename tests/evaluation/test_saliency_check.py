"""Saliency maps mark what the network relies on, activation maps and occlusion maps alike."""

import numpy as np
import pytest

from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.evaluation.ood import png_bytes
from catsdogs_lib.evaluation.saliency_check import deletion_test
from catsdogs_lib.export.onnx_export import export
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.inference.explanation import explain
from catsdogs_lib.training.checkpoint import TrainedModel


@pytest.fixture(scope="module")
def baseline(packaged):
    """The CNN from scratch as a bundle; it has no map of its own."""
    ws, made = packaged
    model = TrainedModel.load(ws.trained / "baseline_cnn")
    description = made.bundle.description.model_copy(
        update={"model": "baseline_cnn", "preprocessing": model.record.preprocessing, "explanation": "occlusion"}
    )
    return Classifier(Bundle(made.bundle.folder, description), graph=export(model, 1.0))


def test_a_network_without_a_map_is_explained_by_covering(baseline):
    assert baseline.run([baseline.load(png_bytes(draw("cat", 1)))]).activation_map is None
    heat = explain(baseline, png_bytes(draw("cat", 1))).heat
    assert heat.shape == (7, 7)
    assert np.ptp(heat) > 0


@pytest.mark.slow
def test_covering_what_matters_hurts_more_than_chance(baseline, packaged):
    drawn = [png_bytes(draw(kind, seed)) for kind in ("cat", "dog") for seed in range(500, 510)]
    for classifier in (baseline, Classifier(packaged[1].bundle)):
        assert deletion_test(classifier, drawn).low > 0
