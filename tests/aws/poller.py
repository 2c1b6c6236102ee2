"""Lambda's event source mapping in small: messages go to the function, those that it does not name are deleted.

Ends when the queue is empty. So that a test can crash it where it wants, the environment names seams: DIE_AFTER_ROW,
DIE_AFTER_LETTER and DIE_BEFORE_DELETE kill the process at the nth such moment, FAIL_OPENS lets the first n photos not
be opened.
"""

import importlib.util
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import boto3

HANDLER = Path(__file__).parents[2] / "lambda" / "batch.py"
FUNCTION_SECONDS = 3.0
"""Less than the queue's visibility timeout, as on Lambda."""


def load():
    """The module, as Lambda loads it."""
    spec = importlib.util.spec_from_file_location("batch", HANDLER)
    module = importlib.util.module_from_spec(spec)
    sys.modules["batch"] = module
    spec.loader.exec_module(module)
    return module


def context(request_id="11111111-2222-3333-4444-555555555555"):
    end = time.monotonic() + FUNCTION_SECONDS
    return SimpleNamespace(
        function_name="catsdogs-batch",
        memory_limit_in_mb=1769,
        invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:catsdogs-batch",
        aws_request_id=request_id,
        get_remaining_time_in_millis=lambda: max(0, int(1000 * (end - time.monotonic()))),
    )


def record(message):
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {},
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:catsdogs",
        "awsRegion": "us-east-1",
    }


def sow(module):
    """Put the seams in that the environment names."""
    from catsdogs_lib.batch.s3_events import DeadLetters
    from catsdogs_lib.common.s3 import Storage, StorageError

    def dying(function, seam):
        left = int(os.environ.get(seam, "0"))

        def wrapped(*arguments, **named):
            nonlocal left
            result = function(*arguments, **named)
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    Storage.write = dying(Storage.write, "DIE_AFTER_ROW")
    DeadLetters.send = dying(DeadLetters.send, "DIE_AFTER_LETTER")
    opening, failures = Storage.open, int(os.environ.get("FAIL_OPENS", "0"))

    def failing(*arguments, **named):
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise StorageError("S3 is having a bad day; come again")
        return opening(*arguments, **named)

    Storage.open = failing
    return dying(module.queue, "DIE_BEFORE_DELETE")


def main(queue):
    sqs = boto3.client("sqs")
    function = sow(load())
    counts = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    while True:
        found = sqs.receive_message(
            QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1, AttributeNames=["All"]
        ).get("Messages", [])
        if not found:
            attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=counts)["Attributes"]
            if not any(int(attributes[name]) for name in counts):
                return
            continue
        answer = function({"Records": [record(message) for message in found]}, context())
        failed = {item["itemIdentifier"] for item in answer["batchItemFailures"]}
        for message in found:
            if message["MessageId"] not in failed:
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])


if __name__ == "__main__":
    main(sys.argv[1])
