"""Commands for data: fetch, draw and check photos, audit labels, apply the reviewed proposals."""

from pathlib import Path

import click

from catsdogs_lib.cli.options import ANY_PATH, FOLDER, workspace_option
from catsdogs_lib.cli.output import escape, show, table
from catsdogs_lib.common.errors import CatsdogsError


@click.group()
def data() -> None:
    """Fetch, draw and check photos."""


@data.command()
@click.argument("source")
@click.argument("folder", type=FOLDER)
def fetch(source: str, folder: Path) -> None:
    """Copy the photos of SOURCE (sample, kaggle, oxford-pets, a folder or archive) into a new FOLDER."""
    from catsdogs_lib.data import sources

    _refuse_full(folder)
    fetched = sources.fetch(source, folder, downloads=Path("data/downloads"))
    click.echo(f"{fetched.files} files of {', '.join(fetched.classes)} in {folder}")


@data.command("draw")
@click.argument("folder", type=FOLDER)
@click.option(
    "--kind", "kinds", multiple=True, default=("cat", "dog"), show_default=True, help="cat, dog, rabbit or owl."
)
@click.option(
    "--per-class", default=300, show_default=True, type=click.IntRange(1, 100_000), help="Pictures of each kind."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Another seed, other pictures.")
@click.option("--faults/--no-faults", default=True, help="Sow in the usual faults of a collection.")
def draw_sample(folder: Path, kinds: tuple[str, ...], per_class: int, seed: int, faults: bool) -> None:
    """Draw a sample of pictures into a new FOLDER, a subfolder each kind."""
    from catsdogs_lib.data.synthetic.dataset import write_sample

    _refuse_full(folder)
    write_sample(folder, per_class, seed, kinds, faults)
    click.echo(f"{per_class} pictures each of {', '.join(kinds)} in {folder}")


def _refuse_full(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise CatsdogsError(f"folder {folder} is not empty; name a new one")


@data.command()
@click.argument("folder", type=FOLDER)
@click.option("--manifest", "path", type=ANY_PATH, help="Write the whole table here, as CSV.")
def check(folder: Path, path: Path | None) -> None:
    """Check every photo of FOLDER and say what is wrong; nothing is changed."""
    from catsdogs_lib.data import manifest
    from catsdogs_lib.data.settings import PrepareSettings

    rows = manifest.build_manifest(folder, PrepareSettings())
    if path is not None:
        manifest.write_manifest(rows, path)
    findings = table("photo", "left out because", "warning")
    flagged = rows[(rows["excluded"] != "") | (rows["warning"] != "")]
    for cells in flagged[["path", "excluded", "warning"]].itertuples(index=False):
        findings.add_row(*map(escape, cells))
    show(findings)
    used = manifest.used(rows)
    counts = used.groupby(["label", "split"]).size().unstack(fill_value=0)
    click.echo(f"{len(rows)} files, {len(used)} used\n{counts.to_string()}")


@data.command()
@workspace_option("Folder of a pipeline that has prepared.")
@click.option("-o", "--output", type=FOLDER, default=Path("reports/doctor"), show_default=True, help="Where to.")
def doctor(root: str, output: Path) -> None:
    """Look for wrong labels, two classes in one photo, drawings and outliers; a page and a file of proposals."""
    from catsdogs_lib.common import files
    from catsdogs_lib.evaluation import label_audit, label_audit_page
    from catsdogs_lib.pipeline.stages import prepare
    from catsdogs_lib.pipeline.workspace import Workspace

    ws = Workspace.open(root)
    findings = label_audit.audit(label_audit.audit_data(prepare.read_manifest(ws), ws.raw, ws.features))
    files.write_text(output / "findings.html", label_audit_page.page(findings, ws.raw))
    files.write_text(output / "proposals.csv", findings.to_csv(index=False, lineterminator="\n"))
    excerpt = table("finding", "photo", "label", "reason", "proposal")
    for row in findings.groupby("finding", sort=False).head(10).itertuples():
        excerpt.add_row(*map(escape, (row.finding, row.path, row.label, row.reason, row.proposal)))
    show(excerpt)
    click.echo(f"{len(findings)} photos to look at: {output / 'findings.html'}; decide in {output / 'proposals.csv'}")


@data.command()
@click.argument("proposals", type=ANY_PATH)
@click.option("--to", "target", type=ANY_PATH, required=True, help="File of exclusions, e.g. exclusions/mine.csv.")
def confirm(proposals: Path, target: Path) -> None:
    """Add what a person wrote into the column 'action' of PROPOSALS to a file that the pipeline obeys."""
    from catsdogs_lib.data import review

    excluded, relabelled = review.apply_review(proposals, target)
    click.echo(
        f"{excluded} left out, {relabelled} relabelled in {target}; use it with --set prepare.exclusions={target}"
    )


COMMANDS = (data,)
