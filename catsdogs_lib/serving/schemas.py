"""What the endpoint answers; the models are the OpenAPI document's, too."""

import os
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from catsdogs_lib import __version__
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Prediction
from catsdogs_lib.inference.description import Metric

LINKS = ("predict", "explain", "health", "ready", "version", "metrics", "docs")
IMAGE_VARIABLE = "CATSDOGS_IMAGE"
"""Environment variable: the image that the process runs from, ``name@sha256:...``; it cannot see that itself."""


class _Answer(BaseModel):
    # 'model_' begins names of the contract; pydantic would keep that prefix for itself.
    # Built when first used, as the parts of a bundle are.
    model_config = ConfigDict(protected_namespaces=(), defer_build=True)


class PredictionAnswer(_Answer):
    """The answer for one photo."""

    prediction: str = Field(description="the most probable class", examples=["cat"])
    confidence: float = Field(ge=0, le=1, description="its calibrated probability")
    probabilities: dict[str, float] = Field(description="of each class; they sum to 1")
    latency_seconds: float = Field(ge=0, description="decoding and looking, without waiting and network")
    confident: bool = Field(description="whether the confidence reaches the bundle's threshold")
    reason: str | None = Field(description="why it is not confident, one sentence")
    model_version: str = Field(examples=["0123456789ab"])
    prediction_id: str = Field(description="names this answer, e.g. in a report of its true class")

    @classmethod
    def of(cls, answer: Prediction, latency_seconds: float, model_version: str, prediction_id: str) -> Self:
        """Put an answer's parts together."""
        return cls(
            prediction=answer.prediction,
            confidence=answer.confidence,
            probabilities=answer.probabilities,
            latency_seconds=latency_seconds,
            confident=answer.confident,
            reason=answer.reason,
            model_version=model_version,
            prediction_id=prediction_id,
        )


class ExplanationAnswer(_Answer):
    """The answer for one photo, and where it came from."""

    prediction: str = Field(description="the most probable class", examples=["cat"])
    confidence: float = Field(ge=0, le=1, description="its calibrated probability")
    probabilities: dict[str, float] = Field(description="of each class; they sum to 1")
    confident: bool
    reason: str | None = Field(description="why it is not confident, one sentence")
    unfamiliarity: float = Field(description="cosine distance of the photo to what the model has learned from, 0 to 2")
    method: Literal["activation map", "occlusion"]
    map: list[list[float]] = Field(
        description="rows of what each place of the centre square adds to the answer's logit"
    )
    overlay: str = Field(description="the centre square with the map over it: a data URI, PNG")
    latency_seconds: float = Field(ge=0)
    model_version: str


class Feedback(BaseModel):
    """What really was on a photo."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    prediction_id: str = Field(pattern="^[0-9a-f]{32}$", description="that /predict gave")
    truth: str = Field(max_length=200, description="one of the classes")


class Kept(_Answer):
    """The truth is kept."""

    status: Literal["kept"] = "kept"


class Information(_Answer):
    """What this endpoint is."""

    name: str
    description: str
    service_version: str
    classes: tuple[str, ...]
    model_version: str | None
    links: dict[str, str]

    @classmethod
    def of(cls, bundle: Bundle | None) -> Self:
        """Describe the endpoint; without a bundle there are no classes to name."""
        classes = bundle.description.classes if bundle else ()
        return cls(
            name="catsdogs",
            description=f"Says which of these is on a photo: {', '.join(classes)}" if classes else "No model is loaded",
            service_version=__version__,
            classes=classes,
            model_version=bundle.version if bundle else None,
            links={name: f"/{name}" for name in LINKS},
        )


class Health(_Answer):
    """The process is alive."""

    status: Literal["alive"] = "alive"


class Ready(_Answer):
    """A model is loaded and has proven itself once."""

    status: Literal["ready"] = "ready"
    model_version: str


class Version(_Answer):
    """What answers, and where it comes from."""

    service_version: str
    model_version: str
    model: str
    classes: tuple[str, ...]
    git_commit: str
    mlflow_run: str
    data_sha256: str
    created: str
    weights_licence: str
    image: str | None = Field(description="the image that answers, by its digest; null where none was named")
    metrics: dict[str, Metric] = Field(description="measured on test photos, with 95 % intervals")

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """Describe a bundle."""
        description = bundle.description
        return cls(
            service_version=__version__,
            model_version=bundle.version,
            model=description.model,
            classes=description.classes,
            git_commit=description.git_commit,
            mlflow_run=description.mlflow_run,
            data_sha256=description.data.sha256,
            created=description.created.isoformat(),
            weights_licence=description.weights_licence,
            image=os.environ.get(IMAGE_VARIABLE) or None,
            metrics=description.metrics,
        )


class Upload(_Answer):
    """Where a photo too large for a request goes."""

    url: str = Field(description="post the form here")
    fields: dict[str, str] = Field(description="of the form, before the field 'file' that is the photo")
    key: str = Field(description="name it to /predict once the photo is there")
    expires_seconds: int = Field(description="so long the upload may begin")
    max_bytes: int


class UploadedPhoto(BaseModel):
    """A photo that was uploaded."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    key: str = Field(max_length=1100, description="that /uploads gave")


BINARY: dict[str, Any] = {"type": "string", "format": "binary"}


def photo_body(uploads: bool) -> dict[str, Any]:
    """Give the body of ``POST /predict`` in OpenAPI's words: FastAPI cannot derive two ways to send one thing."""
    content: dict[str, Any] = {
        "multipart/form-data": {
            "schema": {"type": "object", "required": ["file"], "properties": {"file": BINARY}},
            "encoding": {"file": {"contentType": "image/*"}},
        },
        "image/*": {"schema": BINARY},
    }
    if uploads:
        content["application/json"] = {"schema": UploadedPhoto.model_json_schema()}
    described = "One photo: JPEG, PNG, WebP, GIF (first frame), BMP or TIFF."
    return {"requestBody": {"required": True, "description": described, "content": content}}
