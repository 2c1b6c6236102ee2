"""Parts of the output as Parquet files: a row for each photo, a column for each class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from catsdogs_lib.batch.rows import Row
from catsdogs_lib.common import files
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.inference.description import Description

PROBABILITY_PREFIX = "probability_"
"""Prefix of each class's column; pandas and DuckDB filter and sort by plain numbers, not by maps."""


class PartCorruptError(CatsdogsError):
    """A finished part cannot be read."""


def part_schema(description: Description) -> Any:
    """Build the Arrow schema of a part; its metadata names the model."""
    import pyarrow as pa

    columns = [
        ("path", pa.string()),
        ("prediction", pa.string()),
        ("confidence", pa.float64()),
        *((PROBABILITY_PREFIX + name, pa.float64()) for name in description.classes),
        ("confident", pa.bool_()),
        ("reason", pa.string()),
        ("error", pa.string()),
        ("model_version", pa.string()),
    ]
    metadata = {
        "catsdogs.bundle": description.digest,
        "catsdogs.model": description.model,
        "catsdogs.graph": description.graph.sha256,
        "catsdogs.mlflow_run": description.mlflow_run,
        "catsdogs.git_commit": description.git_commit,
    }
    return pa.schema(columns, metadata=metadata)


def write_part(path: Path, rows: Sequence[Row], schema: Any) -> None:
    """Write a part atomically."""
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist([_flat(row) for row in rows], schema), sink)
    files.write_bytes(path, sink.getvalue().to_pybytes())


def _flat(row: Row) -> dict[str, Any]:
    return {**row, **{PROBABILITY_PREFIX + name: value for name, value in (row["probabilities"] or {}).items()}}


def read_paths(path: Path) -> tuple[list[str], int]:
    """Read the paths in a part, in order, and how many of its rows hold an error.

    Raises
    ------
    PartCorruptError
        The file is damaged, or is no part.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path, columns=["path", "error"])
        return table["path"].to_pylist(), len(table) - table["error"].null_count
    except (pa.ArrowException, KeyError):
        raise PartCorruptError(f"'{path}' is damaged; remove it, and its photos are scored again") from None
