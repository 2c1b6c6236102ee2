"""The Lambda function of the service, for events of a Function URL, an HTTP API or a REST API.

The model is loaded and run once during init, when Lambda provides full CPU power.
"""

import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.metrics import MetricUnit
from mangum import Mangum
from mangum.adapter import DEFAULT_TEXT_MIME_TYPES

from catsdogs_lib.inference.bundle import BundleError
from catsdogs_lib.serving import http_event, problems
from catsdogs_lib.serving.app import create_app
from catsdogs_lib.serving.metrics_cloudwatch import LambdaTelemetry
from catsdogs_lib.serving.model import Model
from catsdogs_lib.serving.problems import ProblemError
from catsdogs_lib.serving.settings import ServiceSettings
from catsdogs_lib.serving.telemetry import RequestRecord

SERVICE = os.environ.get("POWERTOOLS_SERVICE_NAME", "catsdogs")
WARM_UP_SOURCES = ("catsdogs.warm-up", "aws.events", "aws.scheduler", "serverless-plugin-warmup")

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]

logger = Logger(service=SERVICE, location=None)
metrics = Metrics(service=SERVICE, namespace=os.environ.get("POWERTOOLS_METRICS_NAMESPACE", "Catsdogs"))
telemetry = LambdaTelemetry(logger, metrics)
# One log line a request is enough.
logging.getLogger("python_multipart").setLevel(logging.ERROR)
logging.getLogger("mangum").setLevel(logging.WARNING)
# Pillow warns about damaged photos, in lines that are not JSON.
warnings.filterwarnings("ignore", module="PIL")


def _load() -> Model:
    try:
        model = Model.load(formats=settings.formats)
    except BundleError as error:
        # A function that fails during init answers a bare 502 forever. Callers need not know our folders.
        logger.exception("no model", extra={"reason": str(error)})
        return Model(reason="there is no model to ask; the log of the service says why")
    if model.classifier is not None:
        telemetry.model_version = model.classifier.bundle.version
    return model


def _traced(function: Handler) -> Handler:
    # Without a daemon traces go nowhere, and the SDK takes 0.2 s to import.
    off = os.environ.get("POWERTOOLS_TRACE_DISABLED", "").lower() in ("1", "true", "y", "yes", "on")
    if off or not os.environ.get("AWS_XRAY_DAEMON_ADDRESS"):
        return function
    from aws_lambda_powertools import Tracer

    return cast("Handler", Tracer(service=SERVICE).capture_lambda_handler(function, capture_response=False))


# The Function URL handles CORS: a second set of headers would contradict it.
settings = replace(ServiceSettings.from_environment(), alone=True, cors_origins=())
model = _load()
application = Mangum(
    create_app(model, telemetry, settings),
    lifespan="off",
    api_gateway_base_path=settings.base_path or "/",
    text_mime_types=[*DEFAULT_TEXT_MIME_TYPES, problems.MEDIA_TYPE],
)


@logger.inject_lambda_context(correlation_id_path=correlation_paths.LAMBDA_FUNCTION_URL, clear_state=True)
@_traced
@metrics.log_metrics(capture_cold_start_metric=True)
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer an event.

    Parameters
    ----------
    event
        Payload 2.0 (Function URL, HTTP API), payload 1.0 (REST API), or a warm-up ping whose `source` is one of
        `WARM_UP_SOURCES`.
    context
        Lambda's; Powertools reads it.

    Returns
    -------
    dict
        A response in the event's payload version; for a ping, the model's version.
    """
    if not isinstance(event, dict) or "requestContext" not in event:
        return _without_request(event)
    try:
        return application(http_event.read(event), context)
    except ProblemError as error:
        return _refuse(error, event)
    except Exception:
        # The application answers every request, so the event is not a valid one.
        logger.warning("unreadable event", exc_info=True)
        detail = "the event cannot be read; see the log of the service"
        return _refuse(ProblemError(problems.BROKEN_EVENT, detail), event)


def _refuse(problem: ProblemError, event: dict[str, Any]) -> dict[str, Any]:
    context = event["requestContext"]
    request_id = context.get("requestId") if isinstance(context, dict) else None
    record = RequestRecord(request_id if isinstance(request_id, str) else "")
    record.status, record.problem, record.detail = problem.kind.status, problem.kind.name, problem.detail
    telemetry.record(record)
    metrics.add_metric("UnknownEvents", MetricUnit.Count, 1)
    response = _response(problem, record.request_id)
    response["headers"]["x-request-id"] = record.request_id
    return response


def _without_request(event: Any) -> dict[str, Any]:
    if isinstance(event, dict) and (event.get("source") in WARM_UP_SOURCES or event.get("warmup") is True):
        metrics.add_metric("WarmUps", MetricUnit.Count, 1)
        return {"warm": True, "model_version": telemetry.model_version or None}
    metrics.add_metric("UnknownEvents", MetricUnit.Count, 1)
    return _response(ProblemError(problems.MALFORMED, http_event.UNKNOWN_EVENT), "")


def _response(problem: ProblemError, request_id: str) -> dict[str, Any]:
    response = problems.document(problem, request_id)
    return {
        "statusCode": response.status_code,
        "headers": dict(response.headers),
        "body": bytes(response.body).decode(),
    }
