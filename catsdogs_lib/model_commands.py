"""Commands about models: who is champion, and what a model's card says."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from catsdogs_lib.evaluation.gate import Verdict

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("folder", metavar="[BUNDLE]", type=FOLDER, default=Path("models/bundle"))
@click.option("--workspace", "root", default=".", show_default=True, help="Folder of the pipeline, with its photos.")
@click.option("--force", metavar="REASON", default="", help="Make it champion whatever the gate says; REASON is kept.")
def promote(folder: Path, root: str, force: str) -> None:
    """Ask the gate whether a registered BUNDLE may become champion, and make it so.

    Ends with 0 if it is champion now, with 1 if the gate refused it, with 2 if it could not be asked.
    """
    from catsdogs_lib import champions, files, steps, tracking
    from catsdogs_lib.bundle import Bundle
    from catsdogs_lib.workspace import Workspace

    ws = Workspace.open(root)
    bundle = Bundle.load(folder)
    tracking.connect(ws.tracking_uri, ws.artifacts)
    slug = files.read_json(ws.need(ws.source, "01_explore"))["slug"]
    name = tracking.registered_name(slug, bundle.description.classes)
    version = tracking.version_of(name, bundle.version)
    if version is None:
        raise click.UsageError(f"bundle {bundle.version} is not registered as {name}; run notebook 05_package for it")
    champion = tracking.champion(name)
    if champion is not None and champion.version == version.version:
        click.echo(f"{name} version {version.version} is champion already")
        return
    verdict = champions.judge(ws, steps.read_manifest(ws), bundle, champion)
    _show(verdict)
    if not champions.settle(version, verdict, force):
        raise SystemExit(1)
    click.echo(f"champion of {name}: version {version.version}, bundle {bundle.version}")


def _show(verdict: "Verdict") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "check", "candidate", "champion", ""):
        table.add_column(column, justify="right" if column in ("candidate", "champion") else "left")
    for one in verdict.checks:
        mark = "[green]✓[/]" if one.passed else "[red]✗[/]"
        bar = "" if one.champion is None else f"{one.champion:.4g}"
        table.add_row(mark, escape(one.name), f"{one.candidate:.4g}", bar, one.unit)
    console = Console()
    console.print(table)
    console.print(("[green]Yes.[/] " if verdict.promoted else "[red]No.[/] ") + escape(verdict.sentence))


@click.command()
@click.argument("folder", metavar="[BUNDLE]", type=FOLDER, required=False)
@click.option("-o", "--output", type=FILE, default=Path("model_card.html"), show_default=True,
              help="Where to; HTML, or Markdown where it ends in .md.")  # fmt: skip
def card(folder: Path | None, output: Path) -> None:
    """Write the model card of a BUNDLE; else that of $CATSDOGS_BUNDLE, models/bundle, models/reference."""
    from catsdogs_lib import card as cards
    from catsdogs_lib.bundle import Bundle, locate

    bundle = Bundle.load(locate(folder))
    cards.write(bundle, output)
    click.echo(f"card of bundle {bundle.version}: {output}")


COMMANDS = (promote, card)
