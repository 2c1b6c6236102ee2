from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from catsdogs_lib.common import files
from catsdogs_lib.registry import models, tracking
from catsdogs_lib.registry.tracking import TrackingError
from catsdogs_lib.training.checkpoint import Epoch


@pytest.fixture
def run(packaged):
    """The candidate's run in the store."""
    ws, _ = packaged
    tracking.connect(ws.tracking_uri, ws.artifacts)
    return ws, MlflowClient().get_run(files.read_json(ws.runs)["runs"]["efficientnet_lite0"])


def test_parameters_and_figures_are_in_the_run(run):
    ws, candidate = run
    assert candidate.info.status == "FINISHED"
    assert candidate.data.params["method"] == "frozen"
    assert candidate.data.params["data_hash"] == files.read_json(ws.summary)["data_hash"]
    expected = files.read_json(ws.metrics)["models"]["efficientnet_lite0"]["test"]["log_loss"]["value"]
    assert candidate.data.metrics["test_log_loss"] == pytest.approx(expected)
    assert "commit" in candidate.data.tags


def test_the_baselines_epochs_are_metrics_by_step(run):
    ws, _ = run
    run_id = files.read_json(ws.runs)["runs"]["baseline_cnn"]
    assert tracking.logged_epochs(run_id) == {1}
    history = MlflowClient().get_metric_history(run_id, "train_loss")
    assert [metric.step for metric in history] == [1]


def test_the_run_knows_its_data(run):
    _, candidate = run
    contexts = {dataset.tags[0].value for dataset in candidate.inputs.dataset_inputs}
    assert contexts == {"training", "validation", "testing"}


def test_trained_models_are_in_their_runs_but_for_the_large_weights_of_the_baseline(run):
    ws, candidate = run
    baseline = files.read_json(ws.runs)["runs"]["baseline_cnn"]
    names = [
        {Path(item.path).name for item in MlflowClient().list_artifacts(run_id, "trained")}
        for run_id in (candidate.info.run_id, baseline)
    ]
    assert names == [{"model.safetensors", "training.json"}, {"training.json"}]
    assert (ws.trained / "baseline_cnn" / "model.safetensors").stat().st_size > tracking.MAX_MODEL_FILE_BYTES


def test_artifacts_lie_in_the_place_that_was_named(run):
    ws, candidate = run
    assert candidate.info.artifact_uri.startswith(ws.artifacts.as_uri())
    names = {item.path for item in MlflowClient().list_artifacts(candidate.info.run_id, "bundle")}
    assert names == {"bundle/model.json", "bundle/model.onnx"}


def test_the_registered_model_has_a_signature_and_is_champion(run, packaged):
    _, made = packaged
    version = models.champion(made.registered)
    assert made.registered == "catsdogs--sample--cat--dog"
    assert str(version.version) == made.version
    assert version.tags["bundle_version"] == made.bundle.version
    info = mlflow.models.get_model_info(f"models:/{made.registered}@champion")
    assert info.signature.inputs.input_names() == ["image"]
    assert info.signature.outputs.input_names() == ["logits", "probabilities"]


def test_the_registered_model_answers_like_the_bundle(run, packaged):
    import numpy as np

    from catsdogs_lib.inference.classifier import Classifier

    _, made = packaged
    classifier = Classifier(made.bundle)
    golden = classifier.load(made.bundle.description.golden[0].data)
    model = mlflow.pyfunc.load_model(f"models:/{made.registered}@champion")
    answer = model.predict({"image": golden[None]})["probabilities"]
    assert np.asarray(answer) == pytest.approx(classifier.run([golden])[1], abs=1e-5)


def test_the_champions_bundle_can_be_fetched(run, packaged, tmp_path):
    _, made = packaged
    fetched = models.champion_bundle(models.champion(made.registered), tmp_path)
    assert fetched.version == made.bundle.version


@pytest.fixture
def store(empty_store, tmp_path):
    import shutil

    shutil.copy(empty_store, tmp_path / "mlflow.db")
    tracking.connect(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "mlartifacts")


def test_a_run_goes_on_under_its_id_and_an_unknown_id_starts_anew(store):
    with tracking.run("first") as run_id:
        tracking.log_parameters({"a": 1})
    with tracking.run("again", run_id) as same:
        tracking.log_parameters({"a": 2, "b": 3})
    assert same == run_id
    assert MlflowClient().get_run(run_id).data.params == {"a": "1", "b": "3"}
    with tracking.run("other", "0" * 32) as other:
        pass
    assert other != run_id


def test_a_file_names_the_run_to_resume_until_it_is_removed(store, tmp_path):
    resume = tmp_path / "checkpoints" / "run.json"
    with pytest.raises(KeyboardInterrupt), tracking.run("first", resume=resume) as run_id:
        raise KeyboardInterrupt
    with tracking.run("again", resume=resume) as same:
        pass
    assert same == run_id
    assert MlflowClient().get_run(run_id).info.status == "FINISHED"
    resume.unlink()
    with tracking.run("later", resume=resume) as other:
        pass
    assert other != run_id


def test_an_epoch_is_logged_once(store):
    with tracking.run("first") as run_id:
        for loss in (0.5, 0.4):
            tracking.log_epoch(Epoch(1, None, loss, 0.9, 1.0))
        tracking.log_epoch(Epoch(2, 0.6, 0.3, 0.9, 1.0))
    history = MlflowClient().get_metric_history(run_id, "val_loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.3)]


def test_a_failed_block_marks_the_run_as_failed(store):
    with pytest.raises(RuntimeError), tracking.run("broken") as run_id:
        raise RuntimeError
    assert MlflowClient().get_run(run_id).info.status == "FAILED"


def test_logging_outside_a_run_is_an_error(store):
    with pytest.raises(TrackingError, match="no MLflow run is active"):
        tracking.log_parameters({"a": 1})


def test_without_a_champion_there_is_none(store):
    assert models.champion("nobody") is None


def test_names_in_the_registry_are_plain():
    assert models.registered_name("my-photos", ["Hund / groß", "cat"]) == "catsdogs--my-photos--hund-groß--cat"
    assert models.registered_name("x", ["a-b", "c"]) != models.registered_name("x", ["a", "b-c"])


def test_a_store_that_cannot_be_used_is_a_sentence(tmp_path):
    (tmp_path / "mlflow.db").write_text("no database")
    with pytest.raises(TrackingError, match="check MLFLOW_TRACKING_URI"):
        tracking.connect(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)
