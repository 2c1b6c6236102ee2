"""Commands for registered models: promotion, the champion, model cards, drift."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from catsdogs_lib.cli.options import FILE, FOLDER, open_bundle, open_workspace, workspace_option
from catsdogs_lib.cli.output import escape, mark, show, table

if TYPE_CHECKING:
    from catsdogs_lib.evaluation.gate import Verdict


@click.command()
@click.argument("folder", metavar="[BUNDLE]", type=FOLDER, default=Path("models/bundle"))
@workspace_option("Folder of the pipeline, with its photos.")
@click.option("--force", metavar="REASON", default="", help="Make it champion whatever the gate says; REASON is kept.")
def promote(folder: Path, root: str, force: str) -> None:
    """Ask the gate whether a registered BUNDLE may become champion, and make it so.

    Ends with 0 if it is champion now, with 1 if the gate refused it, with 2 if it could not be asked.
    """
    from catsdogs_lib.common import files
    from catsdogs_lib.pipeline.stages import prepare
    from catsdogs_lib.registry import models, promotion

    bundle = open_bundle(folder)
    ws = open_workspace(root)
    slug = files.read_json(ws.need(ws.source, "01_explore"))["slug"]
    name = models.registered_name(slug, bundle.description.classes)
    version = models.version_of(name, bundle.version)
    if version is None:
        raise click.UsageError(f"bundle {bundle.version} is not registered as {name}; run notebook 05_package for it")
    champion = models.champion(name)
    if champion is not None and champion.version == version.version:
        click.echo(f"{name} version {version.version} is champion already")
        return
    verdict = promotion.judge(ws.raw, prepare.read_manifest(ws), bundle, champion)
    _show(verdict)
    if not promotion.promote_if_passed(version, verdict, force):
        raise SystemExit(1)
    click.echo(f"champion of {name}: version {version.version}, bundle {bundle.version}")


def _show(verdict: "Verdict") -> None:
    rows = table("", "check", "candidate", "champion", "", right=("candidate", "champion"))
    for check in verdict.checks:
        champion = "" if check.champion is None else f"{check.champion:.4g}"
        rows.add_row(mark(check.passed), escape(check.name), f"{check.candidate:.4g}", champion, check.unit)
    show(rows)
    show(("[green]Yes.[/] " if verdict.promoted else "[red]No.[/] ") + escape(verdict.sentence))


@click.command()
@click.argument("folder", metavar="[BUNDLE]", type=FOLDER, required=False)
@click.option(
    "-o",
    "--output",
    type=FILE,
    default=Path("model_card.html"),
    show_default=True,
    help="Where to; HTML, or Markdown where it ends in .md.",
)
def card(folder: Path | None, output: Path) -> None:
    """Write the model card of a BUNDLE; else that of $CATSDOGS_BUNDLE, models/bundle, models/reference."""
    from catsdogs_lib.export import model_card

    bundle = open_bundle(folder)
    model_card.write(bundle, output)
    click.echo(f"card of bundle {bundle.version}: {output}")


@click.command()
@click.argument("window", metavar="RECORDS...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--reference", type=FILE, help="Validation records; else those of the workspace.")
@workspace_option("Folder of the pipeline, with the bundle.")
def monitor(window: tuple[Path, ...], reference: Path | None, root: str) -> None:
    """Hold RECORDS of answers (JSON lines, CloudWatch export, Parquet) against those of validation.

    Ends with 0 if there is nothing to do, with 1 if there is something to look at, with 2 if they cannot be read.
    """
    from catsdogs_lib.pipeline.stages import monitor
    from catsdogs_lib.pipeline.workspace import Workspace

    drift, _ = monitor.monitor(Workspace.open(root), window, reference)
    rows = table("", "signal", "validation", "now", "effect", "p", right=("validation", "now", "effect", "p"))
    for signal in drift.signals:
        metrics = (signal.reference, signal.window, signal.effect, signal.p_value)
        rows.add_row(mark(not signal.alarm), escape(signal.signal), *(f"{value:.3g}" for value in metrics))
    show(rows)
    measured = f", {drift.measured.value:.1%} of {drift.feedback} by feedback" if drift.measured else ""
    show(f"accuracy {drift.estimated.value:.1%} by confidence{measured}; {drift.unsure:.1%} unsure")
    show(escape(drift.sentence))
    if drift.alarms:
        raise SystemExit(1)


@click.command("champion")
@click.argument("model", required=False)
@click.option("--to", "root", default=".", show_default=True, help="Folder of a pipeline.")
def fetch_champion(model: str | None, root: str) -> None:
    """Fetch the champion of the registry, MODEL where there are several: its bundle and its validation records.

    The bundle goes to models/bundle, where serving finds it; the records are what 'monitor' compares with.
    """
    import shutil
    import tempfile

    from catsdogs_lib.common import files
    from catsdogs_lib.registry import models
    from catsdogs_lib.release import rollout

    ws = open_workspace(root)
    with rollout.fetched_champion(model) as candidate, tempfile.TemporaryDirectory() as folder:
        records = models.reference_records(candidate.model, candidate.version, Path(folder))
        if records is not None:
            files.write_bytes(ws.reference, records.read_bytes())
        with files.replacing(ws.bundle) as partial:
            shutil.copytree(candidate.bundle.folder, partial)
    click.echo(f"{candidate.model} version {candidate.version}, bundle {candidate.bundle.version}: {ws.bundle}")


COMMANDS = (promote, fetch_champion, card, monitor)
