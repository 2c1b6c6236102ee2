"""Telemetry on Lambda: Powertools' log line, and metrics in CloudWatch's embedded format."""

import logging
from typing import Any

from aws_lambda_powertools import Logger, Metrics, single_metric
from aws_lambda_powertools.metrics import MetricUnit

from catsdogs_lib.service.telemetry import Outcome

EXPOSITION = (
    "# On Lambda every container counts for itself, so there is nothing to scrape here: the figures are\n"
    "# CloudWatch metrics (embedded metric format) in the namespace {namespace}.\n"
)


class LambdaTelemetry:
    """Tells CloudWatch of every request.

    Parameters
    ----------
    logger
        Writes one JSON line a request; never the photo.
    metrics
        Flushed by the handler at the end of an invocation. Dimensions are few by design: service, route, model
        version, and the class name for the count by class; what has many values is metadata.
    """

    def __init__(self, logger: Logger, metrics: Metrics) -> None:
        self._logger = logger
        self._metrics = metrics
        self.model_version = ""
        self._write = {
            logging.DEBUG: logger.debug,
            logging.INFO: logger.info,
            logging.WARNING: logger.warning,
            logging.ERROR: logger.error,
        }

    def record(self, outcome: Outcome) -> None:
        """Count a request and log it."""
        metrics = self._metrics
        metrics.add_dimension("route", outcome.route)
        metrics.add_dimension("model_version", self.model_version or "none")
        metrics.add_metadata("request_id", outcome.request_id)
        metrics.add_metric("Requests", MetricUnit.Count, 1)
        metrics.add_metric("Latency", MetricUnit.Milliseconds, outcome.seconds * 1e3)
        metrics.add_metric("Problems", MetricUnit.Count, int(outcome.problem is not None))
        metrics.add_metric("UnhandledError", MetricUnit.Count, int(outcome.error is not None))
        if outcome.prediction is not None:
            metrics.add_metadata("prediction_id", outcome.prediction_id)
            metrics.add_metric("Confidence", MetricUnit.NoUnit, outcome.prediction.confidence)
            self._count_class(outcome.prediction.prediction)
        if outcome.problem is not None:
            metrics.add_metadata("problem", outcome.problem)
        message = "prediction" if outcome.prediction else outcome.problem or "request"
        fields = outcome.fields()
        if outcome.filename is not None:
            # 'filename' is also an attribute of Python's log records, so Powertools takes its value for a format:
            # '%(levelno)0999999999d' as a name would write a gigabyte.
            fields["filename"] = outcome.filename.replace("%", "%%")
        with self._logger.append_context_keys(**fields):
            self._write[outcome.level](message, exc_info=outcome.error)

    def _count_class(self, class_name: str) -> None:
        # A blob of its own: the class is a dimension of this one metric alone.
        named: dict[str, Any] = {"service": self._metrics.service, "class_name": class_name}
        namespace = self._metrics.namespace
        with single_metric("PredictionsByClass", MetricUnit.Count, 1, namespace=namespace, default_dimensions=named):
            pass

    def exposition(self) -> tuple[str, str]:
        """Say where the figures are."""
        return EXPOSITION.format(namespace=self._metrics.namespace), "text/plain; version=0.0.4; charset=utf-8"
