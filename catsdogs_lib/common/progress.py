"""Progress of work that takes more than two seconds: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

FIRST_LINE_SECONDS = 2.0
"""Work that ends sooner prints nothing."""
LINE_INTERVAL_SECONDS = 10.0
"""Interval between plain lines."""


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield `items`, and show progress on stderr.

    Parameters
    ----------
    items
        The items to process.
    description
        A few words that name the work, e.g. ``"checking photos"``.
    total
        Number of items, if `items` has no length.

    Yields
    ------
    T
        Each item, unchanged.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    console = Console(stderr=True)
    if console.is_terminal and not console.is_jupyter:
        yield from _bar(items, description, total, console)
    else:
        yield from _lines(items, description, total)


def _bar(items: Iterable[T], description: str, total: int | None, console: Console) -> Iterator[T]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(description, total=total)
        for item in items:
            yield item
            progress.advance(task)


def _lines(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    start = last = time.monotonic()
    printed = False
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= (LINE_INTERVAL_SECONDS if printed else FIRST_LINE_SECONDS):
            of = f" of {total}" if total is not None else ""
            print(f"{description}: {done}{of}, {now - start:.0f} s", file=sys.stderr, flush=True)
            last, printed = now, True
    if printed:
        print(f"{description}: {done} done in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
