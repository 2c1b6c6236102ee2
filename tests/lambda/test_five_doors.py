"""The same 100 photos through every door give the same probabilities: torch, the command line, uvicorn, Lambda.

The container, the fifth door, serves the reference bundle too; `tests/container` asks it with these photos.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from catsdogs_lib.client.http import Upstream
from catsdogs_lib.evaluation.calibration import softmax
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.training.checkpoint import TrainedModel, network_outputs
from catsdogs_lib.training.dataset import PhotoDataset
from catsdogs_lib.training.models import build

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def photos(pets):
    """50 real photos of each class, taken evenly."""
    found = [path for name in ("cats", "dogs") for path in sorted((pets / "test" / name).iterdir())[::12][:50]]
    assert len(found) == 100
    return found


@pytest.fixture(scope="module")
def reference_and_network():
    """The reference bundle, and its network in torch."""
    # What was trained does not come with the clone; the graph keeps its weights under torch's names.
    bundle = Bundle.load(ROOT / "models" / "reference")
    network = build(bundle.description.model, len(bundle.description.classes), pretrained=False).network
    graph = onnx.load_from_string(bundle.graph).graph
    state = {
        tensor.name.removesuffix(".fp16").removeprefix("network."): torch.tensor(numpy_helper.to_array(tensor)).float()
        for tensor in graph.initializer
        if tensor.name.startswith("network.")
    }
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not unexpected
    # Folded into the graph; doubt is not what is compared here.
    assert all(name == "prototypes" or name.endswith("num_batches_tracked") for name in missing)
    return bundle, network.eval()


def through_torch(bundle, network, photos):
    description = bundle.description
    plain = PhotoDataset(photos, [0] * len(photos), description.preprocessing)
    return softmax(network_outputs(network, plain, 32, "torch"), description.temperature)


def through_the_command_line(bundle, photos):
    command = [sys.executable, "-m", "catsdogs_lib", "predict", "--json", "--bundle", bundle.folder, *photos]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["path"] for answer in answers] == [str(path) for path in photos]
    return answers


def through_uvicorn(bundle, photos, hostile):
    command = [sys.executable, "-m", "catsdogs_lib", "serve", "--port", "0", "--bundle", bundle.folder]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            door = Upstream(re.search(r"http://\S+:\d+", process.stderr.readline())[0])
            return [answer(door.ask(hostile.multipart(path.read_bytes()))) for path in photos]
        finally:
            process.terminate()


def through_the_emulator(bundle, photos, hostile, runtime):
    with runtime(bundle.folder, "doors") as running:
        return [answer(running.ask(hostile.multipart(path.read_bytes()))) for path in photos]


def answer(response):
    assert response.status == 200, response.body
    return json.loads(response.body)


def test_every_door_gives_the_same_probabilities(reference_and_network, photos, hostile, runtime):
    compare_doors(*reference_and_network, photos, hostile, runtime)


def test_every_door_gives_the_same_probabilities_for_a_model_trained_here(packaged, photos, hostile, runtime):
    ws, made = packaged
    network = TrainedModel.load(ws.trained / made.bundle.description.model).network
    compare_doors(made.bundle, network, photos, hostile, runtime)


def compare_doors(bundle, network, photos, hostile, runtime):
    classes = bundle.description.classes
    doors = {
        "command line": through_the_command_line(bundle, photos),
        "uvicorn": through_uvicorn(bundle, photos, hostile),
        "emulator": through_the_emulator(bundle, photos, hostile, runtime),
    }
    expected = through_torch(bundle, network, photos)
    differences = {}
    for name, answers in doors.items():
        found = np.array([[each["probabilities"][label] for label in classes] for each in answers])
        assert found.shape == expected.shape
        differences[name] = float(np.abs(found - expected).max())
    print("largest difference from torch:", ", ".join(f"{name} {value:.1e}" for name, value in differences.items()))
    assert max(differences.values()) <= TOLERANCE
    # Not all the same answer: the doors would agree on that, too.
    assert expected.std() > 0.02
