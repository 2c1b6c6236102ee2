"""The output folder of a run: Parquet files with a fixed number of rows each, and journals that survive a kill.

A row is appended to the journal of its part at once. When a part has all its rows, it is written as one Parquet file
and its journal is removed. Other files start with an underscore, which Parquet readers skip.
"""

import contextlib
import fcntl
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from catsdogs_lib.batch import parquet
from catsdogs_lib.batch.photos import Photo
from catsdogs_lib.batch.rows import Row
from catsdogs_lib.common import files
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.inference.description import Description

LEDGER = "_score.json"
PART_ROWS = 2**14
"""Photos in a part: a million photos make about 60 parts of a megabyte. Rows of unfinished parts stay in memory."""


class OutputUnusableError(CatsdogsError):
    """The folder cannot hold this run's output; ``str()`` says why and what to do."""


@dataclass
class _Part:
    """A part being filled; `rows` by position in the source."""

    size: int
    journal: IO[bytes]
    rows: dict[int, Row]


@dataclass
class Output:
    """An output folder, open for more rows; see `opened`.

    Attributes
    ----------
    done
        Photos with a row.
    unanswered
        Photos whose row holds an error.
    kept
        Photos whose row an earlier run had written.
    """

    folder: Path
    schema: Any
    part_rows: int
    done: int = 0
    unanswered: int = 0
    kept: int = 0
    _unfinished: dict[int, _Part] = field(default_factory=dict)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, folder: Path, source: str, description: Description, part_rows: int = PART_ROWS) -> Iterator[Self]:
        """Open a new folder, or one that an earlier run with the same source and bundle left behind.

        Parameters
        ----------
        folder
            Created if missing, and locked against other processes.
        source
            Name of the source.
        description
            Description of the bundle that scores.
        part_rows
            Photos in a part; an existing folder keeps its own number.

        Raises
        ------
        OutputUnusableError
            The path is something else, belongs to another source or bundle, or is in use.
        """
        schema = parquet.part_schema(description)
        if folder.suffix == ".parquet" or (folder.exists() and not folder.is_dir()):
            raise OutputUnusableError(
                f"'{folder}' is no name for a folder; the answers are Parquet files in a folder, name another"
            )
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            output = cls(folder, schema, _open_ledger(folder, source, description, part_rows))
            try:
                yield output
            finally:
                for part in output._unfinished.values():
                    part.journal.close()

    def missing(self, photos: Iterator[Photo]) -> Iterator[tuple[int, Photo]]:
        """Yield the photos of the source that have no row yet, with their positions.

        Raises
        ------
        OutputUnusableError
            The rows belong to other photos.
        PartCorruptError
            A part cannot be read.
        """
        for number in itertools.count():
            block = list(itertools.islice(photos, self.part_rows))
            if not block:
                if any(self.folder.glob(f"part-{number:05d}.parquet")) or self._journal(number).exists():
                    raise self._changed()
                return
            if self._part(number).exists():
                self._keep(number, block)
            else:
                yield from self._begin(number, block)

    def _keep(self, number: int, block: Sequence[Photo]) -> None:
        paths, unanswered = parquet.read_paths(self._part(number))
        if paths != [photo.path for photo in block]:
            raise self._changed()
        self._journal(number).unlink(missing_ok=True)  # left by a kill right after the part was written
        self.kept += len(paths)
        self.done += len(paths)
        self.unanswered += unanswered

    def _begin(self, number: int, block: Sequence[Photo]) -> Iterator[tuple[int, Photo]]:
        photos = dict(enumerate(block, number * self.part_rows))
        journal = self._journal(number).open("a+b", buffering=0)
        part = self._unfinished[number] = _Part(len(block), journal, _read_journal(journal))
        for position, row in part.rows.items():
            if position not in photos or row["path"] != photos[position].path:
                raise self._changed()
        self.kept += len(part.rows)
        self.done += len(part.rows)
        self.unanswered += sum(row["error"] is not None for row in part.rows.values())
        missing = [(position, photo) for position, photo in photos.items() if position not in part.rows]
        if not missing:
            self._finish(number)
        yield from missing

    def add(self, position: int, row: Row) -> None:
        """Write the row of a photo; once this returns, a kill cannot lose it."""
        number = position // self.part_rows
        part = self._unfinished[number]
        line = json.dumps({"position": position, "row": row}, allow_nan=False).encode() + b"\n"
        if part.journal.write(line) != len(line):
            raise OutputUnusableError(f"'{self.folder}' cannot be written to; free some space and run it again")
        part.rows[position] = row
        self.done += 1
        self.unanswered += row["error"] is not None
        if len(part.rows) == part.size:
            self._finish(number)

    def _finish(self, number: int) -> None:
        part = self._unfinished.pop(number)
        parquet.write_part(self._part(number), [part.rows[position] for position in sorted(part.rows)], self.schema)
        part.journal.close()
        self._journal(number).unlink()

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"

    def _journal(self, number: int) -> Path:
        return self.folder / f"_part-{number:05d}.jsonl"

    def _changed(self) -> OutputUnusableError:
        return OutputUnusableError(
            f"'{self.folder}' holds answers for other photos: the source has changed since; name a new folder"
        )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes; the kernel releases the lock however the process ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputUnusableError(f"'{folder}' is in use by another run; wait for it, or name another") from None
        yield
    finally:
        os.close(handle)


def _open_ledger(folder: Path, source: str, description: Description, part_rows: int) -> int:
    """Write the ledger of a new folder, or check that of an existing one; return the photos in a part."""
    files.sweep(folder)
    path = folder / LEDGER
    ledger: Any = {"source": source, "bundle": description.digest, "part_rows": part_rows}
    if not any(folder.iterdir()):
        files.write_json(path, ledger)
        return part_rows
    try:
        ledger = files.read_json(path)
        scored, digest, part_rows = ledger["source"], ledger["bundle"], int(ledger["part_rows"])
    except (OSError, ValueError, KeyError, TypeError):
        raise OutputUnusableError(
            f"'{folder}' is not empty and holds no answers of this command; name a new folder"
        ) from None
    if scored != source:
        raise OutputUnusableError(f"'{folder}' holds answers for '{scored}', not for '{source}'; name a new folder")
    if digest != description.digest:
        raise OutputUnusableError(
            f"'{folder}' holds answers of model {digest[:12]}, not of {description.digest[:12]}; name a new folder, "
            "or that model with --bundle"
        )
    return part_rows


def _read_journal(journal: IO[bytes]) -> dict[int, Row]:
    """Read the rows of a journal; cut off a line that a crash left half-written."""
    rows: dict[int, Row] = {}
    size = 0
    journal.seek(0)
    *lines, _ = journal.read().split(b"\n")
    for line in lines:
        try:
            entry = files.parse_json(line)
            rows[int(entry["position"])] = entry["row"]
        except (ValueError, KeyError, TypeError):
            break
        size += len(line) + 1
    journal.truncate(size)
    return rows
