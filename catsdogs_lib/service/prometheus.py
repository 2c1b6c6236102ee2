"""Telemetry of a server: figures for Prometheus, and JSON lines on stdout."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from catsdogs_lib.service.telemetry import PREDICT_ROUTE, Outcome

LOGGER = "catsdogs"
SECONDS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5.0, 10.0)


class ServerTelemetry:
    """Prometheus figures in a registry of its own, and JSON lines through the logger ``catsdogs``."""

    def __init__(self, model_version: str = "") -> None:
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
        self._classes = Counter("predictions_by_class", "Answers, by the class named.", ["class_name"], **new)
        self._unsure = Counter("predictions_unsure", "Answers below the threshold of confidence.", **new)
        self._problems = Counter("problems", "Problem documents sent, by kind.", ["problem"], **new)
        self._unhandled = Counter("unhandled_errors", "Exceptions that nobody foresaw.", **new)
        Gauge("model_info", "The bundle that answers.", ["model_version"], **new).labels(model_version).set(1)

    def record(self, outcome: Outcome) -> None:
        """Count a request and log it."""
        if outcome.route == PREDICT_ROUTE:
            self._requests.labels(str(outcome.status)).inc()
        if outcome.prediction is not None:
            self._latency.observe(outcome.seconds)
            self._classes.labels(outcome.prediction.prediction).inc()
            self._unsure.inc(not outcome.prediction.confident)
        if outcome.problem is not None:
            self._problems.labels(outcome.problem).inc()
        if outcome.error is not None:
            self._unhandled.inc()
        message = "prediction" if outcome.prediction else outcome.problem or "request"
        logging.getLogger(LOGGER).log(
            outcome.level, message, exc_info=outcome.error, extra={"fields": outcome.fields()}
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
