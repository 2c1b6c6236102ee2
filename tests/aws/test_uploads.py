"""A photo too large for a request: its form, the upload to S3, the answer by its key."""

import base64
import contextlib
import datetime
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from catsdogs_lib.common.s3 import Address
from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.serving import auth
from catsdogs_lib.serving.app import create_app
from catsdogs_lib.serving.metrics_prometheus import ServerTelemetry
from catsdogs_lib.serving.model import Model
from catsdogs_lib.serving.settings import ServiceSettings

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
CATSDOGS = Path(sys.executable).parent / "catsdogs"
KEY = auth.new_key()


@pytest.fixture(scope="module")
def large() -> bytes:
    """A photo of 12 MB."""
    drawn = np.asarray(draw("dog", 36, (1000, 750)).resize((4000, 3000)), dtype=np.int16)
    noise = np.random.default_rng(1).integers(-60, 60, drawn.shape, dtype=np.int16)
    stream = io.BytesIO()
    Image.fromarray(np.clip(drawn + noise, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=97)
    assert 12e6 < len(stream.getvalue()) < 16e6
    return stream.getvalue()


@pytest.fixture(params=[["serve"], ["function-url"]], ids=lambda command: command[0])
def endpoint(request, stack):
    """uvicorn, and the handler behind a Function URL, each with the bucket of a stack."""
    environment = {
        **os.environ,
        **stack.environment,
        "CATSDOGS_KEY_SHA256": KEY.sha256,
        "CATSDOGS_UPLOADS": f"s3://{stack.bucket}/uploads",
    }
    command = [CATSDOGS, *request.param, "--port", "0"]
    with contextlib.ExitStack() as opened:
        process = opened.enter_context(
            subprocess.Popen(
                command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
        opened.callback(process.terminate)
        url = re.search(r"http://\S+:\d+", process.stderr.readline())[0]
        yield opened.enter_context(httpx.Client(base_url=url, headers={"x-api-key": KEY.key}, timeout=60))


def policy_of(form):
    return json.loads(base64.b64decode(form["fields"]["policy"]))


def test_a_photo_of_12_mb_is_uploaded_and_answered(endpoint, stack, large, classifier):
    before = datetime.datetime.now(datetime.UTC)
    response = endpoint.post("/uploads")
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    form = response.json()
    assert re.fullmatch("uploads/[0-9a-f]{32}", form["key"])

    # moto does not hold an upload to its policy, S3 does.
    policy = policy_of(form)
    limit = ServiceSettings().max_body_bytes
    assert ["content-length-range", 1, limit] in policy["conditions"]
    assert {"key": form["key"]} in policy["conditions"]
    assert {"bucket": stack.bucket} in policy["conditions"]
    assert ["starts-with", "$Content-Type", "image/"] in policy["conditions"]
    assert not [c for c in policy["conditions"] if isinstance(c, list) and c[:2] == ["starts-with", "$key"]]
    expires = datetime.datetime.fromisoformat(policy["expiration"])
    assert abs((expires - before).total_seconds() - form["expires_seconds"]) < 20
    assert (form["expires_seconds"], form["max_bytes"]) == (300, limit)
    named = {next(iter(c)) if isinstance(c, dict) else str(c[1]).removeprefix("$") for c in policy["conditions"]}
    assert set(form["fields"]) - {"policy", "x-amz-signature"} <= named, (
        "S3 refuses fields that the policy does not name"
    )

    uploaded = httpx.post(
        form["url"], data=form["fields"], files={"file": ("large.jpg", large, "image/jpeg")}, timeout=60
    )
    assert uploaded.status_code == 204, uploaded.text
    assert stack.listed("uploads/") == [form["key"]]
    answer = endpoint.post("/predict", json={"key": form["key"]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["probabilities"] == pytest.approx(classifier.predict(large).probabilities, abs=1e-3)


def test_uploads_that_cannot_be_used_are_problems(endpoint, stack):
    def ask(name, data=None):
        key = f"uploads/{name * 32}"
        if data is not None:
            stack.put(key, data)
        response = endpoint.post("/predict", json={"key": key})
        return response.status_code, response.json()["type"].removeprefix("/problems/")

    assert ask("0") == (404, "no-upload")
    assert ask("1", b"no photo") == (415, "not-a-photo")
    assert ask("2", b"") == (400, "no-photo")
    assert ask("3", bytes(ServiceSettings().max_body_bytes + 1)) == (413, "too-large")
    anyone = httpx.post(f"{endpoint.base_url}/uploads")
    assert anyone.status_code == 401


def test_each_form_is_for_a_key_of_its_own(endpoint):
    forms = [endpoint.post("/uploads").json() for _ in range(3)]
    assert len({form["key"] for form in forms}) == 3
    assert len({form["fields"]["policy"] for form in forms}) == 3


def test_an_upload_counts_as_held_before_it_is_read(stack, pictures):
    key = f"uploads/{'4' * 32}"
    stack.put(key, pictures[0])
    model = Model.load(ROOT / "models" / "reference")

    def ask(most):
        settings = ServiceSettings(
            key_sha256=KEY.sha256, uploads=Address(stack.bucket, "uploads"), max_held_bytes=len(pictures[0]) + most
        )
        app = create_app(model, ServerTelemetry(model.classifier.bundle), settings)
        return TestClient(app).post("/predict", json={"key": key}, headers={"x-api-key": KEY.key})

    assert ask(100).status_code == 200  # room for the JSON, too
    refused = ask(0)
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/busy")
