"""The map function on the batches that the state machine's definition makes."""

import itertools
import json
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
FIELDS = ["path", "prediction", "confidence", "probabilities", "confident", "reason", "error", "model_version"]


def test_two_hundred_keys_get_a_row_each(functions, stack, pictures, classifier):
    state = json.loads((ROOT / "deploy/aws/score.asl.json").read_text())["States"]["Score"]
    contents = {f"incoming/my+photo {number} ä.jpg": data for number, data in enumerate(pictures[:197])}
    contents |= {"incoming/text.jpg": b"no photo", "incoming/empty.jpg": b"", "incoming/half.jpg": pictures[0][:900]}
    for key, data in contents.items():
        stack.put(key, data)
    stack.put("incoming/folder/", b"")
    # What ItemReader lists and ItemBatcher hands on; the bucket is a parameter of the stack.
    assert state["ItemReader"]["Resource"].endswith(":s3:listObjectsV2")
    pages = stack.s3.get_paginator("list_objects_v2").paginate(Bucket=stack.bucket, Prefix="incoming/")
    items = [json.loads(json.dumps(found, default=str)) for page in pages for found in page["Contents"]]
    (given,) = state["ItemBatcher"]["BatchInput"]
    size = state["ItemBatcher"]["MaxItemsPerBatch"]

    rows = []
    for batch in itertools.batched(items, size) if sys.version_info >= (3, 12) else batched(items, size):
        answer = functions.map_items({"BatchInput": {given: stack.bucket}, "Items": list(batch)})
        assert len(json.dumps(answer)) < 256 * 1024, "Step Functions takes no more"
        rows += answer

    assert [row["path"] for row in rows] == [item["Key"] for item in items if not item["Key"].endswith("/")]
    assert {row["path"] for row in rows} == set(contents)
    for row in rows:
        assert list(row) == FIELDS
        assert row["model_version"] == classifier.bundle.version
    assert {row["path"] for row in rows if row["error"]} == {f"incoming/{n}.jpg" for n in ("text", "empty", "half")}
    for row in rows[::9]:
        if row["error"] is None:
            wanted = classifier.predict(contents[row["path"]]).probabilities
            assert row["probabilities"] == pytest.approx(wanted, abs=1e-3)


def batched(items, size):
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def test_a_photo_that_is_gone_is_a_row_and_a_bucket_that_is_gone_is_an_error(functions, stack, pictures):
    stack.put("incoming/a.jpg", pictures[0])
    keys = [{"Key": "incoming/none.jpg"}, {"Key": "incoming/a.jpg"}]
    gone, answered = functions.map_items({"BatchInput": {"bucket": stack.bucket}, "Items": keys})
    assert "not there any more" in gone["error"]
    assert answered["error"] is None
    # So the state machine tries again, and then counts the batch as failed.
    with pytest.raises(Exception, match="check the permissions"):
        functions.map_items({"BatchInput": {"bucket": "no-such-bucket-here"}, "Items": keys})


def test_a_photo_that_takes_too_much_memory_is_a_row_and_the_next_is_answered(functions, stack, pictures, hostile):
    stack.put("incoming/costly.webp", (hostile / "webp_65536_prefix_groups.webp").read_bytes())
    stack.put("incoming/photo.jpg", pictures[0])
    items = [{"Key": "incoming/costly.webp"}, {"Key": "incoming/photo.jpg"}]
    refused, answered = functions.map_items({"BatchInput": {"bucket": stack.bucket}, "Items": items})
    assert "more memory to decode than is allowed" in refused["error"]
    assert answered["error"] is None
