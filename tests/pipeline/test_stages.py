import dataclasses

import pytest
from mlflow import MlflowClient

from catsdogs_lib.common import files
from catsdogs_lib.data import manifest
from catsdogs_lib.evaluation.metrics import Interval
from catsdogs_lib.pipeline.stages import evaluate, package, prepare, train
from catsdogs_lib.pipeline.workspace import MissingInputError, Workspace, project_root
from catsdogs_lib.training.settings import TrainingSettings


def test_what_is_missing_is_named_with_the_notebook_that_makes_it(tmp_path):
    ws = Workspace(tmp_path)
    for step, notebook in (
        (prepare.prepare, "01_explore"),
        (evaluate.evaluate, "02_prepare"),
        (package.package, "03_train"),
    ):
        with pytest.raises(MissingInputError, match=notebook):
            step(ws)


def test_preparing_again_changes_nothing(copy):
    before = copy.manifest.read_bytes()
    prepare.prepare(copy)
    assert copy.manifest.read_bytes() == before


def test_added_photos_move_none_of_those_already_there(copy):
    before = manifest.used(manifest.read_manifest(copy.manifest)).set_index("sha256")["split"]
    from catsdogs_lib.data.synthetic.render import draw

    for number in range(15):
        draw("cat", 7000 + number).save(copy.raw / "cats" / f"added-{number}.jpg")
    after = manifest.used(prepare.prepare(copy)).set_index("sha256")["split"]
    assert len(after) == len(before) + 15
    assert (after[before.index] == before).all()


def test_other_split_settings_draw_another_split(copy):
    before = copy.manifest.read_bytes()
    prepare.prepare(copy, manifest.PrepareSettings(seed=1))
    assert copy.manifest.read_bytes() != before


def test_evaluation_writes_metrics_with_intervals_and_predictions(trained):
    value = files.read_json(trained.metrics)
    assert value["candidate"] == "efficientnet_lite0"
    for summary in value["models"].values():
        for interval in summary["test"].values():
            assert interval["low"] <= interval["value"] <= interval["high"]
    assert value["models"]["efficientnet_lite0"]["test"]["log_loss"]["value"] < 0.4
    assert value["models"]["baseline_cnn"]["epochs"] == 1
    lines = (trained.evaluation / "predictions-efficientnet_lite0.csv").read_text().splitlines()
    assert lines[0] == "path,split,label,p_cat,p_dog,unfamiliarity"
    table = manifest.read_manifest(trained.manifest)
    assert len(lines) - 1 == len(manifest.used(table, "val")) + len(manifest.used(table, "test"))


def test_the_first_bundle_becomes_champion(packaged):
    assert packaged[1].verdict.promoted
    assert "there is no champion yet" in packaged[1].verdict.sentence


def test_what_a_kill_left_unfinished_is_swept(copy):
    folders = (copy.root, copy.manifest.parent, copy.bundle.parent, copy.trained, copy.checkpoints, copy.reports)
    for folder in folders:
        folder.mkdir(exist_ok=True)
        (folder / f"{files.PARTIAL}12345678-thing").mkdir()
    prepare.prepare(copy)
    assert list(copy.root.rglob(f"{files.PARTIAL}*")) == []


def test_a_baseline_as_candidate_is_trained_once(copy):
    from catsdogs_lib.training.settings import baseline_settings

    models = train.train(copy, baseline_settings(1, seed=4), baseline_settings(2))
    assert [model.record.settings.epochs for model in models] == [1]
    assert files.read_json(copy.runs)["candidate"] == "baseline_cnn"


def test_a_metric_that_is_not_defined_is_null_in_the_files(trained):
    undefined = Interval(float("nan"), float("nan"), float("nan"))
    table = manifest.read_manifest(trained.manifest)
    name, model = next(iter(train.trained_models(trained).items()))
    evaluation = evaluate.evaluate_model(trained, table, name, model)
    evaluation = dataclasses.replace(evaluation, metrics={"test": {"roc_auc": undefined}})
    assert evaluation.summary()["test"]["roc_auc"] == {"value": None, "low": None, "high": None}


def test_a_killed_training_goes_on_in_the_same_run(copy, monkeypatch):
    settings = TrainingSettings(logistic_regression_c=0.02)
    save = train.TrainedModel.save

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train.TrainedModel, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train.train(copy, settings)
    (pending,) = copy.checkpoints.glob("*.run.json")
    begun = files.read_json(pending)["run_id"]
    monkeypatch.setattr(train.TrainedModel, "save", save)
    train.train(copy, settings)
    assert files.read_json(copy.runs)["runs"]["efficientnet_lite0"] == begun
    assert not list(copy.checkpoints.glob("*.run.json"))
    history = MlflowClient().get_metric_history(begun, "val_loss")
    assert len(history) == 1, "an epoch is logged once"


def test_the_root_of_the_project_is_found_from_below(tmp_path, monkeypatch):
    (tmp_path / "dvc.yaml").write_text("")
    below = tmp_path / "notebooks" / "deep"
    below.mkdir(parents=True)
    assert project_root(below) == tmp_path.resolve()
    monkeypatch.chdir(below)
    assert Workspace.open(".").root == tmp_path.resolve()
    assert Workspace.open("").demo
    assert Workspace.open("").root == tmp_path.resolve() / "build" / "demo"


def test_the_environment_names_the_tracking_server(monkeypatch, tmp_path):
    assert Workspace(tmp_path).tracking_uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert Workspace(tmp_path).tracking_uri == "http://127.0.0.1:5000"
