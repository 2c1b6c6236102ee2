"""The description of a bundle: classes, preprocessing, thresholds, metrics, golden answers and model card."""

import base64
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from catsdogs_lib.common import files
from catsdogs_lib.imaging.preprocessing import Preprocessing

SCHEMA_VERSION: Final = 2
GRAPH_FILE: Final = "model.onnx"
MAX_GRAPH_BYTES = 2**31
"""Largest graph: the limit of protobuf, in which ONNX files are encoded."""
MIN_INPUT_SIZE, MAX_INPUT_SIZE = 16, 1024
"""Range of the side of a model's input, in pixels."""
MIN_STD, MAX_STD = 1e-3, 1e3
"""Range of the standard deviation that pixels are divided by, on the scale 0..1."""

Probability = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    # Validators are built on first use, since building them all slows every start.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class Graph(_Part):
    """The graph's file, its SHA-256 and size, and the type of its weights; int8 graphs also compute in int8."""

    file: Literal["model.onnx"] = GRAPH_FILE
    sha256: str
    bytes: int = Field(gt=0, le=MAX_GRAPH_BYTES)
    weights: Literal["fp32", "fp16", "int8"]

    @property
    def tolerance(self) -> float:
        """Largest difference of a probability between CPUs: in a quantized graph one bit may tip the rounding."""
        return 0.02 if self.weights == "int8" else 1e-3


class Metric(_Part):
    """A measured figure with its bootstrap 95 % interval."""

    value: float
    low: float
    high: float


class Golden(_Part):
    """A golden answer: a drawn picture and this model's probabilities for it."""

    name: str
    png: str = Field(description="the picture, PNG, base64")
    probabilities: dict[str, Probability]

    @field_validator("png")
    @classmethod
    def _check_base64(cls, png: str) -> str:
        try:
            base64.b64decode(png, validate=True)
        except ValueError:
            raise ValueError("the picture is not valid base64") from None
        return png

    @property
    def data(self) -> bytes:
        """The picture as PNG bytes."""
        return base64.b64decode(self.png)


class Thresholds(_Part):
    """Thresholds of confident predictions, chosen on validation photos."""

    confident: Probability = Field(description="its probability is at least this")
    unfamiliar: float = Field(ge=0, description="the photo's unfamiliarity is at most this")


class RiskBound(_Part):
    """Bound on the error rate of confident predictions, proven on the validation photos.

    See `catsdogs_lib.evaluation.selective` for the theorem.
    """

    aim: Probability = Field(description="share of wrong ones that the threshold was chosen for")
    level: Probability = Field(description="share of wrong ones that is not exceeded")
    trust: Probability = Field(description="the probability with which that holds")
    photos: int = Field(description="validation photos")
    confident: int = Field(description="those answered confidently")
    wrong: int = Field(description="wrong answers among these")
    floor: Probability = Field(description="the smallest level that so many photos could certify, without an error")
    unfamiliar: Probability = Field(description="chance of a familiar photo to be called unfamiliar, at most")


class Parity(_Part):
    """Largest difference of a probability between torch and ONNX, and the number of photos compared.

    For int8 it is the difference that quantization makes.
    """

    photos: int
    max_difference: float


class Data(_Part):
    """The dataset that the model was trained and evaluated on."""

    source: str
    sha256: str = Field(description="identifies photos, labels and split")
    photos: dict[str, int] = Field(description="photos used in each split")


class Slice(_Part):
    """A slice of similar test photos, and the accuracy on it."""

    name: str
    photos: int
    accuracy: Metric
    worse: bool = Field(description="worse than the rest, beyond chance")


class SelectiveMetrics(_Part):
    """Metrics of selective prediction on the test photos."""

    unsure: Probability = Field(description="share of test photos without a confident answer")
    unfamiliar: Probability = Field(description="share of test photos that are called unfamiliar")
    confident_accuracy: Probability = Field(description="share of confident answers that are right")
    confident: int
    confident_wrong: int


class Card(_Part):
    """Model card: intended use, limits and weak slices."""

    intended_use: str
    limits: tuple[str, ...]
    slices: tuple[Slice, ...] = Field(description="the weakest first")
    doubt: SelectiveMetrics


def _check_preprocessing(preprocessing: Preprocessing) -> Preprocessing:
    # Chained comparisons, which are False for NaN.
    if not MIN_INPUT_SIZE <= preprocessing.size <= MAX_INPUT_SIZE:
        raise ValueError(f"the size is {str(preprocessing.size)[:20]}, not {MIN_INPUT_SIZE} to {MAX_INPUT_SIZE} pixels")
    if not all(0 <= mean <= 1 for mean in preprocessing.mean):
        raise ValueError("a mean of the pixels is outside 0..1")
    if not all(MIN_STD <= std <= MAX_STD for std in preprocessing.std):
        raise ValueError(f"a standard deviation of the pixels is outside {MIN_STD:g}..{MAX_STD:g}")
    return preprocessing


class Description(_Part):
    """Description of a bundle; the content of ``model.json``."""

    schema_version: Literal[2] = SCHEMA_VERSION
    model: str
    classes: tuple[str, ...] = Field(min_length=2)
    graph: Graph
    preprocessing: Annotated[Preprocessing, AfterValidator(_check_preprocessing)]
    temperature: float = Field(gt=0, description="for information: the graph applies it")
    thresholds: Thresholds
    certificate: RiskBound
    explanation: Literal["activation map", "occlusion"] = Field(description="how it shows where it looked")
    metrics: dict[str, Metric] = Field(description="measured on the test photos, never used to choose")
    parity: Parity
    golden: tuple[Golden, ...]
    data: Data
    card: Card
    training: dict[str, Any] = Field(description="the settings that made the model")
    git_commit: str
    mlflow_run: str
    created: datetime
    weights_licence: str
    digest: str = Field(default="", description="SHA-256 of this description without this field")

    @model_validator(mode="after")
    def _classes_agree(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"two of the {len(self.classes)} classes have the same name")
        for golden in self.golden:
            if set(golden.probabilities) != set(self.classes):
                raise ValueError(f"golden answer {golden.name} has other classes than the model")
        return self

    def content_digest(self) -> str:
        """Compute the SHA-256 of everything but the digest itself."""
        return files.digest(self.model_dump(mode="json", exclude={"digest"}))

    def sealed(self) -> "Description":
        """Copy the description with its digest filled in."""
        return self.model_copy(update={"digest": self.content_digest()})
