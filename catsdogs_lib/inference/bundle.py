"""The bundle: a folder that training produces and serving loads, with the graph and its description.

`model.onnx` is the graph, `model.json` the description. Loading rejects files that are truncated, altered
or of another schema version, so that the model in service is the one that was evaluated.
"""

import base64
import os
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from catsdogs_lib.common import errors, files
from catsdogs_lib.imaging.preprocessing import Preprocessing
from catsdogs_lib.inference.external_data import has_external_data

SCHEMA_VERSION: Final = 2
DESCRIPTION_FILE = "model.json"
GRAPH_FILE: Final = "model.onnx"
ENVIRONMENT_VARIABLE = "CATSDOGS_BUNDLE"
DEFAULT_FOLDERS = (Path("models/bundle"), Path("models/reference"))
MAX_DESCRIPTION_BYTES = 16 * 2**20
"""Largest description; the golden pictures of the reference bundle take 180 kB."""
MAX_GRAPH_BYTES = 2**31
"""Largest graph: protobuf, which ONNX is written in, takes no more."""
MIN_INPUT_SIZE, MAX_INPUT_SIZE = 16, 1024
"""Range of the side of a model's input, in pixels."""
MIN_STD, MAX_STD = 1e-3, 1e3
"""Range of the standard deviation that pixels are divided by, on the scale 0..1."""

Probability = Annotated[float, Field(ge=0, le=1)]


class BundleError(errors.CatsdogsError):
    """A bundle cannot be used."""


class BundleMissingError(BundleError):
    """The folder, or one of its two files, is missing."""


class BundleCorruptError(BundleError):
    """A file of the bundle is truncated or altered."""


class BundleVersionError(BundleError):
    """The bundle has a schema version that this release does not read."""

    def __init__(self, folder: Path, schema_version: Any) -> None:
        super().__init__(
            f"bundle {folder}: {DESCRIPTION_FILE} has schema version {str(schema_version)[:20]}, "
            f"this release reads {SCHEMA_VERSION}; package the model again with this release"
        )
        self.schema_version = schema_version


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


@dataclass(frozen=True)
class Bundle:
    """A loaded and verified bundle.

    Attributes
    ----------
    folder
        Folder of the two files.
    description
        The content of ``model.json``.
    """

    folder: Path
    description: Description

    @property
    def graph_file(self) -> Path:
        """Path of ``model.onnx``, which was verified when the bundle was loaded."""
        return self.folder / self.description.graph.file

    @property
    def graph(self) -> bytes:
        """The bytes of ``model.onnx``, read each time: a service does not need them once its session exists."""
        return self.graph_file.read_bytes()

    @property
    def version(self) -> str:
        """Version of the model and its description: 12 hexadecimal digits of the digest."""
        return self.description.digest[:12]

    @classmethod
    def load(cls, folder: Path) -> "Bundle":
        """Read and verify a bundle.

        Raises
        ------
        BundleMissingError
            The folder or one of its two files is missing.
        BundleVersionError
            The bundle has another schema version.
        BundleCorruptError
            A file is truncated or altered, the description is invalid, or the graph keeps weights in another file.
        """
        try:
            description = _parse(folder, _read(folder, DESCRIPTION_FILE, MAX_DESCRIPTION_BYTES))
            graph = _read(folder, description.graph.file, MAX_GRAPH_BYTES)
        except OSError as error:
            # An error of the device, unlike one on opening a file, does not name the file.
            name = Path(error.filename).name if error.filename else "a file"
            raise BundleMissingError(
                f"bundle {folder}: {name} cannot be read ({error.strerror}); name a folder with {DESCRIPTION_FILE} and "
                f"{GRAPH_FILE}"
            ) from None
        _verify(folder, description, graph)
        return cls(folder, description)

    @classmethod
    def write(cls, folder: Path, description: Description, graph: bytes) -> "Bundle":
        """Write both files atomically, with the description's digest filled in.

        Raises
        ------
        BundleCorruptError
            The two do not fit, or cannot be a bundle; `folder` stays as it was.
        """
        text = description.sealed().model_dump_json(indent=2) + "\n"
        _verify(folder, _parse(folder, text.encode()), graph)
        with files.replacing(folder) as partial:
            partial.mkdir()
            files.write_bytes(partial / GRAPH_FILE, graph)
            files.write_text(partial / DESCRIPTION_FILE, text)
        return cls.load(folder)


