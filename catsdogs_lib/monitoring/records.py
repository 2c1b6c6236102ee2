"""Prediction records: read from the service's log, or made from photos for a reference.

A record is the log line of one answer, without the photo; feedback that comes later is a line of its own.
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from catsdogs_lib.common import files
from catsdogs_lib.common.class_names import canonical_class
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.common.progress import track
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.serving.telemetry import PREDICT_ROUTE, RequestRecord

NUMBERS = (
    "confidence",
    "unfamiliarity",
    "latency_seconds",
    "photo_width",
    "photo_height",
    "photo_brightness",
    "photo_sharpness",
)
TEXTS = ("prediction_id", "prediction", "photo_format", "model_version", "truth")
COLUMNS = ("timestamp", *TEXTS, *NUMBERS, "confident", "probabilities")


class RecordsError(CatsdogsError):
    """Records cannot be read."""


def read(paths: Sequence[Path]) -> pd.DataFrame:
    """Read the records of a window.

    Parameters
    ----------
    paths
        Files or folders of files: JSON lines as the service writes them (``.jsonl``, ``.log``, also gzipped, also with
        the time in front that CloudWatch's export to S3 adds), what ``aws logs filter-log-events`` prints (``.json``),
        or Parquet with the same columns. Lines that are no record are skipped.

    Returns
    -------
    DataFrame
        With `COLUMNS`, a row an answer, by time. ``truth`` is the last that came in, empty where none did. Cats and
        dogs are ``cat`` and ``dog``, whatever the model called them; `catsdogs_lib.common.class_names` says when.

    Raises
    ------
    RecordsError
        A file cannot be read, or there is no record in any.
    """
    answers: dict[str, dict[str, Any]] = {}
    truths: dict[str, str] = {}
    for path in _files(paths):
        for line in _lines(path):
            name = str(line.get("prediction_id") or "")
            if not name:
                continue
            if line.get("message") == "feedback" or ("truth" in line and "prediction" not in line):
                truths[name] = str(line.get("truth") or "")
            elif line.get("prediction") is not None:
                answers[name] = line
    if not answers:
        raise RecordsError(
            f"there is no record in {', '.join(map(str, paths))}; name the log of the service, as JSON lines"
        )
    table = pd.DataFrame.from_records([{name: row.get(name) for name in COLUMNS} for row in answers.values()])
    table["truth"] = [truths.get(name) or given or "" for name, given in zip(answers, table["truth"], strict=True)]
    table["timestamp"] = pd.to_datetime(table["timestamp"], utc=True, format="mixed", errors="coerce")
    table[list(NUMBERS)] = table[list(NUMBERS)].apply(pd.to_numeric, errors="coerce")
    table[list(TEXTS)] = table[list(TEXTS)].fillna("").astype(str)
    for column in ("prediction", "truth"):
        pairs = zip(table[column], table["probabilities"], strict=True)
        table[column] = [canonical_class(name, _classes(probabilities)) for name, probabilities in pairs]
    table["confident"] = table["confident"].fillna(value=False).astype(bool)
    return table.sort_values("timestamp", kind="stable", ignore_index=True)


def _classes(probabilities: Any) -> list[str]:
    # Parquet fills in the classes of other rows with None.
    return [name for name, value in probabilities.items() if value is not None] if probabilities else []


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.is_file())
        else:
            yield path


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read the JSON objects of one file."""
    try:
        if path.suffix == ".parquet":
            yield from ({str(k): v for k, v in row.items()} for row in pd.read_parquet(path).to_dict("records"))
            return
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode(errors="replace")
    except (OSError, EOFError, ValueError, ImportError, zlib.error) as error:
        raise RecordsError(f"{path} cannot be read ({error}); name JSON lines or Parquet") from None
    if path.name.removesuffix(".gz").endswith(".json"):
        page = _parsed(text)
        if page is not None and isinstance(page.get("events"), list):
            text = "\n".join(str(event.get("message", "")) for event in page["events"] if isinstance(event, dict))
    # Not splitlines: a file name may contain other line separators, which JSON does not escape.
    for line in text.split("\n"):
        # CloudWatch's export to S3 puts the time before each message.
        record = _parsed(line[line.find("{") :]) if "{" in line else None
        if record is not None:
            yield record


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def make(
    classifier: Classifier, photos: Sequence[bytes | Path], truths: Sequence[str], label: str = "making records"
) -> list[dict[str, Any]]:
    """Make the records that the service would log for these photos, with their true labels."""
    rows = []
    for number, (photo, truth) in enumerate(track(list(zip(photos, truths, strict=True)), label)):
        prediction, statistics = classifier.predict_with_statistics(photo)
        record = RequestRecord(
            f"{number:032x}",
            "POST",
            PREDICT_ROUTE,
            200,
            prediction_id=f"{number:032x}",
            prediction=prediction,
            statistics=statistics,
            truth=truth,
            model_version=classifier.bundle.version,
        )
        rows.append({"timestamp": datetime.now(UTC).isoformat(), "message": "prediction", **record.fields()})
    return rows


def write(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Write records as JSON lines, atomically."""
    files.write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
