"""Tables, marks and check results on the terminal; rich is imported on first use."""

import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def table(*columns: str, right: Collection[str] = (), **options: Any) -> "Table":
    """Make an empty table with bold headings; columns in `right` are right-aligned; `options` are rich's."""
    from rich.table import Table

    empty = Table(box=None, pad_edge=False, header_style="bold", **options)
    for name in columns:
        empty.add_column(name, overflow="fold", justify="right" if name in right else "left")
    return empty


def escape(value: object) -> str:
    """Return a value as text in which rich finds no markup."""
    from rich import markup

    return markup.escape(str(value))


def mark(passed: bool) -> str:
    """Return the mark of a check, in rich's markup."""
    return "[green]✓[/]" if passed else "[red]✗[/]"


def show(renderable: object, **options: Any) -> None:
    """Print a table, or text with markup; `options` are those of rich's ``Console.print``."""
    from rich.console import Console

    Console().print(renderable, **options)


def show_check(name: str, passed: bool, detail: str) -> None:
    """Print the result of a check: with its mark on a terminal, else as a plain line."""
    if sys.stdout.isatty():
        show(f"{mark(passed)} {escape(name)}: {escape(detail)}", soft_wrap=True, highlight=False)
    else:
        print(f"{'ok' if passed else 'FAILED'}  {name}: {detail}", flush=True)
