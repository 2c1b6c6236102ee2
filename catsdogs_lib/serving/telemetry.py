"""What one request came to, and who is told of it."""

import logging
from dataclasses import dataclass
from typing import Any, Protocol

from catsdogs_lib.imaging.statistics import ImageStatistics
from catsdogs_lib.inference.classifier import Prediction

PREDICT_ROUTE, FEEDBACK_ROUTE = "/predict", "/feedback"


@dataclass
class RequestRecord:
    """What one request came to; filled in on its way through the application.

    `route` is the path's template, never the path, so that figures by route stay few. `seconds` is the time
    from the first line to the last byte, `prediction_seconds` that of decoding and looking alone. `status` 499:
    the sender left before the answer.
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
    measures: ImageStatistics | None = None
    truth: str | None = None
    prediction_seconds: float | None = None
    model_version: str | None = None

    def fields(self) -> dict[str, Any]:
        """Fields of the log line; no photo, and only what is there.

        Those of an answer are the record that monitoring reads (docs/monitoring.md).
        """
        answer, measures = self.prediction, self.measures
        found = {
            "request_id": self.request_id,
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
            "prediction": answer.prediction if answer else None,
            "confidence": answer.confidence if answer else None,
            "probabilities": answer.probabilities if answer else None,
            "unfamiliarity": answer.unfamiliarity if answer else None,
            "confident": answer.confident if answer else None,
            "reason": answer.reason if answer else None,
            **({f"photo_{name}": value for name, value in measures._asdict().items()} if measures else {}),
            "truth": self.truth,
            "latency_seconds": self.prediction_seconds,
            "model_version": self.model_version,
        }
        return {name: value for name, value in found.items() if value is not None}

    @property
    def level(self) -> int:
        """Severity of the log line: health checks that pass are not worth one."""
        if self.error is not None:
            return logging.ERROR
        if self.problem is not None:
            return logging.WARNING
        return logging.INFO if self.route in (PREDICT_ROUTE, FEEDBACK_ROUTE) else logging.DEBUG

    @property
    def message(self) -> str:
        """What the log line is about."""
        if self.truth is not None:
            return "feedback"
        return "prediction" if self.prediction else self.problem or "request"


class Telemetry(Protocol):
    """Told of every request once it is over."""

    def record(self, outcome: RequestRecord) -> None:
        """Count it and log it."""

    def exposition(self) -> tuple[str, str]:
        """Figures as text, and its media type, for ``GET /metrics``."""
