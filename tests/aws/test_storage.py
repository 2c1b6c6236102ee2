"""S3 as the service asks it: sizes before contents, addresses that S3 takes, a loop that goes on meanwhile."""

import asyncio
import hashlib
import threading

import httpx
import pytest

from catsdogs_lib.common.s3 import Address, ChangedError, MissingError, OpenedObject, Storage, StorageError
from catsdogs_lib.serving.app import create_app
from catsdogs_lib.serving.metrics_prometheus import ServerTelemetry
from catsdogs_lib.serving.model import Model
from catsdogs_lib.serving.settings import ServiceSettings

KEY = "a key"
NAME = "0" * 32


@pytest.fixture
def app(stack, classifier):
    """Give an application with the stack's bucket."""

    def made(**settings):
        place = {"key_sha256": hashlib.sha256(KEY.encode()).hexdigest(), "uploads": Address(stack.bucket, "uploads")}
        return create_app(Model(classifier), ServerTelemetry(), ServiceSettings(**place, **settings))

    return made


def session(app, talk):
    """Talk with an application in one event loop."""

    async def run():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers={"x-api-key": KEY}) as client:
            return await talk(client)

    return asyncio.run(run())


@pytest.mark.parametrize("limits", [{"max_body_bytes": 1000}, {"max_held_bytes": 1000}])
def test_an_upload_over_a_limit_is_never_read(app, stack, limits, monkeypatch):
    read = []
    monkeypatch.setattr(OpenedObject, "read", lambda opened: read.append(opened.size))
    stack.put(f"uploads/{NAME}", bytes(2000))

    async def ask(client):
        return await client.post("/predict", json={"key": f"uploads/{NAME}"})

    response = session(app(**limits), ask)
    assert response.json()["type"] == f"/problems/{'too-large' if 'max_body_bytes' in limits else 'busy'}"
    assert read == []


def test_what_uploads_held_is_given_back(app, stack, pictures):
    photo = pictures[0]
    stack.put(f"uploads/{NAME}", photo)

    async def ask(client):
        asked = [await client.post("/predict", json={"key": f"uploads/{NAME}"}) for _ in range(4)]
        return [response.status_code for response in asked]

    assert session(app(max_held_bytes=len(photo) + 200), ask) == [200] * 4


def test_others_are_answered_while_s3_is_waited_for(app, stack, pictures, monkeypatch):
    stack.put(f"uploads/{NAME}", pictures[0])
    asked, go_on, read = threading.Event(), threading.Event(), OpenedObject.read

    def slow(opened):
        asked.set()
        assert go_on.wait(30)
        return read(opened)

    monkeypatch.setattr(OpenedObject, "read", slow)

    async def ask(client):
        waiting = asyncio.create_task(client.post("/predict", json={"key": f"uploads/{NAME}"}))
        await asyncio.to_thread(asked.wait, 30)
        health = await client.get("/health")
        assert not waiting.done()
        go_on.set()
        return health.status_code, (await waiting).status_code

    assert session(app(), ask) == (200, 200)


def test_a_row_is_written_only_in_the_place_of_what_was_seen(stack):
    storage = Storage()

    def write(data, replaces):
        storage.write(stack.bucket, "results/a.json", data, "application/json", {"n": data.decode()}, replaces)

    assert storage.head(stack.bucket, "results/a.json") is None
    write(b"1", None)
    with pytest.raises(ChangedError):
        write(b"2", None)
    seen = storage.head(stack.bucket, "results/a.json")
    assert seen.metadata == {"n": "1"}
    write(b"3", seen)
    with pytest.raises(ChangedError):
        write(b"4", seen)
    with storage.open(stack.bucket, "results/a.json") as opened:
        assert (opened.size, opened.read()) == (1, b"3")


def test_what_is_missing_and_what_fails_are_told_apart(stack):
    with pytest.raises(MissingError):
        Storage().open(stack.bucket, "none")
    with pytest.raises(StorageError, match="bucket") as raised:
        Storage().open("no-such-bucket-here", "none")
    assert not isinstance(raised.value, MissingError)


def test_forms_are_posted_to_the_bucket_in_its_region_signed_with_version_4(monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_SESSION_TOKEN": "t",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }.items():
        monkeypatch.setenv(name, value)
    form = Storage().form("bucket", "uploads/a", 10, 60)
    assert form.url == "https://bucket.s3.eu-central-1.amazonaws.com/"
    assert form.fields["x-amz-algorithm"] == "AWS4-HMAC-SHA256"
    assert form.fields["x-amz-security-token"] == "t"
