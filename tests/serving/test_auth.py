"""Who has the key gets in; the service itself knows only its digest."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from catsdogs_lib.common.errors import SettingsError
from catsdogs_lib.common.s3 import Address
from catsdogs_lib.serving import auth
from catsdogs_lib.serving.app import create_app
from catsdogs_lib.serving.settings import ServiceSettings

CATSDOGS = Path(sys.executable).parent / "catsdogs"
KEY = "Zmee2FtzVb5HhEHr8Z1qW0k0cQm3GqQ-6Jx1Tn_0aA4"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()


@pytest.fixture
def client(model, telemetry):
    """Give a client of an application with a key."""

    def made(**settings):
        app = create_app(model, telemetry, ServiceSettings(**{"key_sha256": DIGEST, **settings}))
        return TestClient(app, raise_server_exceptions=False)

    return made


def send(client, photo, key=None):
    named = {} if key is None else {"x-api-key": key}
    return client.post("/predict", content=photo, headers={"content-type": "image/png", **named})


def test_a_photo_with_the_key_is_answered(client, photo):
    assert send(client(), photo, KEY).status_code == 200


@pytest.mark.parametrize("key", [None, "", "wrong", KEY[:-1], f"{KEY} ", DIGEST, "ключ".encode()])
def test_a_photo_without_the_right_key_is_not(client, photo, key, telemetry, caplog):
    with caplog.at_level("INFO", "catsdogs"):
        response = send(client(), photo, key)
    document = response.json()
    assert (response.status_code, document["type"]) == (401, "/problems/key-needed")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["www-authenticate"].startswith("ApiKey ")
    assert "x-api-key" in document["detail"]
    assert DIGEST not in response.text
    if key:
        assert "not the right one" in document["detail"]
    assert telemetry.registry.get_sample_value("problems_total", {"problem": "key-needed"}) == 1
    assert telemetry.registry.get_sample_value("prediction_latency_seconds_count") == 0
    assert caplog.records[-1].fields["problem"] == "key-needed"
    assert not key or str(key) not in str(caplog.records[-1].fields)


def test_a_key_may_hold_any_letters(client, photo):
    key = "schlüssel 鍵"
    opened = client(key_sha256=hashlib.sha256(key.encode()).hexdigest())
    assert send(opened, photo, key.encode()).status_code == 200


def test_who_has_no_key_sends_a_body_for_nothing(client):
    sent = 0

    def body():
        nonlocal sent
        sent += 1
        yield bytes(100)

    opened = client()
    assert opened.post("/predict", content=body(), headers={"content-type": "image/png"}).status_code == 401
    # Held to no limit of the body: it is not read.
    assert send(client(max_held_bytes=0), b"x" * 1000).status_code == 401


def test_reading_needs_no_key(client):
    opened = client()
    for path in ("/", "/health", "/ready", "/version", "/metrics", "/docs", "/openapi.json", "/static/page.js"):
        assert opened.get(path).status_code == 200


def test_where_only_writing_is_covered_a_photo_needs_no_key(client, photo):
    opened = client(key_covers="writes", uploads=Address("bucket", "uploads"))
    assert send(opened, photo).status_code == 200
    assert opened.post("/uploads").status_code == 401
    assert opened.post("/predict", json={"key": "uploads/0"}).status_code == 401
    for disguised in ("Application/JSON; charset=utf-8", " application/json ;"):
        response = opened.post("/predict", content=b'{"key": "a"}', headers={"content-type": disguised})
        assert response.status_code == 401, disguised


def test_where_only_writing_is_covered_an_explanation_still_needs_the_key(client, photo):
    opened = client(key_covers="writes")
    headers = {"content-type": "image/png"}
    assert opened.post("/explain", content=photo, headers=headers).status_code == 401
    assert opened.post("/explain", content=photo, headers={**headers, "x-api-key": KEY}).status_code == 200
    paths = opened.get("/openapi.json").json()["paths"]
    assert paths["/explain"]["post"]["security"] == [{"key": []}]
    assert paths["/predict"]["post"]["security"] != paths["/explain"]["post"]["security"]


OLD_KEY = "Q1w2E3r4T5y6U7i8O9p0"
OLD_DIGEST = hashlib.sha256(OLD_KEY.encode()).hexdigest()


@pytest.mark.parametrize("between", [",", " ", ", ", "\n", " , "])
def test_while_a_key_is_replaced_either_opens(client, photo, between):
    opened = client(key_sha256=f"{OLD_DIGEST}{between}{DIGEST}", uploads=Address("bucket", "uploads"))
    assert send(opened, photo, OLD_KEY).status_code == send(opened, photo, KEY).status_code == 200
    for key in (None, "wrong", f"{OLD_KEY},{KEY}", OLD_DIGEST, f"{OLD_DIGEST},{DIGEST}"):
        assert send(opened, photo, key).status_code == 401
    assert opened.post("/feedback", headers={"x-api-key": OLD_KEY}).status_code == 400
    assert opened.post("/feedback", headers={"x-api-key": "wrong"}).status_code == 401


def test_both_digests_are_compared_whichever_matches(client, photo, monkeypatch):
    compared = []
    monkeypatch.setattr(auth.hmac, "compare_digest", lambda digest, known: compared.append(known) or digest == known)
    opened = client(key_sha256=f"{DIGEST},{OLD_DIGEST}")
    for key in (KEY, OLD_KEY, "wrong"):
        send(opened, photo, key)
    assert compared == [DIGEST, OLD_DIGEST] * 3


def test_the_key_is_in_the_openapi_document_where_there_is_one(client, ask):
    without = ask.get("/openapi.json").json()
    assert "securitySchemes" not in without.get("components", {})
    assert "401" not in without["paths"]["/predict"]["post"]["responses"]
    document = client().get("/openapi.json").json()
    (scheme,) = document["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", "x-api-key")
    predict = document["paths"]["/predict"]["post"]
    assert predict["security"] == [{"key": []}]
    assert list(predict["responses"]["401"]["content"]) == ["application/problem+json"]
    assert "security" not in document["paths"]["/health"]["get"]
    optional = client(key_covers="writes").get("/openapi.json").json()["paths"]["/predict"]["post"]
    assert {} in optional["security"]


def test_settings_come_from_the_environment(monkeypatch):
    limits = "CATSDOGS_QUEUE_SECONDS", "CATSDOGS_CLIENT_MIB"
    for name in ("CATSDOGS_KEY_SHA256", "CATSDOGS_KEY_COVERS", "CATSDOGS_UPLOADS", "CATSDOGS_FORMATS", *limits):
        monkeypatch.setenv(name, "")  # as CloudFormation passes what is not set
    assert ServiceSettings.from_environment() == ServiceSettings()
    monkeypatch.setenv("CATSDOGS_KEY_SHA256", DIGEST.upper())
    monkeypatch.setenv("CATSDOGS_KEY_COVERS", "writes")
    monkeypatch.setenv("CATSDOGS_UPLOADS", "s3://a-bucket/some/uploads/")
    for name, value in zip(limits, ("2.5", "96"), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CATSDOGS_FORMATS", "jpeg, PNG,WEBP,PNG")
    found = ServiceSettings.from_environment()
    assert (found.queue_seconds, found.max_client_bytes) == (2.5, 96 * 2**20)
    assert found.formats == ("JPEG", "PNG", "WEBP")
    assert (found.key_sha256, found.key_covers) == (DIGEST, "writes")
    assert found.uploads == Address("a-bucket", "some/uploads")
    monkeypatch.setenv("CATSDOGS_KEY_SHA256", f" {OLD_DIGEST.upper()},{DIGEST}\n")
    assert ServiceSettings.from_environment().key_digests == (OLD_DIGEST, DIGEST)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CATSDOGS_KEY_SHA256", KEY),
        ("CATSDOGS_KEY_SHA256", DIGEST[:-1]),
        ("CATSDOGS_KEY_SHA256", f"{DIGEST[:-1]}g"),
        ("CATSDOGS_KEY_SHA256", ","),
        ("CATSDOGS_KEY_SHA256", f"{DIGEST},"),
        ("CATSDOGS_KEY_SHA256", f"{DIGEST}{DIGEST}"),
        ("CATSDOGS_KEY_SHA256", f"{DIGEST},{KEY}"),
        ("CATSDOGS_KEY_SHA256", f"{DIGEST},{DIGEST},{DIGEST}"),
        ("CATSDOGS_KEY_COVERS", "nothing"),
        ("CATSDOGS_UPLOADS", "bucket/uploads"),
        ("CATSDOGS_UPLOADS", "s3://bucket"),
        ("CATSDOGS_UPLOADS", "s3://bucket/"),
        ("CATSDOGS_UPLOADS", "s3://Bad_Bucket/uploads"),
        *(("CATSDOGS_QUEUE_SECONDS", value) for value in ("0", "-1", "nan", "inf", "ten")),
        ("CATSDOGS_CLIENT_MIB", "0"),
        ("CATSDOGS_FORMATS", "JPEG,AVIF"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_and_a_key_in_its_place_is_not_repeated(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as raised:
        ServiceSettings.from_environment()
    assert KEY not in str(raised.value)


def test_a_malformed_digest_is_a_sentence_and_no_start():
    environment = {**os.environ, "CATSDOGS_KEY_SHA256": KEY}
    done = subprocess.run([CATSDOGS, "serve", "--port", "0"], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "CATSDOGS_KEY_SHA256" in done.stderr
    assert done.stderr.count("\n") == 1
    assert KEY not in done.stderr


def test_the_command_makes_another_key_each_time_with_its_digest():
    made = set()
    for _ in range(2):
        done = subprocess.run([CATSDOGS, "key"], capture_output=True, text=True, check=True)
        key, digest = re.fullmatch(r"CATSDOGS_KEY=(\S+)\nCATSDOGS_KEY_SHA256=([0-9a-f]{64})\n", done.stdout).groups()
        assert hashlib.sha256(key.encode()).hexdigest() == digest
        assert len(key) >= 43
        made.add(key)
    assert len(made) == 2


def test_a_key_is_drawn_from_256_bits():
    assert len({auth.new_key().key for _ in range(100)}) == 100
    assert all(re.fullmatch(r"[\w-]{43}", auth.new_key().key) for _ in range(20))
