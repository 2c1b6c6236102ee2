"""Scoring a source: its photos go to an engine, the rows to an output."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from catsdogs_lib.batch.local_engine import WorkerPool
from catsdogs_lib.batch.output import Output
from catsdogs_lib.batch.sources import Source, open_source
from catsdogs_lib.common.progress import track
from catsdogs_lib.inference.bundle import Bundle


class Summary(NamedTuple):
    """Counts of a scoring run.

    Attributes
    ----------
    photos
        Photos in the source.
    unanswered
        Photos whose row holds an error.
    kept
        Photos whose row an earlier run had written.
    seconds
        Time spent on the others.
    """

    photos: int
    unanswered: int
    kept: int
    seconds: float

    @property
    def photos_per_second(self) -> float:
        """Throughput over the photos that this run scored."""
        return (self.photos - self.kept) / self.seconds


def score(source: str, folder: Path, bundle: Bundle, workers: int | None = None) -> Summary:
    """Score every photo of a source into Parquet files, resuming where an earlier run stopped.

    Parameters
    ----------
    source
        See `catsdogs_lib.batch.sources.open_source`.
    folder
        See `catsdogs_lib.batch.output.Output`.
    bundle
        Model that scores.
    workers
        Number of processes; None starts one for each core that this process may use.

    Raises
    ------
    SourceUnusableError
        The source holds no photos, or cannot be read.
    OutputUnusableError
        The folder is something else, or belongs to another source or bundle.
    WorkersLostError
        Workers cannot start, or keep dying.
    """
    photos = open_source(source)
    count = photos.count()
    workers = min(workers or len(os.sched_getaffinity(0)), count)
    begin = time.monotonic()
    with Output.opened(folder, photos.name, bundle.description) as output:
        for _ in track(_steps(photos, output, bundle, workers), "scoring", count):
            pass
        return Summary(output.done, output.unanswered, output.kept, time.monotonic() - begin)


def _steps(source: Source, output: Output, bundle: Bundle, workers: int) -> Iterator[None]:
    """Score what is missing; yield once for each row, new or kept."""
    reported = 0
    with WorkerPool(bundle, workers) as pool:
        for position, row in pool.score(output.missing(source.photos())):
            output.add(position, row)
            yield from (None for _ in range(reported, output.done))
            reported = output.done
    yield from (None for _ in range(reported, output.done))
