"""What is kept of a photo: its answer, or the sentence why there is none."""

from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from catsdogs_lib.imaging.decoding import PhotoError
from catsdogs_lib.inference.classifier import TOO_LITTLE_MEMORY, Classifier, Prediction


class Row(TypedDict):
    """A photo and its answer; where `error` says why there is none, the answer's fields are None."""

    path: str
    prediction: str | None
    confidence: float | None
    probabilities: dict[str, float] | None
    confident: bool | None
    reason: str | None
    error: str | None
    model_version: str


def printable(path: str) -> str:
    """Give a name as text that any file can hold: bytes that are no UTF-8 become escapes."""
    return path.encode(errors="backslashreplace").decode()


def score_photo(classifier: Classifier, path: str, read: Callable[[], bytes | Path]) -> Row:
    """Answer for one photo; one that cannot be read or used becomes a row with an error.

    Parameters
    ----------
    classifier
        What answers.
    path
        What names the photo in its row.
    read
        Gives its bytes, or the path of its file; raises `PhotoError` where it cannot.
    """
    version = classifier.bundle.version
    try:
        return answered_row(path, classifier.predict(read()), version)
    except PhotoError as error:
        return error_row(path, str(error), version)
    except MemoryError:
        return error_row(path, TOO_LITTLE_MEMORY, version)


def answered_row(path: str, answer: Prediction, version: str) -> Row:
    """Make the row of a photo that was answered."""
    return Row(
        path=path,
        prediction=answer.prediction,
        confidence=answer.confidence,
        probabilities=answer.probabilities,
        confident=answer.confident,
        reason=answer.reason,
        error=None,
        model_version=version,
    )


def error_row(path: str, error: str, version: str) -> Row:
    """Make the row of a photo without an answer."""
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
