"""Rows of the output: the answer for a photo, or the reason why there is none."""

from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from catsdogs_lib.imaging.decoding import PhotoError, PhotoTooLargeError
from catsdogs_lib.inference.classifier import TOO_LITTLE_MEMORY, Classifier, InferenceError, Prediction


class Row(TypedDict):
    """A photo and its answer; if `error` is set, the fields of the answer are None."""

    path: str
    prediction: str | None
    confidence: float | None
    probabilities: dict[str, float] | None
    confident: bool | None
    reason: str | None
    error: str | None
    model_version: str


def printable(path: str) -> str:
    """Replace bytes of a file name that are not UTF-8 by escapes."""
    return path.encode(errors="backslashreplace").decode()


def score_photo(classifier: Classifier, path: str, read: Callable[[], bytes | Path]) -> tuple[Row, str | None]:
    """Score a photo; one that cannot be read or used becomes a row with an error.

    Parameters
    ----------
    classifier
        Model that scores.
    path
        Name of the photo in its row.
    read
        Returns its bytes, or the path of its file; raises `PhotoError` if it cannot.

    Returns
    -------
    row, kind
        Its row, and the kind of its error; None if it was scored.
    """
    version = classifier.bundle.version
    try:
        return answered_row(path, classifier.predict(read()), version), None
    except (PhotoError, InferenceError) as error:
        return error_row(path, str(error), version), error.kind
    except MemoryError:
        return error_row(path, TOO_LITTLE_MEMORY, version), PhotoTooLargeError.kind


def answered_row(path: str, prediction: Prediction, version: str) -> Row:
    """Make the row of a scored photo."""
    return Row(
        path=path,
        prediction=prediction.prediction,
        confidence=prediction.confidence,
        probabilities=prediction.probabilities,
        confident=prediction.confident,
        reason=prediction.reason,
        error=None,
        model_version=version,
    )


def error_row(path: str, error: str, version: str) -> Row:
    """Make the row of a photo that could not be scored."""
    return Row(
        path=path,
        prediction=None,
        confidence=None,
        probabilities=None,
        confident=None,
        reason=None,
        error=printable(error),
        model_version=version,
    )
