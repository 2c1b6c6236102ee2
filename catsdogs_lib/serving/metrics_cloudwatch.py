"""Telemetry on Lambda: Powertools' log line, and metrics in CloudWatch's embedded format."""

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
    """Tells CloudWatch of every request.

    Parameters
    ----------
    logger
        Writes one JSON line a request; never the photo.
    metrics
        Flushed by the handler at the end of an invocation. Dimensions are few by design: service, route and model
        version; the class, the kind of problem or the function's version for one metric each. What has many values is
        metadata.

    Notes
    -----
    What releases are compared by (`Confidence`, `ClassPosition`, `Unsure`) is kept for the service as a whole and for
    each version of the function. CloudWatch bills a metric by the hours in which it gets a value, so versions that are
    no longer asked cost nothing.
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

    def record(self, outcome: RequestRecord) -> None:
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
            self._count("PredictionsByClass", class_name=outcome.prediction.prediction)
            self._compare(outcome.prediction)
        if outcome.problem is not None:
            metrics.add_metadata("problem", outcome.problem)
            self._count("ProblemsByType", problem=outcome.problem)
        fields = outcome.fields()
        if outcome.filename is not None:
            # 'filename' is also an attribute of Python's log records, so Powertools takes its value for a format:
            # '%(levelno)0999999999d' as a name would write a gigabyte.
            fields["filename"] = outcome.filename.replace("%", "%%")
        with self._logger.append_context_keys(**fields):
            self._write[outcome.level](outcome.message, exc_info=outcome.error)

    def _count(self, name: str, **dimension: str) -> None:
        # A blob of its own: the dimension is that of this one metric alone.
        named: dict[str, Any] = {"service": self._metrics.service, **dimension}
        namespace = self._metrics.namespace
        with single_metric(name, MetricUnit.Count, 1, namespace=namespace, default_dimensions=named):
            pass

    def _compare(self, prediction: Prediction) -> None:
        service = self._metrics.service
        compared = EphemeralMetrics(service=service, namespace=self._metrics.namespace)
        compared.add_dimension("service", service)
        compared.add_dimensions(service=service, function_version=self._function_version)
        compared.add_metric("Confidence", MetricUnit.NoUnit, prediction.confidence)
        compared.add_metric("ClassPosition", MetricUnit.NoUnit, _position(prediction))
        compared.add_metric("Unsure", MetricUnit.NoUnit, int(not prediction.confident))
        compared.flush_metrics()

    def exposition(self) -> tuple[str, str]:
        """Say where the figures are."""
        return EXPOSITION.format(namespace=self._metrics.namespace), "text/plain; version=0.0.4; charset=utf-8"


def _position(prediction: Prediction) -> float:
    """Place of the answer among the classes, from 0 for the first to 1 for the last.

    Its mean is the balance of two classes, whatever their names are; of more classes it moves with most shifts.
    """
    names = list(prediction.probabilities)
    return names.index(prediction.prediction) / max(1, len(names) - 1)
