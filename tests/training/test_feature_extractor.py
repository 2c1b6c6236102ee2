"""Few photos run in torch, many in ONNX Runtime; both give the same features."""

import numpy as np
import pytest
import torch

from catsdogs_lib.training import feature_extractor
from catsdogs_lib.training.models import build


@pytest.fixture(scope="module")
def backbone():
    return build("efficientnet_lite0", 2).network.backbone


@pytest.fixture
def photos():
    return torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_many_photos_get_the_features_that_few_get(backbone, photos):
    few, many = (
        feature_extractor.prepare(backbone, 96, feature_extractor.resolve("fp32", count))
        for count in (1, feature_extractor.MIN_PHOTOS_FOR_ONNX)
    )
    assert few.__qualname__ != many.__qualname__
    features = many(photos)
    assert features.shape == (3, 1280)
    assert features == pytest.approx(few(photos), abs=1e-4)
    assert many(photos[:1]) == pytest.approx(features[:1], abs=1e-5)


def test_who_asks_for_bf16_gets_it(backbone, photos):
    exact = feature_extractor.prepare(backbone, 96, feature_extractor.resolve("fp32", 1))(photos)
    rough = feature_extractor.prepare(
        backbone, 96, feature_extractor.resolve("bf16", feature_extractor.MIN_PHOTOS_FOR_ONNX)
    )(photos)
    assert 1e-4 < np.abs(rough - exact).max() < 1


def test_a_network_in_training_stays_as_it_is(photos):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten())
    network = network.to(memory_format=torch.channels_last)
    feature_extractor.prepare(network.train(), 96, feature_extractor.ONNX_RUNTIME)(photos)
    assert network.training
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not network[0].weight.is_contiguous()
