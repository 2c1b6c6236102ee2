"""Progress for anything that takes more than two seconds: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

FIRST_LINE_S = 2.0
"""Nothing is said about work that ends sooner than this, in seconds."""
LINE_EVERY_S = 10.0
"""How often a plain line is printed where there is no terminal, in seconds."""


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield `items` while showing on stderr how far the work is.

    Parameters
    ----------
    items
        What is worked through.
    what
        A few words that name the work, e.g. ``"checking photos"``.
    total
        Number of items, where `items` has no length.

    Yields
    ------
    T
        Each item, unchanged.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    console = Console(stderr=True)
    if console.is_terminal and not console.is_jupyter:
        yield from _bar(items, what, total, console)
    else:
        yield from _lines(items, what, total)


def _bar(items: Iterable[T], what: str, total: int | None, console: Console) -> Iterator[T]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        for item in items:
            yield item
            progress.advance(task)


def _lines(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    begin = last = time.monotonic()
    said = False
    done = 0
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= (LINE_EVERY_S if said else FIRST_LINE_S):
            of = f" of {total}" if total is not None else ""
            print(f"{what}: {done}{of}, {now - begin:.0f} s", file=sys.stderr, flush=True)
            last, said = now, True
    if said:
        print(f"{what}: {done} done in {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
