"""What ``POST /explain`` answers: where the model looked, as numbers and as a picture."""

import base64
import io
from dataclasses import dataclass

from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.inference.explanation import Explanation, explain
from catsdogs_lib.serving.schemas import ExplanationAnswer


@dataclass(frozen=True)
class Made:
    """An explanation and its picture, PNG."""

    explanation: Explanation
    method: str
    png: bytes

    def answer(self, latency_seconds: float, model_version: str) -> ExplanationAnswer:
        """Put the answer together."""
        found = self.explanation.prediction
        return ExplanationAnswer.model_validate(
            {
                "prediction": found.prediction,
                "confidence": found.confidence,
                "probabilities": found.probabilities,
                "confident": found.confident,
                "reason": found.reason,
                "unfamiliarity": found.unfamiliarity,
                "method": self.method,
                "map": self.explanation.heat.round(4).tolist(),
                "overlay": f"data:image/png;base64,{base64.b64encode(self.png).decode()}",
                "latency_seconds": latency_seconds,
                "model_version": model_version,
            }
        )


def make(classifier: Classifier, photo: bytes) -> Made:
    """Explain the answer for a photo; raises `PhotoError` where the photo cannot be used."""
    explanation = explain(classifier, photo)
    stream = io.BytesIO()
    # The least compression: half a size more, for a third of the time.
    explanation.overlay().save(stream, "PNG", compress_level=1)
    return Made(explanation, classifier.bundle.description.explanation, stream.getvalue())
