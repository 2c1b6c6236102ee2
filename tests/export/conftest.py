"""The trained model's graph with weights in fp32: an export takes seconds, so it is made once."""

import dataclasses

import pytest

from catsdogs_lib.export.onnx_export import export
from catsdogs_lib.training.checkpoint import TrainedModel


@pytest.fixture(scope="session")
def fp32_graph(trained) -> bytes:
    model = TrainedModel.load(trained.trained / "efficientnet_lite0")
    settings = model.record.settings.model_copy(update={"weights": "fp32"})
    return export(TrainedModel(model.network, dataclasses.replace(model.record, settings=settings)), 1.0)
