"""Who has the key tells what was on a photo; the truth becomes a line of the log."""

import hashlib

import pytest
from starlette.testclient import TestClient

from catsdogs_lib.serving.app import create_app
from catsdogs_lib.serving.settings import ServiceSettings

KEY = "Zmee2FtzVb5HhEHr8Z1qW0k0cQm3GqQ-6Jx1Tn_0aA4"
ID = "0123456789abcdef" * 2


@pytest.fixture
def client(model, telemetry):
    settings = ServiceSettings(key_sha256=hashlib.sha256(KEY.encode()).hexdigest())
    return TestClient(create_app(model, telemetry, settings), raise_server_exceptions=False)


def tell(client, key=KEY, **body):
    return client.post("/feedback", json=body, headers={"x-api-key": key})


def test_without_a_key_there_is_no_feedback(ask):
    assert ask.post("/feedback", json={"prediction_id": ID, "truth": "cat"}).status_code == 404
    assert "/feedback" not in ask.get("/openapi.json").json()["paths"]


def test_a_truth_becomes_a_line_of_the_log(client, model, telemetry, caplog):
    truth = model.classifier.classes[0]
    with caplog.at_level("INFO", "catsdogs"):
        response = tell(client, prediction_id=ID, truth=truth)
    assert (response.status_code, response.json()) == (202, {"status": "kept"})
    line = caplog.records[-1]
    assert line.getMessage() == "feedback"
    assert (line.fields["prediction_id"], line.fields["truth"]) == (ID, truth)
    assert telemetry.registry.get_sample_value("feedback_total") == 1


def test_a_stranger_cannot_poison_it(client, model, telemetry, caplog):
    with caplog.at_level("INFO", "catsdogs"):
        assert tell(client, "wrong", prediction_id=ID, truth=model.classifier.classes[0]).status_code == 401
    assert "truth" not in caplog.records[-1].fields
    assert telemetry.registry.get_sample_value("feedback_total") == 0


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"prediction_id": ID, "truth": "unicorn"}, "none of the classes"),
        ({"prediction_id": "1", "truth": "cat"}, "prediction_id"),
        ({"prediction_id": ID}, "truth"),
        ({"prediction_id": ID, "truth": "cat", "more": 1}, "more"),
    ],
)
def test_what_is_not_an_id_and_a_class_is_refused(client, telemetry, body, said):
    response = tell(client, **body)
    assert response.status_code == 400
    assert said in response.json()["detail"]
    assert telemetry.registry.get_sample_value("feedback_total") == 0


def test_a_long_body_is_refused(client):
    assert tell(client, prediction_id=ID, truth="c" * 5000).status_code == 413


def test_an_answer_leaves_a_record_without_the_photo(ask, photo, caplog):
    with caplog.at_level("INFO", "catsdogs"):
        answer = ask.post("/predict", content=photo, headers={"content-type": "image/png"}).json()
    line = caplog.records[-1]
    fields = line.fields
    assert line.getMessage() == "prediction"
    assert fields["prediction_id"] == answer["prediction_id"]
    assert fields["photo_format"] == "PNG"
    assert sum(fields["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    for name in ("unfamiliarity", "confident", "photo_width", "photo_height", "photo_brightness", "photo_sharpness"):
        assert name in fields
    assert not any(isinstance(value, bytes) for value in fields.values())
