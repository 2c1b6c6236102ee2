"""Tables and check marks on a terminal."""

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def table(*columns: str, right: Collection[str] = ()) -> "Table":
    """Make an empty table with bold headings; columns in `right` are right-aligned."""
    from rich.table import Table

    empty = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        empty.add_column(name, overflow="fold", justify="right" if name in right else "left")
    return empty


def mark(passed: bool) -> str:
    """Give the mark of a check, in rich's markup."""
    return "[green]✓[/]" if passed else "[red]✗[/]"


def print_check(name: str, passed: bool, detail: str) -> None:
    """Print the result of a check as a plain line."""
    print(f"{'ok' if passed else 'FAILED'}  {name}: {detail}", flush=True)
