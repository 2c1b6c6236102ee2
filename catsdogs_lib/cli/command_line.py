"""The command ``catsdogs``, thin over the library."""

import errno
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catsdogs_lib import __version__
from catsdogs_lib.cli.data import data
from catsdogs_lib.cli.models import COMMANDS as MODEL_COMMANDS
from catsdogs_lib.cli.release import COMMANDS as RELEASE_COMMANDS
from catsdogs_lib.cli.serving import COMMANDS
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.common.progress import track
from catsdogs_lib.imaging.decoding import SUFFIXES
from catsdogs_lib.inference.bundle import Bundle, locate
from catsdogs_lib.inference.classifier import Answer, Classifier

FOLDER = click.Path(path_type=Path, file_okay=False)
ANY_PATH = click.Path(path_type=Path, readable=False)
EXTRAS = {
    "botocore": "aws",
    "mangum": "lambda",
    "aws_lambda_powertools": "lambda",
    "aws_xray_sdk": "lambda",
    "fsspec": "score",
    "pyarrow": "score",
}
"""Which extra brings a module; any other that is missing comes with ``train``."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="catsdogs")
def cli() -> None:
    """From cat and dog photos to a trusted HTTPS endpoint."""


for command in (*COMMANDS, data, *MODEL_COMMANDS, *RELEASE_COMMANDS):
    cli.add_command(command)


@cli.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=ANY_PATH)
@click.option(
    "--bundle", "folder", type=FOLDER, help="Bundle to ask; else $CATSDOGS_BUNDLE, models/bundle, models/reference."
)
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object a line; so it is also where there is no terminal."
)
def predict(paths: tuple[Path, ...], folder: Path | None, as_json: bool) -> None:
    """Say what is on photos: files, or folders with all photos below them.

    Ends with 0 if every photo was answered, with 1 if some were not.
    """
    photos = list(_photos(paths))
    classifier = Classifier(Bundle.load(locate(folder)))
    answers = track(classifier.predict_many(photos), "predicting", total=len(photos))
    failed = 0
    if as_json or not sys.stdout.isatty():
        for answer in answers:
            failed += answer.error is not None
            print(json.dumps(_fields(answer)), flush=True)
    else:
        collected = list(answers)
        failed = sum(answer.error is not None for answer in collected)
        _show(collected)
    if failed:
        raise SystemExit(1)


def _photos(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = sorted(
            Path(folder, name)
            for folder, _, names in os.walk(path, onerror=_raise)
            for name in names
            if Path(name).suffix.lower() in SUFFIXES
        )
        if not found:
            raise CatsdogsError(f"folder {path} holds no photos; name one with files ending in {', '.join(SUFFIXES)}")
        yield from found


def _raise(error: OSError) -> None:
    raise error


def _fields(answer: Answer) -> dict[str, Any]:
    if answer.prediction is None:
        return {"path": str(answer.path), "error": answer.error}
    fields = ("prediction", "confidence", "probabilities", "confident", "reason")
    return {"path": str(answer.path), **{name: getattr(answer.prediction, name) for name in fields}}


def _show(answers: Sequence[Answer]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("photo", "answer", "probability", ""):
        table.add_column(name, overflow="fold", justify="right" if name == "probability" else "left")
    for answer in answers:
        shown = escape(str(answer.path).encode(errors="backslashreplace").decode())
        if answer.prediction is None:
            table.add_row(shown, "[red]none[/]", "", escape(answer.error or ""))
        else:
            sure = answer.prediction
            colour = "green" if sure.confident else "yellow"
            table.add_row(shown, f"[{colour}]{escape(sure.prediction)}[/]", f"{sure.confidence:.1%}", sure.reason or "")
    Console().print(table)


@cli.command()
@click.argument("notebook", type=ANY_PATH)
@click.option("-p", "--parameter", "parameters", nargs=2, multiple=True, metavar="NAME VALUE", help="Set a parameter.")
@click.option(
    "--section", "sections", multiple=True, metavar="NAME", help="Take parameters from a section of params.yaml first."
)
def run(notebook: Path, parameters: tuple[tuple[str, str], ...], sections: tuple[str, ...]) -> None:
    """Run a notebook; its executed copy and HTML go to the reports of its workspace."""
    from catsdogs_lib.pipeline import execution
    from catsdogs_lib.pipeline.workspace import Workspace, project_root

    values = {**execution.section_parameters(notebook, project_root(), sections), **dict(parameters)}
    report = execution.run_notebook(notebook, values, Workspace.open(values.get("workspace", "")))
    click.echo(f"report: {os.path.relpath(report)}")


@cli.command("pipeline")
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
def pipeline_command(source: str, settings: tuple[str, ...]) -> None:
    """Run the whole graph, from photos to a bundle; what has not changed is skipped."""
    from catsdogs_lib.pipeline import graph, parameters
    from catsdogs_lib.pipeline.workspace import Workspace, project_root

    values = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise CatsdogsError(f"'{setting}' is no setting; write NAME=VALUE, e.g. train.epochs=3")
        values[name] = parameters.parse_value(value)
    status = graph.run_graph(project_root(), source, values)
    if status:
        raise SystemExit(2)
    _show_result(Workspace.open("."))


def _show_result(workspace: Any) -> None:
    from catsdogs_lib.common import files

    summary = files.read_json(workspace.metrics)
    table = Table(title="Measured on test photos, with 95 % intervals", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for name in summary["models"]:
        table.add_column(name, justify="right")
    for metric in summary["models"][summary["candidate"]]["test"]:
        cells = (values["test"][metric] for values in summary["models"].values())
        table.add_row(metric.replace("_", " "), *(_interval(cell) for cell in cells))
    console = Console()
    console.print(table)
    bundle = Bundle.load(workspace.bundle)
    console.print(
        f"bundle {bundle.version}: {os.path.relpath(workspace.bundle)}   "
        f"reports: {os.path.relpath(workspace.reports / 'index.html')}",
        soft_wrap=True,
    )


def _interval(cell: dict[str, float | None]) -> str:
    if cell["value"] is None:
        return "not defined"
    return f"{cell['value']:.4f} ({cell['low']:.4f} to {cell['high']:.4f})"


def main() -> None:
    """Run the command line: mistakes become one sentence and exit status 2."""
    # Pillow's advice on odd photos is for programmers; the answer says what matters.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        cli.main(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        print("catsdogs: interrupted; the same command goes on from what is finished", file=sys.stderr)
        raise SystemExit(130) from None
    except click.exceptions.Exit as end:
        raise SystemExit(end.exit_code) from None
    except click.ClickException as error:
        _fail(f"{error.format_message().rstrip('.')}; see 'catsdogs --help'")
    except CatsdogsError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0], "train")
        _fail(f"{error.name} is not installed; this command needs more tools: pip install 'catsdogs[{extra}]'")
    except BrokenPipeError:
        # The reader of a pipe has had enough; say nothing, and nothing more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        hint = "free some space and run it again" if full else "check the path"
        _fail(f"{error.filename or 'writing'}: {error.strerror or error}; {hint}")


def _fail(sentence: str) -> None:
    print(f"catsdogs: {sentence}", file=sys.stderr)
    raise SystemExit(2)
