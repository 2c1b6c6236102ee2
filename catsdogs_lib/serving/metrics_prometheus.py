"""Telemetry of a server: metrics for Prometheus, and JSON lines on stdout."""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.serving.problems import KINDS
from catsdogs_lib.serving.schemas import IMAGE_VARIABLE
from catsdogs_lib.serving.telemetry import PREDICT_ROUTE, RequestRecord

LOGGER = "catsdogs"
LATENCY_BUCKETS = (0.004, 0.006, 0.008, 0.012, 0.016, 0.024, 0.032, 0.05, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5.0, 10.0)
"""In seconds: dense around a small photo (about 10 ms) and one of 12 megapixels (about 30 ms)."""
UNFAMILIARITY_BUCKETS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 1.0)
CONFIDENCE_BUCKETS = (0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)


class ServerTelemetry:
    """Prometheus metrics in a registry of their own, and JSON lines through the logger ``catsdogs``.

    Every label has few values: classes of the bundle, kinds of problems, their statuses. All series are initialised
    to zero, so that a rate includes the first event.

    Parameters
    ----------
    bundle
        The bundle in service; None without one.
    """

    def __init__(self, bundle: Bundle | None = None) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        new: dict[str, Any] = {"registry": self.registry}
        self._requests = Counter("prediction_requests", "Requests for a prediction, by HTTP status.", ["status"], **new)
        self._latency = Histogram(
            "prediction_latency_seconds",
            "From the first line of an answered request to its end.",
            buckets=LATENCY_BUCKETS,
            **new,
        )
        self._confidence = Histogram(
            "prediction_confidence",
            "Probability of the class named.",
            ["class_name"],
            buckets=CONFIDENCE_BUCKETS,
            **new,
        )
        self._classes = Counter("predictions_by_class", "Answers, by the class named.", ["class_name"], **new)
        self._unsure = Counter("predictions_unsure", "Answers below the threshold of confidence.", **new)
        self._unfamiliarity = Histogram(
            "prediction_unfamiliarity",
            "Distance of the photo to what the model knows.",
            buckets=UNFAMILIARITY_BUCKETS,
            **new,
        )
        self._feedback = Counter("feedback", "Truths that came in.", **new)
        self._problems = Counter("problems", "Problem documents sent, by kind.", ["problem"], **new)
        self._unhandled = Counter("unhandled_errors", "Exceptions that nobody foresaw.", **new)
        for status in sorted({200, 499, *(kind.status for kind in KINDS.values())}):
            self._requests.labels(str(status))
        for name in KINDS:
            self._problems.labels(name)
        if bundle is not None:
            description = bundle.description
            origin = {
                "model_version": bundle.version,
                "mlflow_run": description.mlflow_run,
                "git_commit": description.git_commit,
                "data": description.data.sha256,
                "image": os.environ.get(IMAGE_VARIABLE, ""),
            }
            Gauge("model_info", "The bundle that answers, and where it comes from.", origin, **new).labels(
                **origin
            ).set(1)
            for name in description.classes:
                self._classes.labels(name)
                self._confidence.labels(name)

    def record(self, record: RequestRecord) -> None:
        """Count and log a request that is over."""
        if record.route == PREDICT_ROUTE:
            self._requests.labels(str(record.status)).inc()
        if record.prediction is not None:
            self._latency.observe(record.seconds)
            class_name = record.prediction.prediction
            self._confidence.labels(class_name).observe(record.prediction.confidence)
            self._classes.labels(class_name).inc()
            self._unsure.inc(not record.prediction.confident)
            self._unfamiliarity.observe(record.prediction.unfamiliarity)
        if record.truth is not None:
            self._feedback.inc()
        if record.problem is not None:
            self._problems.labels(record.problem).inc()
        if record.error is not None:
            self._unhandled.inc()
        logging.getLogger(LOGGER).log(
            record.level, record.message, exc_info=record.error, extra={"fields": record.fields()}
        )

    def exposition(self) -> tuple[str, str]:
        """Render the metrics in Prometheus' text format."""
        return generate_latest(self.registry).decode(), "text/plain; version=0.0.4; charset=utf-8"


class JsonFormatter(logging.Formatter):
    """Formatter of log lines as JSON objects."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line of JSON."""
        line: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_to_stdout(level: str = "INFO") -> None:
    """Log the service and uvicorn to stdout as JSON lines."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    for name in (LOGGER, "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    # The response says what is wrong with a form; a line for each invalid byte adds nothing.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
