"""Telemetry on Lambda: log lines by Powertools, and metrics in CloudWatch's embedded metric format."""

import logging
import os
from typing import Any

from aws_lambda_powertools import Logger, Metrics, single_metric
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

from catsdogs_lib.inference.classifier import Prediction
from catsdogs_lib.serving.telemetry import RequestRecord

EXPOSITION = (
    "# On Lambda every container counts for itself, so there is nothing to scrape here: the figures are\n"
    "# CloudWatch metrics (embedded metric format) in the namespace {namespace}.\n"
)


class LambdaTelemetry:
    """CloudWatch metrics, and one JSON line for each request.

    Parameters
    ----------
    logger
        Writes the log lines.
    metrics
        Flushed by the handler at the end of an invocation. Dimensions are few: service, route and model version, and
        for one metric each the class, the kind of problem or the function's version. Values of high cardinality are
        metadata.

    Notes
    -----
    The metrics that compare releases (`Confidence`, `ClassPosition`, `Unsure`) are recorded for the whole service and
    for each version of the function. CloudWatch bills a metric by the hours in which it gets a value, so versions
    without traffic cost nothing.
    """

    def __init__(self, logger: Logger, metrics: Metrics) -> None:
        self._logger = logger
        self._metrics = metrics
        self.model_version = ""
        self._function_version = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        self._write = {
            logging.DEBUG: logger.debug,
            logging.INFO: logger.info,
            logging.WARNING: logger.warning,
            logging.ERROR: logger.error,
        }

    def record(self, record: RequestRecord) -> None:
        """Count and log a request that is over."""
        metrics = self._metrics
        metrics.add_dimension("route", record.route)
        metrics.add_dimension("model_version", self.model_version or "none")
        metrics.add_metadata("request_id", record.request_id)
        metrics.add_metric("Requests", MetricUnit.Count, 1)
        metrics.add_metric("Latency", MetricUnit.Milliseconds, record.seconds * 1e3)
        metrics.add_metric("Problems", MetricUnit.Count, int(record.problem is not None))
        metrics.add_metric("UnhandledError", MetricUnit.Count, int(record.error is not None))
        if record.prediction is not None:
            metrics.add_metadata("prediction_id", record.prediction_id)
            self._count("PredictionsByClass", class_name=record.prediction.prediction)
            self._count_for_comparison(record.prediction)
        if record.problem is not None:
            metrics.add_metadata("problem", record.problem)
            self._count("ProblemsByType", problem=record.problem)
        fields = record.fields()
        if record.filename is not None:
            # 'filename' is also an attribute of Python's log records, so Powertools uses its value as a format:
            # a file named '%(levelno)0999999999d' would write a gigabyte.
            fields["filename"] = record.filename.replace("%", "%%")
        with self._logger.append_context_keys(**fields):
            self._write[record.level](record.message, exc_info=record.error)

    def _count(self, name: str, **dimension: str) -> None:
        # A separate EMF object: no other metric gets this dimension.
        dimensions: dict[str, Any] = {"service": self._metrics.service, **dimension}
        namespace = self._metrics.namespace
        with single_metric(name, MetricUnit.Count, 1, namespace=namespace, default_dimensions=dimensions):
            pass

    def _count_for_comparison(self, prediction: Prediction) -> None:
        service = self._metrics.service
        metrics = EphemeralMetrics(service=service, namespace=self._metrics.namespace)
        metrics.add_dimension("service", service)
        metrics.add_dimensions(service=service, function_version=self._function_version)
        metrics.add_metric("Confidence", MetricUnit.NoUnit, prediction.confidence)
        metrics.add_metric("ClassPosition", MetricUnit.NoUnit, _position(prediction))
        metrics.add_metric("Unsure", MetricUnit.NoUnit, int(not prediction.confident))
        metrics.flush_metrics()

    def exposition(self) -> tuple[str, str]:
        """Say where the metrics are."""
        return EXPOSITION.format(namespace=self._metrics.namespace), "text/plain; version=0.0.4; charset=utf-8"


def _position(prediction: Prediction) -> float:
    """Compute the position of the predicted class in the list of classes, from 0 (first) to 1 (last).

    With two classes its mean is their balance, whatever their names; with more, most shifts move it.
    """
    names = list(prediction.probabilities)
    return names.index(prediction.prediction) / max(1, len(names) - 1)
