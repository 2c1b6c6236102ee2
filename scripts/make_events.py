"""Write lambda/events: one sample event of each kind that the functions receive, with drawn pictures.

python scripts/make_events.py, then e.g. sam local invoke Function -e lambda/events/rest_bare.json
"""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from catsdogs_lib.client.lambda_events import function_url_event, http_api_event, rest_event
from catsdogs_lib.client.messages import HttpRequest
from catsdogs_lib.data.synthetic.render import draw

FOLDER = Path(__file__).parents[1] / "lambda" / "events"
BOUNDARY = "----catsdogs"
KINDS = {"function_url": function_url_event, "http_api": http_api_event, "rest": rest_event}
WARM_UP = {"source": "catsdogs.warm-up"}
SCHEDULE = {
    "version": "0",
    "id": "6f2d1c0b-5a49-4837-b625-140f3e2d1c0b",
    "detail-type": "Scheduled Event",
    "source": "aws.events",
    "account": "123456789012",
    "time": "2026-01-01T00:00:00Z",
    "region": "us-east-1",
    "resources": ["arn:aws:events:us-east-1:123456789012:rule/catsdogs-warm-up"],
    "detail": {},
}
BUCKET = "catsdogs-photos"


def record(number: int, key: str) -> dict[str, Any]:
    """Return S3's notification of a new object in a bucket."""
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2026-01-01T00:00:00.000Z",
        "eventName": "ObjectCreated:Put",
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "arrived",
            "bucket": {"name": BUCKET, "arn": f"arn:aws:s3:::{BUCKET}"},
            "object": {
                "key": quote_plus(key, safe="/"),
                "size": 24_000 + number,
                "eTag": f"{number:032x}",
                "sequencer": f"{number:016X}",
            },
        },
    }


def event_bridge_record(number: int, key: str) -> dict[str, Any]:
    """Return the same notification from EventBridge."""
    content = {"key": key, "size": 24_000 + number, "etag": f"{number:032x}", "sequencer": f"{number:016X}"}
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": "123456789012",
        "time": "2026-01-01T00:00:00Z",
        "region": "us-east-1",
        "resources": [f"arn:aws:s3:::{BUCKET}"],
        "detail": {"version": "0", "bucket": {"name": BUCKET}, "object": content, "reason": "PutObject"},
    }


def messages(*bodies: dict[str, Any]) -> dict[str, Any]:
    """Return messages in the form in which SQS passes them to a function."""
    return {
        "Records": [
            {
                "messageId": f"00000000-0000-0000-0000-{number:012}",
                "receiptHandle": f"receipt-{number}",
                "body": json.dumps(body),
                "attributes": {
                    "ApproximateReceiveCount": "1",
                    "SentTimestamp": "1767225600000",
                    "SenderId": "AIDAJXNJGGKNS7OSV23OI",
                    "ApproximateFirstReceiveTimestamp": "1767225600001",
                },
                "messageAttributes": {},
                "md5OfBody": hashlib.md5(json.dumps(body).encode(), usedforsecurity=False).hexdigest(),
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:catsdogs",
                "awsRegion": "us-east-1",
            }
            for number, body in enumerate(bodies, 1)
        ]
    }


def picture() -> bytes:
    """Draw a cat as a JPEG of a few kilobytes."""
    stream = io.BytesIO()
    draw("cat", 91, (240, 180)).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def multipart(body: bytes, filename: str, media_type: str) -> HttpRequest:
    """Return an upload as ``curl -F file=@photo.jpg`` sends it."""
    head = (
        f"--{BOUNDARY}\r\n"
        f'Content-Disposition: form-data; name="file"; filename="{filename}"\r\n'
        f"Content-Type: {media_type}\r\n\r\n"
    )
    whole = head.encode() + body + f"\r\n--{BOUNDARY}--\r\n".encode()
    return post(whole, f"multipart/form-data; boundary={BOUNDARY}")


def post(body: bytes, media_type: str) -> HttpRequest:
    """Return a request for a prediction."""
    headers = (("Content-Type", media_type), ("Accept", "*/*"), ("User-Agent", "curl/8.14.1"))
    return HttpRequest("POST", "/predict", headers=headers, body=body)


def get(path: str, accept: str = "*/*") -> HttpRequest:
    """Return a GET request."""
    return HttpRequest("GET", path, headers=(("Accept", accept), ("User-Agent", "curl/8.14.1")))


def events() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and event of each file."""
    photo = picture()
    for kind, event in KINDS.items():
        yield f"{kind}_multipart", event(multipart(photo, "photo.jpg", "image/jpeg"))
        yield f"{kind}_bare", event(post(photo, "image/jpeg"))
    yield "function_url_text_file", function_url_event(multipart(b"Not a photo.\n", "notes.txt", "text/plain"))
    yield "function_url_cut_off", function_url_event(post(photo[: len(photo) // 3], "image/jpeg"))
    yield "function_url_no_photo", function_url_event(post(b"", "image/jpeg"))
    yield "get_page", function_url_event(get("/", "text/html"))
    yield "get_information", function_url_event(get("/", "application/json"))
    yield "get_health", function_url_event(get("/health"))
    yield "get_ready", rest_event(get("/ready"))
    yield "get_nothing", http_api_event(get("/nothing"))
    keys = ["incoming/cat.jpg", "incoming/my cat + dog.jpg", "incoming/Größe/猫.jpg"]
    yield (
        "sqs-s3-batch",
        messages(
            {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": BUCKET},
            *({"Records": [record(number, key)]} for number, key in enumerate(keys, 1)),
            event_bridge_record(4, "incoming/dog.jpg"),
        ),
    )
    yield "map-batch", {"BatchInput": {"bucket": BUCKET}, "Items": [{"Key": key, "Size": 24_000} for key in keys]}
    yield "warm_up", WARM_UP
    yield "warm_up_schedule", SCHEDULE


def main() -> None:
    """Write a file for each event."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.json"):
        old.unlink()
    for name, event in events():
        (FOLDER / f"{name}.json").write_text(json.dumps(event, indent=2) + "\n")


if __name__ == "__main__":
    main()
