"""What lands in a bucket: one row a photo, whatever comes twice, fails or dies in between."""

import json
import random
import signal

import pytest

from catsdogs_lib.batch.s3_events import DeadLetters, S3PhotoProcessor, read_message
from catsdogs_lib.common.s3 import Address, ChangedError, Storage

pytestmark = pytest.mark.slow
CORRUPT = {"incoming/text.jpg": (b"this is no photo", "not-a-photo"), "incoming/half.jpg": (None, "undecodable")}


def keys(count):
    """Keys as people give them."""
    forms = (
        "incoming/{}.jpg",
        "incoming/my cat {}.jpg",
        "incoming/a+b {}.jpg",
        "incoming/Größe/猫 {}.jpg",
        "incoming/100% {}&x=1.jpg",
    )
    return [forms[number % len(forms)].format(number) for number in range(count)]


def drop(stack, pictures, count):
    """Put photos into the bucket, two of them corrupt; their content by their keys."""
    contents = dict(zip(keys(count - 2), pictures, strict=False))
    contents |= {key: data or pictures[0][: len(pictures[0]) // 2] for key, (data, _) in CORRUPT.items()}
    for key, data in contents.items():
        stack.put(key, data)
    return contents


def eventbridge(body):
    """The same notification as EventBridge tells it."""
    from urllib.parse import unquote_plus

    found = json.loads(body)["Records"][0]["s3"]
    described = {
        "key": unquote_plus(found["object"]["key"]),
        "size": found["object"]["size"],
        "etag": found["object"]["eTag"],
    }
    detail = {"version": "0", "bucket": {"name": found["bucket"]["name"]}, "object": described, "reason": "PutObject"}
    return json.dumps({"version": "0", "detail-type": "Object Created", "source": "aws.s3", "detail": detail})


def notifications(stack):
    """Take what S3 has sent, without the test message that it sends first."""
    taken = [message["Body"] for message in stack.take(stack.queue)]
    return [body for body in taken if "s3:TestEvent" not in body]


def send(stack, *bodies):
    for body in bodies:
        stack.sqs.send_message(QueueUrl=stack.queue, MessageBody=body)


def checked_rows(stack, contents, classifier):
    """Each photo has one row, written once, and it says what the classifier says."""
    rows = stack.rows()
    assert sorted(stack.writes("results/")) == sorted(f"results/{key}.json" for key in contents)
    for key, data in contents.items():
        row = rows[key]
        assert row["path"] == key
        assert row["bucket"] == stack.bucket
        assert row["model_version"] == classifier.bundle.version
        assert row["etag"]
        assert row["scored_at"]
        if key in CORRUPT:
            assert row["prediction"] is None
            assert row["error"]
        else:
            assert row["error"] is None
            assert row["probabilities"] == pytest.approx(classifier.predict(data).probabilities, abs=1e-3)
    return rows


def test_two_hundred_photos_with_duplicates_redeliveries_and_crashes_have_a_row_each(stack, pictures, classifier):
    contents = drop(stack, pictures, 200)
    bodies = notifications(stack)
    assert len(bodies) == 200
    chance = random.Random(7)
    chance.shuffle(bodies)
    several = json.dumps({"Records": [json.loads(body)["Records"][0] for body in bodies[:5]]})
    again = [*chance.sample(bodies, 40), *(eventbridge(body) for body in bodies[10:20]), several]
    everything = [*bodies[5:], *again]
    chance.shuffle(everything)
    send(stack, *everything)

    for seams in ({"DIE_AFTER_ROW": 37, "FAIL_OPENS": 6}, {"DIE_BEFORE_DELETE": 5}, {"DIE_AFTER_ROW": 1}):
        died = stack.poll(**seams)
        assert died.returncode == -signal.SIGKILL, died.stderr
    done = stack.poll()
    assert done.returncode == 0, done.stderr

    rows = checked_rows(stack, contents, classifier)
    letters = stack.dead()
    assert sorted(letter["kind"] for letter in letters) == sorted(kind for _, kind in CORRUPT.values())
    for letter in letters:
        (photo,) = read_message(json.dumps(letter))  # so it can be moved back to the queue
        assert letter["kind"] == CORRUPT[photo.key][1]
        assert letter["reason"] == rows[photo.key]["error"]
        assert letter["attributes"] == {"kind": letter["kind"], "reason": letter["reason"]}
    logged = [json.loads(line) for line in done.stdout.splitlines()]
    outcomes = [line["outcome"] for line in logged if line.get("message") == "photo"]
    assert {"answered", "known"} <= set(outcomes)
    assert stack.take(stack.queue) == []


def test_a_crash_between_letter_and_row_ends_in_one_row(stack, pictures, classifier):
    key = "incoming/text.jpg"
    stack.put(key, CORRUPT[key][0])
    assert stack.poll(DIE_AFTER_LETTER=1).returncode == -signal.SIGKILL
    assert stack.rows() == {}
    assert stack.poll().returncode == 0
    assert stack.writes("results/") == [f"results/{key}.json"]
    # The letter goes out before the row settles it: it may come twice, it is never lost.
    assert [letter["kind"] for letter in stack.dead()] == ["not-a-photo"] * 2


def test_what_fails_again_and_again_ends_as_a_dead_letter_of_the_queue(stack, pictures):
    stack.put("incoming/a.jpg", pictures[0])
    (body,) = notifications(stack)
    stack.sqs.set_queue_attributes(QueueUrl=stack.queue, Attributes={"VisibilityTimeout": "0"})
    send(stack, body)
    assert stack.poll(FAIL_OPENS=1000).returncode == 0
    assert stack.rows() == {}
    (letter,) = stack.take(stack.letters)
    assert letter["Body"] == body


def test_another_photo_under_the_same_key_gets_a_row_of_its_own(stack, pictures, classifier):
    key = "incoming/a.jpg"
    stack.put(key, pictures[0])
    (old,) = notifications(stack)
    stack.put(key, pictures[1])
    (new,) = notifications(stack)
    send(stack, new)
    assert stack.poll().returncode == 0
    # The older notification comes late: it must not undo the newer row.
    send(stack, old)
    done = stack.poll()
    assert '"outcome":"replaced"' in done.stdout
    assert stack.writes("results/") == [f"results/{key}.json"]
    assert stack.rows()[key]["probabilities"] == pytest.approx(classifier.predict(pictures[1]).probabilities, abs=1e-3)


def test_a_photo_that_was_deleted_and_a_message_that_is_none_are_dead_letters(stack, pictures):
    stack.put("incoming/a.jpg", pictures[0])
    stack.s3.delete_object(Bucket=stack.bucket, Key="incoming/a.jpg")
    send(stack, "hello", '{"Records": [{"eventName": "ObjectCreated:Put"}]}', "[]", '{"Event": "s3:Other"}')
    assert stack.poll().returncode == 0
    kinds = sorted(letter["kind"] for letter in stack.dead())
    assert kinds == ["gone", *["unreadable-message"] * 4]
    assert stack.rows() == {}


def test_a_row_is_not_written_over_a_newer_photos_row(stack, pictures, classifier, aws):
    """Between opening a photo and writing its row the photo is replaced, and the newer one is faster."""
    key, results = "incoming/a.jpg", Address(stack.bucket, "results")
    letters = DeadLetters(stack.letters)
    stack.put(key, pictures[0])
    (body,) = notifications(stack)
    (older,) = read_message(body)

    class Overtaken(Storage):
        def open(self, *arguments):
            opened = super().open(*arguments)
            stack.put(key, pictures[1])
            (newer,) = read_message(notifications(stack)[0])
            assert S3PhotoProcessor(classifier, Storage(), results, letters).process(newer)["outcome"] == "answered"
            return opened

    with pytest.raises(ChangedError):
        S3PhotoProcessor(classifier, Overtaken(), results, letters).process(older)
    assert S3PhotoProcessor(classifier, Storage(), results, letters).process(older) == {"outcome": "replaced"}
    assert stack.writes("results/") == [f"results/{key}.json"]
    assert stack.rows()[key]["probabilities"] == pytest.approx(classifier.predict(pictures[1]).probabilities, abs=1e-3)


def test_a_photo_put_there_again_as_it_was_before_is_answered_again(stack, functions, pictures, classifier):
    """A, B, A: the notifications of both A differ in their sequencer alone, where the bucket keeps no versions."""
    key = "incoming/a.jpg"
    for number, data in enumerate((pictures[0], pictures[1], pictures[0])):
        stack.put(key, data)
        message = stack.take(stack.queue)[-1]
        notice = json.loads(message["Body"])
        notice["Records"][0]["s3"]["object"]["sequencer"] = f"{number:016x}"  # S3 sends it, moto does not
        for _ in range(2):
            assert functions.queue({**message, "Body": json.dumps(notice)}) == {"batchItemFailures": []}
    assert len(stack.writes("results/")) == 3
    assert stack.rows()[key]["probabilities"] == pytest.approx(classifier.predict(pictures[0]).probabilities, abs=1e-3)
