"""Ratios of two sides with their spread, as a table and a plot: what all parts of `make bench` report.

Each part writes what it measured to reports/benchmarks/PART.json; the page beside it is made of all parts that are
there.
"""

import json
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from catsdogs_lib.common import files
from catsdogs_lib.evaluation.plots.style import BLUE, GREY, INK, VERMILION, new_figure, set_title, style_axes

FOLDER = Path(__file__).parents[1] / "reports" / "benchmarks"
RESAMPLES = 4000


@dataclass(frozen=True)
class Ratio:
    """One measure of ours beside that of another way to do the same.

    Attributes
    ----------
    what, unit
        The measure.
    rival
        The other way.
    ours, theirs
        Of each round of one run, alternating.
    bar
        So many times better ours should be; None where nothing was promised.
    more
        Whether more is better, as for throughput.
    """

    what: str
    unit: str
    rival: str
    ours: Sequence[float]
    theirs: Sequence[float]
    bar: float | None = None
    more: bool = False

    @property
    def value(self) -> float:
        """How many times better ours is, by medians."""
        return self._of(np.median(self.ours), np.median(self.theirs))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the ratio of medians: rounds drawn anew, pairs together."""
        rounds = min(len(self.ours), len(self.theirs))
        drawn = np.random.default_rng(0).integers(0, rounds, (RESAMPLES, rounds))
        ours, theirs = (np.median(np.array(side)[drawn], axis=1) for side in (self.ours, self.theirs))
        low, high = np.quantile(self._of(ours, theirs), (0.025, 0.975))
        return float(low), float(high)

    def _of(self, ours: Any, theirs: Any) -> Any:
        return ours / theirs if self.more else theirs / ours

    @property
    def row(self) -> tuple[str, ...]:
        """For tables."""
        low, high = self.interval
        own, other = (f"{statistics.median(side):.4g}" for side in (self.ours, self.theirs))
        bar = "" if self.bar is None else f"{self.bar:g}"
        return self.what, self.rival, f"{own} {self.unit}", other, f"{self.value:.2f}", f"{low:.2f} to {high:.2f}", bar


COLUMNS = ("", "beside", "catsdogs", "the other", "times better", "95 %", "bar")


@dataclass(frozen=True)
class Part:
    """The results of one benchmark."""

    name: str
    title: str
    how: str
    ratios: list[Ratio]
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def keep(self) -> bool:
        """Print and save the part and rebuild the page; return whether every bar is reached."""
        _show(self)
        FOLDER.mkdir(parents=True, exist_ok=True)
        files.write_json(FOLDER / f"{self.name}.json", {**asdict(self), "machine": machine()})
        picture(self, FOLDER / f"{self.name}.png")
        page(FOLDER)
        return all(ratio.bar is None or ratio.value >= ratio.bar for ratio in self.ratios)


def machine() -> str:
    """Describe the machine that measures."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return f"{len(names)} cores of {names[0] if names else platform.processor()}, Python {platform.python_version()}"


def _show(part: Part) -> None:
    table = Table(title=part.title, title_justify="left")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in COLUMNS[:2] else "right")
    for ratio in part.ratios:
        colour = "" if ratio.bar is None else "[green]" if ratio.value >= ratio.bar else "[red]"
        cells = list(ratio.row)
        cells[4] = f"{colour}{cells[4]}"
        table.add_row(*cells)
    console = Console(width=None if Console().is_terminal else 140)
    if part.ratios:
        console.print(table)
    for name, rows in part.tables.items():
        console.print(_plain(name, rows))


def _plain(name: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=name, title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="left" if column == next(iter(rows[0])) else "right")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    return table


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def picture(part: Part, path: Path) -> None:
    """Draw how many times better ours is, by measure and rival."""
    if not part.ratios:
        return
    figure, axes = new_figure(8.5, 1.2 + 0.34 * len(part.ratios))
    for y, ratio in enumerate(reversed(part.ratios)):
        low, high = ratio.interval
        colour = BLUE if ratio.value >= (ratio.bar or 1) else VERMILION
        axes.plot([low, high], [y, y], color=colour, linewidth=2)
        axes.plot(ratio.value, y, "o", color=colour)
        if ratio.bar is not None:
            axes.plot(ratio.bar, y, "|", color=INK, markersize=14, markeredgewidth=2)
    axes.axvline(1, color=GREY, linewidth=1)
    axes.set_xscale("log")
    ticks = [t for t in (0.25, 0.5, 1, 2, 4, 8, 16, 32) if 0.5 * axes.get_xlim()[0] <= t <= 2 * axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(part.ratios)), [f"{ratio.what} - {ratio.rival}" for ratio in reversed(part.ratios)])
    style_axes(axes, "", "times better (dot: medians, line: 95 %, tick: the bar)", "")
    set_title(figure, part.title)
    figure.savefig(path)


def page(folder: Path) -> None:
    """Write all parts that are there as Markdown."""
    lines = ["# Benchmarks", ""]
    for path in sorted(folder.glob("*.json")):
        value = json.loads(path.read_text())
        title, ratios = value["title"], [Ratio(**fields) for fields in value["ratios"]]
        lines += [f"## {title}", "", value["how"], "", f"Measured on {value['machine']}.", ""]
        if ratios:
            lines += [
                *_markdown(COLUMNS, (ratio.row for ratio in ratios)),
                "",
                f"![{title}]({path.stem}.png)",
                "",
            ]
        for name, rows in value["tables"].items():
            lines += [f"### {name}", ""]
            lines += [*_markdown(tuple(rows[0]), ([_cell(v) for v in row.values()] for row in rows)), ""]
    files.write_text(folder / "README.md", "\n".join(lines))


def _markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    head = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return head + ["| " + " | ".join(row) + " |" for row in rows]
