"""Commands that run notebooks: one of them, or the whole graph."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from catsdogs_lib.cli.options import ANY_PATH, open_bundle
from catsdogs_lib.cli.output import show, table
from catsdogs_lib.common.errors import CatsdogsError

if TYPE_CHECKING:
    from catsdogs_lib.pipeline.workspace import Workspace


@click.command("run")
@click.argument("notebook", type=ANY_PATH)
@click.option("-p", "--parameter", "parameters", nargs=2, multiple=True, metavar="NAME VALUE", help="Set a parameter.")
@click.option(
    "--section", "sections", multiple=True, metavar="NAME", help="Take parameters from a section of params.yaml first."
)
def run_notebook(notebook: Path, parameters: tuple[tuple[str, str], ...], sections: tuple[str, ...]) -> None:
    """Run a notebook; its executed copy and HTML go to the reports of its workspace."""
    from catsdogs_lib.pipeline import execution
    from catsdogs_lib.pipeline.workspace import Workspace, project_root

    values = {**execution.section_parameters(notebook, project_root(), sections), **dict(parameters)}
    report = execution.run_notebook(notebook, values, Workspace.open(values.get("workspace", "")))
    click.echo(f"report: {os.path.relpath(report)}")


@click.command()
@click.option(
    "--data",
    "source",
    default="sample",
    show_default=True,
    help="sample, kaggle, oxford-pets, or a folder or archive of photos.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a parameter of params.yaml first, e.g. train.method=finetune.",
)
def pipeline(source: str, settings: tuple[str, ...]) -> None:
    """Run the whole graph, from photos to a bundle; what has not changed is skipped."""
    from catsdogs_lib.pipeline import graph, parameters
    from catsdogs_lib.pipeline.workspace import Workspace, project_root

    values = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise CatsdogsError(f"'{setting}' is no setting; write NAME=VALUE, e.g. train.epochs=3")
        values[name] = parameters.parse_value(value)
    if graph.run_graph(project_root(), source, values):
        raise SystemExit(2)
    _show_metrics(Workspace.open("."))


def _show_metrics(workspace: "Workspace") -> None:
    from catsdogs_lib.common import files

    summary = files.read_json(workspace.metrics)
    models = summary["models"]
    rows = table("", *models, right=models, title="Measured on test photos, with 95 % intervals", title_justify="left")
    for metric in models[summary["candidate"]]["test"]:
        cells = (values["test"][metric] for values in models.values())
        rows.add_row(metric.replace("_", " "), *(_interval(cell) for cell in cells))
    show(rows)
    bundle = open_bundle(workspace.bundle)
    show(
        f"bundle {bundle.version}: {os.path.relpath(workspace.bundle)}   "
        f"reports: {os.path.relpath(workspace.reports / 'index.html')}",
        soft_wrap=True,
    )


def _interval(cell: dict[str, float | None]) -> str:
    if cell["value"] is None:
        return "not defined"
    return f"{cell['value']:.4f} ({cell['low']:.4f} to {cell['high']:.4f})"


COMMANDS = (run_notebook, pipeline)
