"""Messages that tell of photos: S3's own, EventBridge's, and what is none."""

import json
from pathlib import Path

import pytest

from catsdogs_lib.batch.s3_events import S3PhotoProcessor, UnreadableMessageError, read_message
from catsdogs_lib.common.s3 import Address

ROOT = Path(__file__).parents[2]


def record(key, event="ObjectCreated:Put", **described):
    about = {"key": key, "size": 10, "eTag": "e", "sequencer": "0055"} | described
    return {"eventSource": "aws:s3", "eventName": event, "s3": {"bucket": {"name": "b"}, "object": about}}


def message(*records):
    return json.dumps({"Records": records})


def detail(key, kind="Object Created", **described):
    about = {"key": key, "size": 10, "etag": "e", "sequencer": "0055"} | described
    return json.dumps({"detail-type": kind, "source": "aws.s3", "detail": {"bucket": {"name": "b"}, "object": about}})


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        ("in/a.jpg", "in/a.jpg"),
        ("in/my+cat.jpg", "in/my cat.jpg"),
        ("in/1%2B1.jpg", "in/1+1.jpg"),
        ("in/Gr%C3%B6%C3%9Fe/%E7%8C%AB.jpg", "in/Größe/猫.jpg"),
        ("in/100%25.jpg", "in/100%.jpg"),
    ],
)
def test_keys_are_read_as_s3_writes_them_and_taken_as_eventbridge_has_them(sent, key):
    (direct,), (bridged,) = read_message(message(record(sent))), read_message(detail(key))
    assert direct.key == bridged.key == key
    assert (direct.bucket, direct.etag, direct.version, direct.sequencer) == ("b", "e", "", "0055")
    assert (bridged.bucket, bridged.etag, bridged.version, bridged.sequencer) == ("b", "e", "", "0055")


def test_versions_are_told_either_way():
    assert read_message(message(record("a", versionId="v1")))[0].version == "v1"
    assert read_message(detail("a", **{"version-id": "v1"}))[0].version == "v1"


def test_a_message_may_name_several_photos_and_each_keeps_its_own_notice():
    found = read_message(message(record("a"), record("b"), record("c", "ObjectCreated:CompleteMultipartUpload")))
    assert [photo.key for photo in found] == ["a", "b", "c"]
    assert [read_message(json.dumps(photo.notice)) for photo in found] == [[photo] for photo in found]
    (bridged,) = read_message(detail("a+b"))
    assert read_message(json.dumps(bridged.notice)) == [bridged]


@pytest.mark.parametrize(
    "body",
    [
        '{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}',
        message(),
        message(record("a", "ObjectRemoved:Delete")),
        message(record("in/folder/")),
        detail("a", "Object Deleted"),
        detail("in/folder/"),
    ],
)
def test_messages_that_name_no_photo_are_passed_over(body):
    assert read_message(body) == []


@pytest.mark.parametrize(
    "body",
    [
        "",
        "hello",
        "[]",
        "3",
        "null",
        '"Records"',
        "{}",
        '{"Event": "other"}',
        '{"Records": [{}]}',
        '{"Records": 3}',
        '{"detail": {}}',
        message({"eventName": "ObjectCreated:Put", "s3": {}}),
        message(record(5)),
    ],
)
def test_what_is_no_notification_is_said_to_be_none(body):
    with pytest.raises(UnreadableMessageError, match="no notification of S3"):
        read_message(body)


def test_rows_are_no_photos_or_they_would_beget_rows_for_ever():
    settler = S3PhotoProcessor(None, None, Address("b", "results"), None)
    (photo,) = read_message(message(record("results/in/a.jpg.json")))
    assert settler.process(photo) == {"outcome": "result"}


def test_the_sample_event_names_its_photos():
    event = json.loads((ROOT / "lambda/events/sqs-s3-batch.json").read_text())
    keys = [[photo.key for photo in read_message(message["body"])] for message in event["Records"]]
    assert keys == [
        [],
        ["incoming/cat.jpg"],
        ["incoming/my cat + dog.jpg"],
        ["incoming/Größe/猫.jpg"],
        ["incoming/dog.jpg"],
    ]
