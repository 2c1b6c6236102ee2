import numpy as np
import pytest
import torch

from catsdogs_lib.training.models import Network, build
from catsdogs_lib.training.prototypes import MAX_PROTOTYPES, MIN_PHOTOS_PER_PROTOTYPE, prototypes


def clusters(count, each, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count, 32))
    return (centres[:, None] + 0.05 * rng.normal(size=(count, each, 32))).reshape(-1, 32).astype(np.float32)


def test_a_photo_like_the_learned_ones_is_near_and_another_is_far():
    features = clusters(6, 40)
    network = Network(torch.nn.Identity(), 32, 2)
    network.prototypes = prototypes(features)
    near = network.unfamiliarity(torch.from_numpy(clusters(6, 5)))
    far = network.unfamiliarity(torch.from_numpy(clusters(6, 5, seed=1)))
    assert near.max() < 0.05
    assert far.min() > 0.3


@pytest.mark.parametrize(("photos", "count"), [(3, 1), (40, 10), (3000, MAX_PROTOTYPES)])
def test_there_are_fewer_prototypes_than_photos_and_at_most_so_many(photos, count):
    made = prototypes(np.random.default_rng(0).normal(size=(photos, 16)).astype(np.float32))
    assert len(made) == count <= max(1, photos / MIN_PHOTOS_PER_PROTOTYPE)
    assert torch.allclose(made.norm(dim=1), torch.ones(count), atol=1e-3)
    assert torch.equal(made, made.half().float()), "nothing is lost by storing them as fp16"


def test_the_same_features_give_the_same_prototypes():
    features = clusters(3, 30)
    assert torch.equal(prototypes(features), prototypes(features))


def test_maps_are_there_where_the_features_are_their_mean():
    lite0 = build("efficientnet_lite0", 2).network.eval()
    assert lite0.has_maps(64)
    assert not build("baseline_cnn", 2).network.eval().has_maps(224)
