"""What the project claims of real photos. They do not come with it: without them these tests skip.

Those of the freshly trained model need `make pipeline DATA=../shared/data/pets` first and the variable
CATSDOGS_PETS; `.ci/run` does both.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from catsdogs_lib.common import files
from catsdogs_lib.data.folders import find_photos
from catsdogs_lib.evaluation import metrics
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier, golden_difference

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "models" / "reference"


def photos_of(pets, classes):
    """The test photos and their labels, positions in `classes`."""
    photos = [photo for photo in find_photos(pets)[0] if photo.split == "test"]
    return [photo.path for photo in photos], np.array([classes.index(photo.label) for photo in photos])


def answers(folder, paths):
    classifier = Classifier(Bundle.load(folder))
    inputs = (classifier.load(path) for path in paths)
    return np.concatenate([classifier.run([one])[1] for one in inputs])


@pytest.mark.slow
def test_the_reference_bundle_is_as_good_as_it_says(pets):
    description = Bundle.load(REFERENCE).description
    paths, labels = photos_of(pets, description.classes)
    probabilities = answers(REFERENCE, paths)
    found = metrics.point(probabilities.astype(np.float64), labels)
    assert len(labels) == description.data.photos["test"] == 1200
    for name in ("accuracy", "log_loss", "roc_auc", "f1"):
        assert found[name] == pytest.approx(description.metrics[name].value, abs=1e-3), name
    assert found["accuracy"] >= 0.988
    assert found["log_loss"] <= 0.033


def test_the_reference_bundle_comes_with_the_clone_and_is_this_model():
    bundle = Bundle.load(REFERENCE)
    assert bundle.description.graph.weights == "fp16"
    assert sum(path.stat().st_size for path in REFERENCE.iterdir()) <= 10_000_000
    assert golden_difference(Classifier(bundle)) < 1e-3
    assert bundle.description.data.photos["train"] + bundle.description.data.photos["val"] <= 2800


@pytest.mark.slow
def test_the_reference_bundle_learned_from_pets_train_alone(pets):
    """Its digest of photos, labels and split is that of the folder: train and val are carved out of pets/train."""
    from catsdogs_lib.data import manifest
    from catsdogs_lib.data.settings import PrepareSettings

    table = manifest.build_manifest(pets, PrepareSettings())
    assert manifest.data_hash(table) == Bundle.load(REFERENCE).description.data.sha256
    used = manifest.used(table)
    assert used.loc[used["split"] != "test", "path"].str.startswith("train/").all()


@pytest.fixture(scope="module")
def project():
    if not os.environ.get("CATSDOGS_PETS"):
        pytest.skip("needs CATSDOGS_PETS, the project in which 'make pipeline DATA=../shared/data/pets' has run")
    return Path(os.environ["CATSDOGS_PETS"])


@pytest.mark.slow
def test_the_pretrained_model_reaches_the_floor_on_real_photos(project):
    figures = files.read_json(project / "evaluation" / "metrics.json")["models"]["efficientnet_lite0"]
    measured = {name: interval["value"] for name, interval in figures["test"].items()}
    print(json.dumps({**measured, "calibrated_ece": figures["calibrated_ece"]}))
    assert measured["accuracy"] >= 0.988
    assert measured["log_loss"] <= 0.033
    assert measured["expected_calibration_error"] <= figures["calibrated_ece"]


@pytest.mark.slow
def test_torch_onnx_and_predict_agree_on_every_test_photo(project, pets, monkeypatch):
    from catsdogs_lib.evaluation.calibration import softmax
    from catsdogs_lib.training.checkpoint import TrainedModel

    bundle = Bundle.load(project / "models" / "bundle")
    paths, _ = photos_of(pets, bundle.description.classes)
    onnx = answers(bundle.folder, paths)
    model = TrainedModel.load(project / "models" / "trained" / "efficientnet_lite0")
    # torch itself, however many photos there are
    monkeypatch.setattr("catsdogs_lib.training.feature_extractor.MIN_PHOTOS_FOR_ONNX", 10**9)
    torch = softmax(model.logits(model.features(paths)), bundle.description.temperature)
    command = [Path(sys.executable).parent / "catsdogs", "predict", *paths, "--bundle", bundle.folder, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    predicted = np.array([list(json.loads(line)["probabilities"].values()) for line in done.stdout.splitlines()])
    assert len(predicted) == 1200
    worst = max(np.abs(torch - onnx).max(), np.abs(predicted - onnx).max(), np.abs(predicted - torch).max())
    print(f"largest difference between torch, ONNX and predict on {len(paths)} photos: {worst:.1e}")
    assert worst <= 1e-3
