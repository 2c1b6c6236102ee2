"""The whole way: a source, workers, an output."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from catsdogs_lib.batch.output import Output
from catsdogs_lib.batch.sources import Source, open_source
from catsdogs_lib.batch.workers import WorkerPool
from catsdogs_lib.common.progress import track
from catsdogs_lib.inference.bundle import Bundle


@dataclass(frozen=True)
class Summary:
    """What a run has done.

    Attributes
    ----------
    photos
        Of the source.
    unanswered
        Those whose row is an error.
    kept
        Those whose row was there before.
    seconds
        What the others took.
    """

    photos: int
    unanswered: int
    kept: int
    seconds: float

    @property
    def photos_per_second(self) -> float:
        """How fast those went that this run looked at."""
        return (self.photos - self.kept) / self.seconds


def score(source: str, folder: Path, bundle: Bundle, workers: int | None = None) -> Summary:
    """Answer every photo of a source into Parquet files of a folder; goes on where it was ended.

    Parameters
    ----------
    source
        See `catsdogs_lib.batch.sources.open_source`.
    folder
        See `catsdogs_lib.batch.output.Output`.
    bundle
        What answers.
    workers
        Processes; None takes one for every core that this process may use.

    Raises
    ------
    SourceUnusableError
        No photos can be had from the source.
    OutputUnusableError
        The folder is something else, or belongs to another source or bundle.
    WorkersLostError
        Processes die faster than they answer.
    """
    named = open_source(source)
    count = named.count()
    workers = min(workers or len(os.sched_getaffinity(0)), count)
    begin = time.monotonic()
    with Output.opened(folder, named.name, bundle.description) as output:
        for _ in track(_steps(named, output, bundle, workers), "scoring", count):
            pass
        return Summary(output.done, output.unanswered, output.kept, time.monotonic() - begin)


def _steps(source: Source, output: Output, bundle: Bundle, workers: int) -> Iterator[None]:
    """Work; a step for every photo that has its row, be it new or kept."""
    told = 0
    with WorkerPool(bundle, workers) as pool:
        for position, row in pool.answers(output.missing(source.photos())):
            output.add(position, row)
            yield from (None for _ in range(told, output.done))
            told = output.done
    yield from (None for _ in range(told, output.done))
