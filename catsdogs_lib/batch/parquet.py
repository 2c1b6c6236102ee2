"""A part of the answers as a Parquet file: one row a photo, a column for each class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from catsdogs_lib.batch.rows import Row
from catsdogs_lib.common import files
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.inference.bundle import Description

PROBABILITY = "probability_"
"""Begins the name of each class's column: plain numbers are what pandas and DuckDB filter and sort by."""


class PartCorruptError(CatsdogsError):
    """A part that was written once can no longer be read."""


def schema(description: Description) -> Any:
    """Give the columns; what answered stands in the file's metadata."""
    import pyarrow as pa

    answer = [("prediction", pa.string()), ("confidence", pa.float64())]
    classes = [(PROBABILITY + name, pa.float64()) for name in description.classes]
    rest = [("confident", pa.bool_()), *((name, pa.string()) for name in ("reason", "error", "model_version"))]
    metadata = {
        "catsdogs.bundle": description.digest,
        "catsdogs.model": description.model,
        "catsdogs.graph": description.graph.sha256,
        "catsdogs.mlflow_run": description.mlflow_run,
        "catsdogs.git_commit": description.git_commit,
    }
    return pa.schema([("path", pa.string()), *answer, *classes, *rest], metadata=metadata)


def write(path: Path, rows: Sequence[Row], schema: Any) -> None:
    """Write a part as a whole or not at all."""
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist([_flat(row) for row in rows], schema), sink)
    files.write_bytes(path, sink.getvalue().to_pybytes())


def _flat(row: Row) -> dict[str, Any]:
    return {**row, **{PROBABILITY + name: value for name, value in (row["probabilities"] or {}).items()}}


def read_paths(path: Path) -> tuple[list[str], int]:
    """Read which photos a part holds, in its order, and how many of them were not answered.

    Raises
    ------
    PartCorruptError
        It is damaged, or no such part.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path, columns=["path", "error"])
        return table["path"].to_pylist(), len(table) - table["error"].null_count
    except (pa.ArrowException, KeyError):
        raise PartCorruptError(f"'{path}' is damaged; remove it, and its photos are scored again") from None
