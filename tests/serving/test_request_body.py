"""Bodies are read within limits on size and rate; compressed ones are refused with the encoding named."""

import contextlib
import gzip
import hashlib
import select
import time

import pytest
from starlette.testclient import TestClient

from catsdogs_lib.common.s3 import Address
from catsdogs_lib.serving import request_body
from catsdogs_lib.serving.app import create_app
from catsdogs_lib.serving.settings import ServiceSettings

KEY = "a key"
WITH_KEY = ServiceSettings(key_sha256=hashlib.sha256(KEY.encode()).hexdigest(), uploads=Address("bucket", "uploads"))


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "gzip, identity", "nonsense"])
def test_a_compressed_body_is_refused_by_its_encoding(ask, photo, encoding):
    headers = {"content-type": "image/png", "content-encoding": encoding}
    response = ask.post("/predict", content=gzip.compress(photo), headers=headers)
    assert (response.status_code, response.json()["type"]) == (415, "/problems/content-encoding")
    assert response.headers["accept-encoding"] == "identity"
    assert f"'{encoding.lower()}'" in response.json()["detail"]


def test_a_body_that_says_it_is_not_compressed_is_read(ask, photo):
    headers = {"content-type": "image/png", "content-encoding": "identity"}
    assert ask.post("/predict", content=photo, headers=headers).status_code == 200


def test_feedback_is_read_as_every_body_is(model, telemetry):
    client = TestClient(create_app(model, telemetry, WITH_KEY), headers={"x-api-key": KEY})
    body = gzip.compress(b"{}")
    response = client.post("/feedback", content=body, headers={"content-encoding": "gzip"})
    assert response.json()["type"] == "/problems/content-encoding"
    assert "415" in client.get("/openapi.json").json()["paths"]["/feedback"]["post"]["responses"]


@pytest.mark.parametrize(("path", "status"), [("/predict", 400), ("/feedback", 413)])
def test_long_json_is_not_parsed(model, telemetry, path, status):
    client = TestClient(create_app(model, telemetry, WITH_KEY), headers={"x-api-key": KEY})
    body = b"{" + b'"a":0,' * 500_000 + b'"b":0}'
    start = time.process_time()
    response = client.post(path, content=body, headers={"content-type": "application/json"})
    assert response.status_code == status
    assert "4096 bytes" in response.json()["detail"]
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize("first", [1, 500_000])
def test_a_body_below_the_minimum_rate_is_refused(model, telemetry, serve, raw_client, monkeypatch, first):
    """Bytes sent early do not make up for a low rate later."""
    monkeypatch.setattr(request_body, "RATE_SECONDS", 0.5)
    client = raw_client(serve(create_app(model, telemetry, ServiceSettings(body_seconds=3))))
    with client.connect() as connection:
        connection.sendall(client.head(10**6) + bytes(first))
        with contextlib.suppress(ConnectionError):
            while not select.select([connection], [], [], 0.05)[0]:
                connection.sendall(b"x")
        status, document = client.answer(connection)
    assert (status, document["type"]) == (408, "/problems/slow-body")
    assert "less than 8 KiB a second" in document["detail"]


def test_a_slow_body_above_the_minimum_rate_is_read(model, telemetry, serve, raw_client, monkeypatch, photo):
    monkeypatch.setattr(request_body, "RATE_SECONDS", 0.5)
    client = raw_client(serve(create_app(model, telemetry)))
    with client.connect() as connection:
        connection.sendall(client.head(len(photo), more="connection: close\r\n"))
        for at in range(0, len(photo), 4096):
            connection.sendall(photo[at : at + 4096])
            time.sleep(0.1)
        assert client.answer(connection)[0] == 200
