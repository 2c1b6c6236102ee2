"""The folder that answers are written to: a Parquet file for every so many photos, and what a kill must not lose.

A row goes to the journal of its part as soon as it is there. Once a part has all its rows it appears as a whole, and
its journal goes. What is no part has a name that begins with an underscore: readers of Parquet pass over it.
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
from catsdogs_lib.inference.bundle import Description

LEDGER = "_score.json"
PART_ROWS = 2**14
"""Photos in a part: a million photos are some 60 parts of a megabyte. The rows of a part are held in memory."""


class OutputUnusableError(CatsdogsError):
    """A folder cannot take these answers; ``str()`` says why and what to do."""


@dataclass
class _Part:
    """A part that is being filled; rows by their positions in the source."""

    size: int
    journal: IO[bytes]
    rows: dict[int, Row]


@dataclass
class Output:
    """A folder with answers, open for more; see `opened`.

    Attributes
    ----------
    done
        Photos with a row.
    unanswered
        Those whose row is an error.
    kept
        Those whose row was there before.
    """

    folder: Path
    schema: Any
    part_rows: int
    done: int = 0
    unanswered: int = 0
    kept: int = 0
    _filling: dict[int, _Part] = field(default_factory=dict)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, folder: Path, source: str, description: Description, part_rows: int = PART_ROWS) -> Iterator[Self]:
        """Open a new folder, or one that a run with the same source and bundle has left.

        Parameters
        ----------
        folder
            Made where it is missing. Only one process at a time may have it.
        source
            Name of the source.
        description
            That of the bundle that answers.
        part_rows
            Photos in a part; a folder that is there keeps its own number.

        Raises
        ------
        OutputUnusableError
            It is something else, belongs to another source or bundle, or is in use.
        """
        schema = parquet.schema(description)
        if folder.suffix == ".parquet" or (folder.exists() and not folder.is_dir()):
            raise OutputUnusableError(
                f"'{folder}' is no name for a folder, in which the answers come to lie as Parquet files; name another"
            )
        folder.mkdir(parents=True, exist_ok=True)
        with _held(folder):
            output = cls(folder, schema, _agreed(folder, source, description, part_rows))
            try:
                yield output
            finally:
                for part in output._filling.values():
                    part.journal.close()

    def missing(self, photos: Iterator[Photo]) -> Iterator[tuple[int, Photo]]:
        """Go through the photos of the source; yield those without a row, with their positions.

        Raises
        ------
        OutputUnusableError
            They are not the photos that the rows are of.
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
                self._check(number, block)
            else:
                yield from self._begin(number, block)

    def _check(self, number: int, block: Sequence[Photo]) -> None:
        paths, unanswered = parquet.read_paths(self._part(number))
        if paths != [photo.path for photo in block]:
            raise self._changed()
        self._journal(number).unlink(missing_ok=True)  # a kill came after the part, before this
        self.kept += len(paths)
        self.done += len(paths)
        self.unanswered += unanswered

    def _begin(self, number: int, block: Sequence[Photo]) -> Iterator[tuple[int, Photo]]:
        photos = dict(enumerate(block, number * self.part_rows))
        journal = self._journal(number).open("a+b", buffering=0)
        part = self._filling[number] = _Part(len(block), journal, _read(journal))
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
        """Write the row of a photo; from now on a kill does not lose it."""
        number = position // self.part_rows
        part = self._filling[number]
        line = json.dumps({"position": position, "row": row}).encode() + b"\n"
        if part.journal.write(line) != len(line):
            raise OutputUnusableError(f"'{self.folder}' takes no more; free some space and run it again")
        part.rows[position] = row
        self.done += 1
        self.unanswered += row["error"] is not None
        if len(part.rows) == part.size:
            self._finish(number)

    def _finish(self, number: int) -> None:
        part = self._filling.pop(number)
        parquet.write(self._part(number), [part.rows[position] for position in sorted(part.rows)], self.schema)
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
def _held(folder: Path) -> Iterator[None]:
    """Keep others out of a folder; the system lets go of it however the process ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputUnusableError(f"'{folder}' is in use by another run; wait for it, or name another") from None
        yield
    finally:
        os.close(handle)


def _agreed(folder: Path, source: str, description: Description, part_rows: int) -> int:
    """Write the ledger of a new folder, or compare that of an old one; the photos in a part."""
    files.sweep(folder)
    place = folder / LEDGER
    ours = {"source": source, "bundle": description.digest, "part_rows": part_rows}
    if not any(folder.iterdir()):
        files.write_json(place, ours)
        return part_rows
    try:
        theirs: Any = files.read_json(place)
        kept, answers, rows = theirs["source"], theirs["bundle"], int(theirs["part_rows"])
    except (OSError, ValueError, KeyError, TypeError):
        raise OutputUnusableError(
            f"'{folder}' is not empty and holds no answers of this command; name a new folder"
        ) from None
    if kept != source:
        raise OutputUnusableError(f"'{folder}' holds answers for '{kept}', not for '{source}'; name a new folder")
    if answers != description.digest:
        raise OutputUnusableError(
            f"'{folder}' holds answers of model {answers[:12]}, not of {description.digest[:12]}; name a new folder, "
            "or that model with --bundle"
        )
    return rows


def _read(journal: IO[bytes]) -> dict[int, Row]:
    """Read the rows of a journal; what a crash left half-written at its end is cut off."""
    rows: dict[int, Row] = {}
    whole = 0
    journal.seek(0)
    *lines, _ = journal.read().split(b"\n")
    for line in lines:
        try:
            entry = files.parse_json(line)
            rows[int(entry["position"])] = entry["row"]
        except (ValueError, KeyError, TypeError):
            break
        whole += len(line) + 1
    journal.truncate(whole)
    return rows
