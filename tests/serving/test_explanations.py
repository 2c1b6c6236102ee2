"""``POST /explain``: the answer of ``/predict``, and where it came from."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

PNG = {"content-type": "image/png"}


def test_an_explanation_holds_the_answer_the_map_and_its_picture(ask, photo, model):
    answer = ask.post("/predict", content=photo, headers=PNG).json()
    response = ask.post("/explain", content=photo, headers=PNG)
    assert response.status_code == 200
    found = response.json()
    for name in ("prediction", "confidence", "probabilities", "confident", "reason", "model_version"):
        assert found[name] == answer[name], name
    heat = np.array(found["map"])
    assert heat.ndim == 2
    assert np.ptp(heat) > 0
    head, data = found["overlay"].split(",", 1)
    assert head == "data:image/png;base64"
    size = model.classifier.bundle.description.preprocessing.size
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert (picture.format, picture.size) == ("PNG", (size, size))


def test_the_picture_alone_is_sent_to_who_accepts_only_that(ask, photo):
    both = ask.post("/explain", content=photo, headers=PNG).json()["overlay"]
    response = ask.post("/explain", content=photo, headers={**PNG, "accept": "image/png"})
    assert response.headers["content-type"] == "image/png"
    assert response.content == base64.b64decode(both.split(",", 1)[1])


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("image/png", "image/png"),
        (" Image/PNG ; q=0.9", "image/png"),
        ("image/png, application/json", "application/json"),
        ("image/png;q=0.1,*/*", "application/json"),
        ("image/pngx", "application/json"),
        ("application/json", "application/json"),
    ],
)
def test_the_answer_is_a_picture_only_where_nothing_else_is_accepted(ask, photo, accept, media_type):
    response = ask.post("/explain", content=photo, headers={**PNG, "accept": accept})
    assert response.headers["content-type"] == media_type


def test_what_is_no_photo_is_refused_as_by_predict(ask):
    response = ask.post("/explain", content=b"text", headers={"content-type": "image/jpeg"})
    assert (response.status_code, response.json()["type"]) == (415, "/problems/not-a-photo")


def test_an_explanation_is_no_answer_to_monitor(ask, photo, caplog, telemetry):
    with caplog.at_level("INFO", "catsdogs"):
        ask.post("/explain", content=photo, headers=PNG)
    assert [line for line in caplog.records if line.getMessage() == "prediction"] == []
    assert telemetry.registry.get_sample_value("prediction_confidence_count") in (0, None)
