"""What is refused before S3 is asked, and that S3's tools are loaded only where they are wanted."""

import hashlib
import subprocess
import sys

import pytest
from starlette.testclient import TestClient

from catsdogs_lib.common.s3 import Address
from catsdogs_lib.serving.app import create_app
from catsdogs_lib.serving.settings import ServiceSettings

KEY = "a key"
SETTINGS = {"key_sha256": hashlib.sha256(KEY.encode()).hexdigest(), "uploads": Address("bucket", "some/uploads")}
NAME = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def client(model, telemetry):
    return lambda **settings: TestClient(
        create_app(model, telemetry, ServiceSettings(**settings)),
        raise_server_exceptions=False,
        headers={"x-api-key": KEY},
    )


@pytest.mark.parametrize("without", ["key_sha256", "uploads"])
def test_without_key_or_place_there_are_no_uploads(client, without):
    closed = client(**{name: value for name, value in SETTINGS.items() if name != without})
    assert closed.post("/uploads").status_code == 404
    response = closed.post("/predict", json={"key": f"some/uploads/{NAME}"})
    assert response.status_code == 415
    document = closed.get("/openapi.json").json()
    assert "/uploads" not in document["paths"]
    assert "application/json" not in document["paths"]["/predict"]["post"]["requestBody"]["content"]


def test_uploads_are_in_the_openapi_document_where_they_are_on(client):
    document = client(**SETTINGS).get("/openapi.json").json()
    upload, predict = document["paths"]["/uploads"]["post"], document["paths"]["/predict"]["post"]
    assert {"201", "401", "500", "503"} <= set(upload["responses"])
    assert upload["security"]
    assert {"401", "404"} <= set(predict["responses"])
    schema = predict["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["key"]


@pytest.mark.parametrize(
    "key",
    [
        "",
        NAME,
        f"uploads/{NAME}",
        f"some/uploads/../uploads/{NAME}",
        f"some/uploads//{NAME}",
        f"/some/uploads/{NAME}",
        f"some/uploads/{NAME}/",
        f"some/uploads/{NAME.upper()}",
        f"some/uploads/{NAME}\n",
        f"some/uploads/{NAME[:-1]}",
        f"some/uploads/x/{NAME}",
        "some/uploads/..%2fresults",
        "results/incoming/a.jpg.json",
        f"some/uploads/{NAME}\0",
    ],
)
def test_only_keys_of_uploads_are_looked_for(client, key):
    # There is no S3 here: a key that came so far would end with 503.
    response = client(**SETTINGS).post("/predict", json={"key": key})
    assert (response.status_code, response.json()["type"]) == (404, "/problems/no-upload")


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b'{"key": 1}', b'{"key": "a", "bucket": "b"}', b'{"path": "a"}', b"\xff", b"[" * 100_000]
)
def test_json_of_another_shape_is_malformed(client, body):
    response = client(**SETTINGS).post("/predict", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["type"]) == (400, "/problems/malformed-request")
    assert '{"key": ...}' in response.json()["detail"]


def test_where_s3_cannot_be_asked_the_sender_hears_no_names_and_the_log_does(client, monkeypatch, caplog):
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level("INFO", "catsdogs"):
        response = client(**SETTINGS).post("/predict", json={"key": f"some/uploads/{NAME}"})
    assert (response.status_code, response.json()["type"]) == (503, "/problems/store-failed")
    assert response.headers["retry-after"]
    assert "bucket" not in response.text
    assert "s3://bucket/some/uploads" in caplog.records[-1].fields["cause"]


@pytest.mark.parametrize("uploads", ["", "s3://bucket/uploads"])
def test_the_handler_starts_without_the_tools_of_s3(uploads):
    code = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('handler', 'lambda/handler.py')\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "print(sorted({'boto3', 'botocore.session', 'botocore.client'} & set(sys.modules)))"
    )
    environment = {"CATSDOGS_BUNDLE": "models/reference", "CATSDOGS_UPLOADS": uploads, "CATSDOGS_KEY_SHA256": "0" * 64}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "[]\n", done.stderr


def test_without_the_tools_of_s3_the_service_says_what_to_install():
    code = (
        "import sys; sys.modules['botocore'] = None\n"
        "sys.argv[1:] = ['serve', '--port', '0']\n"
        "from catsdogs_lib.cli import main; main()"
    )
    environment = {"CATSDOGS_UPLOADS": "s3://bucket/uploads", "CATSDOGS_KEY_SHA256": "0" * 64}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "catsdogs[aws]" in done.stderr
    assert done.stderr.count("\n") == 1
