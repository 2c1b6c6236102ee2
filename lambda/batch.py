"""Lambda functions for many photos: `queue` classifies objects that arrive in a bucket, `map_items` a list of keys.

Same image as `handler`, another command. The model is loaded and run once during init.
"""

import os
import warnings
from functools import cache
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)

from catsdogs_lib.batch.s3_events import DeadLetters, S3Batch, S3PhotoProcessor
from catsdogs_lib.common.s3 import Address, Storage
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.serving.model import Model
from catsdogs_lib.serving.settings import ServiceSettings

SERVICE = os.environ.get("POWERTOOLS_SERVICE_NAME", "catsdogs")
IDEMPOTENCY_SECONDS = 14 * 24 * 3600
"""Longest time that SQS keeps a message."""

logger = Logger(service=SERVICE, location=None)
metrics = Metrics(service=SERVICE, namespace=os.environ.get("POWERTOOLS_METRICS_NAMESPACE", "Catsdogs"))
# Pillow warns about damaged photos, in lines that are not JSON.
warnings.filterwarnings("ignore", module="PIL")


def _load() -> Classifier:
    classifier = Model.load(formats=ServiceSettings.from_environment().formats).classifier
    assert classifier is not None
    return classifier


classifier = _load()
storage = Storage()
version = classifier.bundle.version
# If every message of a batch must be retried, that is still no failure of the function.
processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
# A photo that was processed before gets the outcome "known".
idempotency = IdempotencyConfig(
    event_key_jmespath="[bucket, key, etag, version, sequencer]",
    expires_after_seconds=IDEMPOTENCY_SECONDS,
    hash_function="sha256",
    response_hook=lambda response, _: {**response, "outcome": "known"},
)


@cache
def _photo_processor() -> tuple[S3PhotoProcessor, Any]:
    # Not during init: the map function has no queue and no table.
    letters = DeadLetters(os.environ["CATSDOGS_DEAD_LETTERS"])
    results = Address.parse("CATSDOGS_RESULTS", os.environ["CATSDOGS_RESULTS"])
    photo_processor = S3PhotoProcessor(classifier, storage, results, letters)
    table = DynamoDBPersistenceLayer(table_name=os.environ["CATSDOGS_IDEMPOTENCY"])
    settle = idempotent_function(
        photo_processor.process,
        data_keyword_argument="photo",
        persistence_store=table,
        config=idempotency,
        key_prefix=version,
    )
    return photo_processor, settle


def _message(record: SQSRecord) -> None:
    photo_processor, settle = _photo_processor()
    try:
        for result in photo_processor.process_message(record.body, settle):
            logger.info("photo", extra={**result, "message_id": record.message_id, "model_version": version})
            metrics.add_metric("BatchRefused", MetricUnit.Count, int(result["outcome"] == "refused"))
            metrics.add_metric("BatchPhotos", MetricUnit.Count, 1)
    except Exception as error:
        metrics.add_metric("BatchRetries", MetricUnit.Count, 1)
        logger.warning("again later", extra={"message_id": record.message_id, "reason": str(error)})
        raise


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics(capture_cold_start_metric=True)
def queue(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Classify the photos that a batch of messages names.

    Parameters
    ----------
    event
        SQS messages with S3 notifications.
    context
        Lambda's; when the remaining time is over, a photo in progress may be started again.

    Returns
    -------
    dict
        The messages to retry (``ReportBatchItemFailures``).
    """
    metrics.add_metric("Batches", MetricUnit.Count, 1)
    idempotency.register_lambda_context(context)
    return dict(process_partial_response(event, _message, processor, context))


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics(capture_cold_start_metric=True)
def map_items(event: dict[str, Any], context: Any) -> list[dict[str, Any]]:  # noqa: ARG001 - the decorators read it
    """Classify the photos of one batch of a Distributed Map.

    Parameters
    ----------
    event
        ``{"Items": [{"Key": ...}, ...], "BatchInput": {"bucket": ...}}``
    context
        Lambda's; Powertools reads it.

    Returns
    -------
    list of dict
        One row for each photo, with its error if it is unusable.
    """
    metrics.add_metric("Batches", MetricUnit.Count, 1)
    keys = [item["Key"] for item in event["Items"] if not item["Key"].endswith("/")]
    rows = S3Batch(classifier, storage).rows(event["BatchInput"]["bucket"], keys)
    metrics.add_metric("BatchPhotos", MetricUnit.Count, len(rows))
    metrics.add_metric("BatchRefused", MetricUnit.Count, sum(row["error"] is not None for row in rows))
    logger.info("rows", extra={"rows": len(rows), "model_version": version})
    return [dict(row) for row in rows]