def locate(folder: Path | None = None) -> Path:
    """Find the bundle to load: `folder`, else ``CATSDOGS_BUNDLE``, else the first of `DEFAULT_FOLDERS` that exists.

    Raises
    ------
    BundleMissingError
        None of `DEFAULT_FOLDERS` exists.
    """
    if folder is not None:
        return folder
    if named := os.environ.get(ENVIRONMENT_VARIABLE):
        return Path(named)
    for candidate in DEFAULT_FOLDERS:
        if (candidate / DESCRIPTION_FILE).is_file():
            return candidate
    folders = " or ".join(str(default) for default in DEFAULT_FOLDERS)
    raise BundleMissingError(
        f"no bundle in {folders}; run 'make pipeline' to train one, or name one with --bundle or {ENVIRONMENT_VARIABLE}"
    )


def _read(folder: Path, name: str, max_bytes: int) -> bytes:
    # Before it is opened: that of a named pipe would wait.
    status = (folder / name).stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
        raise BundleCorruptError(
            f"bundle {folder}: {name} is no file of at most {max_bytes >> 20} MiB; copy the bundle again"
        )
    return (folder / name).read_bytes()


def _parse(folder: Path, raw: bytes) -> Description:
    try:
        value = files.parse_json(raw)
    except ValueError:
        raise BundleCorruptError(
            f"bundle {folder}: {DESCRIPTION_FILE} is not JSON, perhaps cut short; copy the bundle again"
        ) from None
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleVersionError(folder, version if isinstance(version, (int, str)) else None)
    try:
        return Description.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        # A field that is not expected may have any name.
        field = ascii(".".join(str(part) for part in first["loc"]))[1:-1][:80]
        location = f"field {field} of {DESCRIPTION_FILE}" if field else DESCRIPTION_FILE
        message = first["msg"].removeprefix("Value error, ")
        raise BundleCorruptError(f"bundle {folder}: {location}: {message}; copy the bundle again") from None


def _verify(folder: Path, description: Description, graph: bytes) -> None:
    """Check what the description says about itself and about the graph."""
    try:
        digest = description.content_digest()
    except (ValueError, RecursionError):
        raise BundleCorruptError(
            f"bundle {folder}: {DESCRIPTION_FILE} is nested too deeply, or holds a number that is not finite; copy the "
            "bundle again"
        ) from None
    if digest != description.digest:
        raise BundleCorruptError(f"bundle {folder}: {DESCRIPTION_FILE} was altered; copy the bundle again")
    if not description.golden:
        raise BundleCorruptError(f"bundle {folder}: {DESCRIPTION_FILE} has no golden answer; package the model again")
    if len(graph) != description.graph.bytes:
        raise BundleCorruptError(
            f"bundle {folder}: {GRAPH_FILE} has {len(graph)} bytes, {description.graph.bytes} expected; "
            "copy the bundle again"
        )
    if (sha256 := files.sha256_bytes(graph)) != description.graph.sha256:
        raise BundleCorruptError(
            f"bundle {folder}: {GRAPH_FILE} was altered (SHA-256 {sha256[:12]}..., "
            f"{description.graph.sha256[:12]}... expected); copy the bundle again"
        )
    if has_external_data(graph):
        raise BundleCorruptError(
            f"bundle {folder}: {GRAPH_FILE} keeps weights in another file, which its SHA-256 does not cover; "
            "package the model again as one file"
        )
