"""A workspace of the code before its modules became packages is still read, compared and brought up to date.

``before/`` was made by commit 3adb563: 48 drawn photos in the folders ``cats`` and ``dogs``, the manifest, the trained
model without its backbone, answers to validation photos and those of a service, and the MLflow store as a dump; beside
them the description of the reference bundle, and ``params.yaml`` and ``dvc.lock`` of a project on the drawn sample.
"""

import contextlib
import gzip
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from catsdogs_lib.common import files
from catsdogs_lib.data import manifest
from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier, golden_difference
from catsdogs_lib.monitoring import drift, records
from catsdogs_lib.pipeline import parameters
from catsdogs_lib.pipeline.stages import evaluate, package, prepare, train
from catsdogs_lib.pipeline.workspace import Workspace
from catsdogs_lib.registry import models, tracking
from catsdogs_lib.training.checkpoint import TrainedModel
from catsdogs_lib.training.models import LITE0, build
from catsdogs_lib.training.settings import TrainingSettings

ROOT = Path(__file__).parents[2]
BEFORE = Path(__file__).parent / "before"
REGISTERED = "catsdogs--pets--cats--dogs"
SETTINGS = {"validation": 0.4, "test": 0.2}
"""The settings that the manifest was made with."""


@pytest.fixture
def ws(tmp_path, monkeypatch):
    """The old workspace, whole again: with its store, its backbone, and the graph of its champion."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return restore(tmp_path / "workspace")


def restore(root: Path) -> Workspace:
    shutil.copytree(BEFORE, root)
    (root / "mlflow_artifacts").rename(root / "mlartifacts")
    dump = gzip.decompress((root / "mlflow.sql.gz").read_bytes()).decode()
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as store:
        store.executescript(dump.replace("@WORKSPACE@", str(root)))
    ws = Workspace(root)
    shutil.copy(ROOT / "models/reference/model.onnx", root / "models/reference")
    # The champion's own graph has 7 MB; that of the reference bundle stands in, which the same code made.
    run_id = files.read_json(ws.runs)["runs"]["efficientnet_lite0"]
    shutil.copytree(root / "models/reference", ws.artifacts / run_id / "artifacts" / "bundle")
    # The head was trained on the frozen backbone that the package brings.
    backbone = {
        name: (value.half() if value.ndim >= 2 else value).contiguous()
        for name, value in build(LITE0, 2).network.state_dict().items()
        if name.startswith("backbone.")
    }
    folder = ws.trained / "efficientnet_lite0"
    save_file({**backbone, **load_file(folder / "head.safetensors")}, folder / "model.safetensors")
    return ws


def prepared(ws: Workspace) -> pd.DataFrame:
    return prepare.prepare(ws, manifest.PrepareSettings(**SETTINGS))


def test_photos_keep_their_split_and_get_the_new_labels(ws):
    before = manifest.read_manifest(ws.manifest)
    draw("cat", 80_000, (160, 120)).save(ws.raw / "cats" / "added.jpg")
    after = prepared(ws).set_index("path").drop("cats/added.jpg")
    assert manifest.classes(before) == ("cats", "dogs")
    assert manifest.classes(after) == ("cat", "dog")
    assert (after["split"] == before.set_index("path")["split"]).all()
    assert (after["label"] + "s" == before.set_index("path")["label"]).all()


def test_a_label_in_the_exclusions_may_have_the_old_name(ws):
    photo = manifest.read_manifest(ws.manifest).iloc[0]
    assert photo["label"] == "cats"
    exclusions = ws.root / "exclusions.csv"
    exclusions.write_text(f"sha256,reason,label\n{photo['sha256']},a dog in truth,dogs\n")
    after = prepare.prepare(ws, manifest.PrepareSettings(**SETTINGS, exclusions=str(exclusions)))
    assert after.set_index("path").loc[photo["path"], "label"] == "dog"


def test_a_trained_model_answers_as_it_did(ws):
    trained = TrainedModel.load(ws.trained / "efficientnet_lite0")
    assert trained.record.classes == ("cats", "dogs")
    renamed = {"logistic_regression_c": 0.03, "ema_decay": 0.99, "weight_interpolation": 1.0}
    assert trained.record.settings.model_dump().items() >= renamed.items()

    expected = pd.read_csv(ws.evaluation / "predictions-efficientnet_lite0.csv").set_index("path")
    prepared(ws)
    (evaluation,) = evaluate.evaluate(ws)
    predictions = evaluation.predictions().set_index("path").loc[expected.index]
    assert set(predictions["label"]) == {"cat", "dog"}
    for column in ("p_cats", "p_dogs", "unfamiliarity"):
        np.testing.assert_allclose(predictions[column], expected[column], atol=1e-3)


def test_the_reference_bundle_of_that_time_answers_with_its_own_names(ws, pets):
    old, new = (Bundle.load(root / "models/reference") for root in (ws.root, ROOT))
    assert old.description.classes == ("cats", "dogs")
    assert old.description.graph == new.description.graph
    assert golden_difference(Classifier(old)) < old.description.graph.tolerance
    photo = next((pets / "test" / "cats").iterdir())
    before, now = Classifier(old).predict(photo), Classifier(new).predict(photo)
    assert (before.prediction, now.prediction) == ("cats", "cat")
    assert list(before.probabilities.values()) == list(now.probabilities.values())


def test_records_with_old_and_new_names_are_compared(ws):
    old = records.read([ws.reference])
    assert set(old["prediction"]) == set(old["truth"]) == {"cat", "dog"}
    rows = [json.loads(line) for line in ws.reference.read_text().splitlines()]
    new = ws.root / "new.jsonl"
    new.write_text(ws.reference.read_text().replace('"cats"', '"cat"').replace('"dogs"', '"dog"'))
    assert new.read_text() != ws.reference.read_text()
    classes = next(finding for finding in drift.compare(old, records.read([new]), 0.5) if finding.signal == "classes")
    assert (len(rows), classes.effect, classes.alarm) == (len(old), 0.0, False)


def test_a_truth_with_the_old_name_belongs_to_an_answer_with_either(ws):
    log = ws.root / "monitoring" / "service.jsonl"
    answers = records.read([log])
    truths = answers.loc[answers["truth"] != "", "truth"]
    assert set(truths) == {"cat", "dog"}
    # The service was upgraded between the answers and some of the truths.
    lines = log.read_text().splitlines()
    half = [line.replace('"cats"', '"cat"').replace('"dogs"', '"dog"') for line in lines[::2]] + lines[1::2]
    log.write_text("\n".join(half))
    again = records.read([log]).set_index("prediction_id").loc[answers["prediction_id"]]
    assert again["truth"].tolist() == answers["truth"].tolist()
    assert again["prediction"].tolist() == answers["prediction"].tolist()


def test_the_store_still_knows_its_run_and_its_champion(ws):
    tracking.connect(ws.tracking_uri, ws.artifacts)
    for classes in (("cats", "dogs"), ("cat", "dog")):
        assert models.registered_name("pets", classes) == REGISTERED
    assert models.registered_name("other", ("cat", "dog")) == "catsdogs--other--cat--dog"
    champion = models.champion(REGISTERED)
    assert models.version_of(REGISTERED, champion.tags["bundle_version"]).version == champion.version
    assert len(models.training_photos(champion, ws.root)) == files.read_json(ws.summary)["photos"]["train"]


@pytest.mark.slow
def test_a_new_model_is_held_against_the_old_champion(ws):
    prepared(ws)
    train.train(ws, TrainingSettings())
    evaluate.evaluate(ws)
    packaged = package.package(ws)
    assert packaged.bundle.description.classes == ("cat", "dog")
    assert (packaged.registered, packaged.version) == (REGISTERED, "2")
    champions = {check.name: check.champion for check in packaged.verdict.checks}
    assert champions["accuracy"] is not None, packaged.verdict.sentence
    assert f"({files.read_json(ws.summary)['photos']['val']} photos)" in packaged.verdict.sentence


def test_parameters_are_read_by_their_old_names():
    settings = parameters.read_parameters(BEFORE, "train")
    assert {"logistic_regression_c": 0.03, "ema_decay": 0.99, "weight_interpolation": 1.0}.items() <= settings.items()
    assert settings["baseline_epochs"] == 1
    assert parameters.read_parameters(BEFORE, "data")["per_class"] == 60


def test_dvc_runs_every_stage_again(tmp_path):
    for name in ("catsdogs_lib", "exclusions", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    for name in ("params.yaml", "dvc.lock"):
        shutil.copy(BEFORE / name, tmp_path)
    dvc = [sys.executable, "-m", "dvc"]
    quiet = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    subprocess.run([*dvc, "init", "--no-scm", "-q"], cwd=tmp_path, env=quiet, check=True)
    done = subprocess.run([*dvc, "status", "--json"], cwd=tmp_path, env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).keys() == {"explore", "prepare", "train", "evaluate", "package"}
