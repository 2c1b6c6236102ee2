"""Telemetry of a server: figures for Prometheus, and JSON lines on stdout."""

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
SECONDS = (0.004, 0.006, 0.008, 0.012, 0.016, 0.024, 0.032, 0.05, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5.0, 10.0)
"""Bounds of the latency's buckets: dense where a small photo (about 10 ms) and 12 megapixels (about 30 ms) lie."""
DISTANCES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 1.0)
CONFIDENCES = (0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)


class ServerTelemetry:
    """Prometheus figures in a registry of its own, and JSON lines through the logger ``catsdogs``.

    Every label has few values by design: classes of the bundle, kinds of problems, their statuses. All are there with
    0 from the start, so that a rate sees the first event.

    Parameters
    ----------
    bundle
        What answers; None where nothing does.
    """

    def __init__(self, bundle: Bundle | None = None) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        new: dict[str, Any] = {"registry": self.registry}
        self._requests = Counter("prediction_requests", "Requests for a prediction, by HTTP status.", ["status"], **new)
        self._latency = Histogram(
            "prediction_latency_seconds",
            "From the first line of an answered request to its end.",
            buckets=SECONDS,
            **new,
        )
        self._confidence = Histogram(
            "prediction_confidence", "Probability of the class named.", ["class_name"], buckets=CONFIDENCES, **new
        )
        self._classes = Counter("predictions_by_class", "Answers, by the class named.", ["class_name"], **new)
        self._unsure = Counter("predictions_unsure", "Answers below the threshold of confidence.", **new)
        self._unfamiliarity = Histogram(
            "prediction_unfamiliarity", "Distance of the photo to what the model knows.", buckets=DISTANCES, **new
        )
        self._feedback = Counter("feedback", "Truths that came in.", **new)
        self._problems = Counter("problems", "Problem documents sent, by kind.", ["problem"], **new)
        self._unhandled = Counter("unhandled_errors", "Exceptions that nobody foresaw.", **new)
        for status in sorted({200, 499, *(kind.status for kind in KINDS.values())}):
            self._requests.labels(str(status))
        for name in KINDS:
            self._problems.labels(name)
        if bundle is not None:
            found = bundle.description
            origin = {
                "model_version": bundle.version,
                "mlflow_run": found.mlflow_run,
                "git_commit": found.git_commit,
                "data": found.data.sha256,
                "image": os.environ.get(IMAGE_VARIABLE, ""),
            }
            Gauge("model_info", "The bundle that answers, and where it comes from.", origin, **new).labels(
                **origin
            ).set(1)
            for name in found.classes:
                self._classes.labels(name)
                self._confidence.labels(name)

    def record(self, outcome: RequestRecord) -> None:
        """Count a request and log it."""
        if outcome.route == PREDICT_ROUTE:
            self._requests.labels(str(outcome.status)).inc()
        if outcome.prediction is not None:
            self._latency.observe(outcome.seconds)
            named = outcome.prediction.prediction
            self._confidence.labels(named).observe(outcome.prediction.confidence)
            self._classes.labels(named).inc()
            self._unsure.inc(not outcome.prediction.confident)
            self._unfamiliarity.observe(outcome.prediction.unfamiliarity)
        if outcome.truth is not None:
            self._feedback.inc()
        if outcome.problem is not None:
            self._problems.labels(outcome.problem).inc()
        if outcome.error is not None:
            self._unhandled.inc()
        logging.getLogger(LOGGER).log(
            outcome.level, outcome.message, exc_info=outcome.error, extra={"fields": outcome.fields()}
        )

    def exposition(self) -> tuple[str, str]:
        """Figures in Prometheus' text format."""
        return generate_latest(self.registry).decode(), "text/plain; version=0.0.4; charset=utf-8"


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as one line of JSON."""
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
    """Send the service's and uvicorn's log as JSON lines to stdout."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    for name in (LOGGER, "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    # The answer says what is wrong with a form; a line for each odd byte says no more.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
