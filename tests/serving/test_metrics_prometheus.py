"""Figures of a server before and after requests: names, labels, and how many series there can be."""

from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.serving.app import create_app
from catsdogs_lib.serving.metrics_prometheus import ServerTelemetry
from catsdogs_lib.serving.model import Model
from catsdogs_lib.serving.problems import KINDS

HOSTILE = ('cat" } 1\nup{job="x', "dog\\")


def series(telemetry):
    """Every series with its value, read back as Prometheus reads it."""
    families = text_string_to_metric_families(telemetry.exposition()[0])
    return {(one.name, *sorted(one.labels.items())): one.value for family in families for one in family.samples}


def own(found):
    return {key for key in found if not key[0].startswith("process_")}


def test_what_is_counted_is_there_with_nought_before_the_first_request(telemetry):
    found = series(telemetry)
    for name in KINDS:
        assert found["problems_total", ("problem", name)] == 0
    for name in ("cat", "dog"):
        assert found["predictions_by_class_total", ("class_name", name)] == 0
        assert found["prediction_confidence_count", ("class_name", name)] == 0
    for status in ("200", "415", "499", "500", "503"):
        assert found["prediction_requests_total", ("status", status)] == 0


def test_the_model_s_figure_says_where_it_comes_from(model, monkeypatch):
    monkeypatch.setenv("CATSDOGS_IMAGE", "catsdogs@sha256:0")
    bundle = model.classifier.bundle
    (labels,) = [dict(key[1:]) for key in series(ServerTelemetry(bundle)) if key[0] == "model_info"]
    assert labels == {
        "model_version": bundle.version,
        "mlflow_run": bundle.description.mlflow_run,
        "git_commit": bundle.description.git_commit,
        "data": bundle.description.data.sha256,
        "image": "catsdogs@sha256:0",
    }
    assert "model_info" not in {key[0] for key in series(ServerTelemetry())}


def test_an_answer_is_counted_under_its_class(ask, telemetry, photo):
    answer = ask.post("/predict", content=photo, headers={"content-type": "image/png"}).json()
    found, label = series(telemetry), ("class_name", answer["prediction"])
    assert found["prediction_confidence_count", label] == found["predictions_by_class_total", label] == 1
    assert found["prediction_confidence_sum", label] == answer["confidence"]


def test_hostile_names_of_classes_stay_within_their_label(model, photo, tmp_path):
    given = model.classifier.bundle.description
    renamed = dict(zip(given.classes, HOSTILE, strict=True))
    golden = tuple(
        one.model_copy(update={"probabilities": {renamed[name]: p for name, p in one.probabilities.items()}})
        for one in given.golden
    )
    described = given.model_copy(update={"classes": HOSTILE, "golden": golden})
    bundle = Bundle.write(tmp_path / "hostile", described, model.classifier.bundle.graph)
    telemetry = ServerTelemetry(bundle)
    before = series(telemetry)
    client = TestClient(create_app(Model(Classifier(bundle, 1)), telemetry))
    answer = client.post("/predict", content=photo, headers={"content-type": "image/png"}).json()
    after = series(telemetry)
    assert own(after) == own(before)
    assert after["predictions_by_class_total", ("class_name", answer["prediction"])] == 1
    assert {dict(key[1:])["class_name"] for key in after if key[0] == "predictions_by_class_total"} == set(HOSTILE)
