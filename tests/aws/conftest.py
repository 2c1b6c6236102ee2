"""moto's server as a process of its own, and what a stack has in it: a bucket, its queue, dead letters, a table."""

import importlib.util
import io
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from catsdogs_lib.inference.classifier import Classifier

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "models" / "reference"
POLLER = Path(__file__).with_name("poller.py")
VISIBILITY_SECONDS = 4


@pytest.fixture(scope="session")
def moto(tool, tmp_path_factory):
    """The environment in which AWS's clients find moto's server, and nothing else."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # Distributed maps and what they call are run, not only stored.
    settings = {
        "MOTO_STEPFUNCTIONS_CONFIG": json.dumps({"execute_state_machine": True}),
        "SF_EXECUTE_STATE_MACHINE": "true",
    }
    log = tmp_path_factory.mktemp("moto") / "log.txt"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "COVERAGE"))}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [tool("moto") / "moto_server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**environment, **settings},
        )
    try:
        until = time.monotonic() + 60
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            except OSError:
                time.sleep(0.05)
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    finally:
        process.terminate()
        process.wait(30)


@dataclass
class Stack:
    """What a stack has, with clients to look at it."""

    environment: dict[str, str]
    bucket: str
    queue: str
    letters: str
    s3: Any
    sqs: Any

    def rows(self) -> dict[str, dict[str, Any]]:
        """The row of each photo, by the photo's key."""
        rows = {}
        for found in self.listed("results/"):
            body = self.s3.get_object(Bucket=self.bucket, Key=found)["Body"].read()
            rows[found.removeprefix("results/").removesuffix(".json")] = json.loads(body)
        return rows

    def listed(self, prefix: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]

    def writes(self, prefix: str) -> list[str]:
        """The key of every write that there has been: the bucket keeps versions."""
        pages = self.s3.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Versions", ())]

    def put(self, key: str, data: bytes) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=data)

    def take(self, queue: str) -> list[dict[str, Any]]:
        """Take all messages out of a queue."""
        taken = []
        while found := self.sqs.receive_message(
            QueueUrl=queue, MaxNumberOfMessages=10, AttributeNames=["All"], MessageAttributeNames=["All"]
        ).get("Messages"):
            for message in found:
                self.sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
            taken += found
        return taken

    def dead(self) -> list[dict[str, Any]]:
        """Body of each dead letter, with its attributes."""
        return [
            {
                "attributes": {name: value["StringValue"] for name, value in message["MessageAttributes"].items()},
                **json.loads(message["Body"]),
            }
            for message in self.take(self.letters)
        ]

    def poll(self, **seams: Any) -> subprocess.CompletedProcess:
        """Run the function on the queue, in a process of its own, until the queue is empty or a seam ends it."""
        environment = {**os.environ, **self.environment, **{name: str(value) for name, value in seams.items()}}
        return subprocess.run(
            [sys.executable, POLLER, self.queue], env=environment, capture_output=True, text=True, timeout=180
        )


def client(moto: dict[str, str], service: str) -> Any:
    import boto3

    return boto3.client(
        service,
        endpoint_url=moto["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )


@pytest.fixture
def aws(moto, monkeypatch):
    """Clients made in this process find moto: ``aws("s3")`` gives one."""
    for name, value in moto.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return lambda service: client(moto, service)


@pytest.fixture
def stack(aws, moto) -> Stack:
    name = f"catsdogs-{uuid.uuid4().hex[:12]}"
    s3, sqs, tables = aws("s3"), aws("sqs"), aws("dynamodb")
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    letters = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    policy = {"deadLetterTargetArn": arn(sqs, letters), "maxReceiveCount": "8"}
    attributes = {"VisibilityTimeout": str(VISIBILITY_SECONDS), "RedrivePolicy": json.dumps(policy)}
    queue = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    filtered = {"Key": {"FilterRules": [{"Name": "prefix", "Value": "incoming/"}]}}
    notified = {"QueueArn": arn(sqs, queue), "Events": ["s3:ObjectCreated:*"], "Filter": filtered}
    s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration={"QueueConfigurations": [notified]})
    tables.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )
    environment = {
        **moto,
        "CATSDOGS_BUNDLE": str(REFERENCE),
        "CATSDOGS_RESULTS": f"s3://{name}/results",
        "CATSDOGS_DEAD_LETTERS": letters,
        "CATSDOGS_IDEMPOTENCY": name,
        "POWERTOOLS_TRACE_DISABLED": "1",
    }
    return Stack(environment, name, queue, letters, s3, sqs)


def arn(sqs, queue: str) -> str:
    return sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


@pytest.fixture(scope="session")
def classifier() -> Classifier:
    from catsdogs_lib.inference.bundle import Bundle

    return Classifier(Bundle.load(REFERENCE), 1)


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """200 small drawn photos."""
    from catsdogs_lib.data.synthetic.render import draw

    def encoded(number: int) -> bytes:
        stream = io.BytesIO()
        draw(("cat", "dog")[number % 2], number, (96, 72)).save(stream, "JPEG", quality=88)
        return stream.getvalue()

    return [encoded(number) for number in range(200)]


@pytest.fixture
def functions(stack, monkeypatch):
    """`queue` and `map_items` in this process, loaded anew; each is given an event."""
    spec = importlib.util.spec_from_file_location("poller", POLLER)
    poller = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(poller)
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "batch", None)
    module = poller.load()
    return SimpleNamespace(
        queue=lambda *messages: module.queue({"Records": list(map(poller.record, messages))}, poller.context()),
        map_items=lambda event: module.map_items(event, poller.context()),
    )
