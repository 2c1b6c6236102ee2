"""The record of a request, and the protocol of what receives it."""

import logging
from dataclasses import dataclass
from typing import Any, Protocol

from catsdogs_lib.imaging.statistics import ImageStatistics
from catsdogs_lib.inference.classifier import Prediction

PREDICT_ROUTE, FEEDBACK_ROUTE = "/predict", "/feedback"


@dataclass
class RequestRecord:
    """Record of one request, filled in on its way through the application.

    `route` is the path's template, never the path, so that metrics have few labels. `seconds` is the time from the
    first line to the last byte, `prediction_seconds` that of decoding and inference alone. `status` is 499 if the
    client left before the answer. `client_request_id` is the request's own ``x-request-id``, if it is safe to log.
    """

    request_id: str
    method: str = ""
    route: str = "unmatched"
    status: int = 499
    seconds: float = 0.0
    problem: str | None = None
    detail: str | None = None
    cause: str | None = None
    error: BaseException | None = None
    filename: str | None = None
    photo_bytes: int | None = None
    prediction_id: str | None = None
    prediction: Prediction | None = None
    statistics: ImageStatistics | None = None
    truth: str | None = None
    prediction_seconds: float | None = None
    model_version: str | None = None
    client_request_id: str | None = None

    def fields(self) -> dict[str, Any]:
        """Build the fields of the log line, without those that are None; never the photo.

        Monitoring reads those of predictions (docs/monitoring.md).
        """
        statistics = self.statistics._asdict() if self.statistics else {}
        fields = {
            "request_id": self.request_id,
            "client_request_id": self.client_request_id,
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "seconds": round(self.seconds, 6),
            "problem": self.problem,
            "detail": self.detail,
            "cause": self.cause,
            "filename": self.filename,
            "photo_bytes": self.photo_bytes,
            "prediction_id": self.prediction_id,
            **(self.prediction._asdict() if self.prediction else {}),
            **{f"photo_{name}": value for name, value in statistics.items()},
            "truth": self.truth,
            "latency_seconds": self.prediction_seconds,
            "model_version": self.model_version,
        }
        return {name: value for name, value in fields.items() if value is not None}

    @property
    def level(self) -> int:
        """Level of the log line; below INFO for health checks and pages."""
        if self.error is not None:
            return logging.ERROR
        if self.problem is not None:
            return logging.WARNING
        return logging.INFO if self.route in (PREDICT_ROUTE, FEEDBACK_ROUTE) else logging.DEBUG

    @property
    def message(self) -> str:
        """Message of the log line."""
        if self.truth is not None:
            return "feedback"
        return "prediction" if self.prediction else self.problem or "request"


class Telemetry(Protocol):
    """Receiver of the record of every request."""

    def record(self, record: RequestRecord) -> None:
        """Count and log a request that is over."""

    def exposition(self) -> tuple[str, str]:
        """Render the metrics for ``GET /metrics``: text and media type."""
