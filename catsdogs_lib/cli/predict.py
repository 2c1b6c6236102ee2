"""Commands that answer photos: predict, explain, score."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from catsdogs_lib.cli.options import ANY_PATH, BUNDLE_HELP, FILE, FOLDER, open_bundle
from catsdogs_lib.cli.output import escape, show, table
from catsdogs_lib.common.errors import CatsdogsError

if TYPE_CHECKING:
    from catsdogs_lib.inference.classifier import Answer


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=ANY_PATH)
@click.option("--bundle", "folder", type=FOLDER, help=f"Bundle to ask; {BUNDLE_HELP}")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object a line; so it is also where there is no terminal."
)
def predict(paths: tuple[Path, ...], folder: Path | None, as_json: bool) -> None:
    """Say what is on photos: files, or folders with all photos below them.

    Ends with 0 if every photo was answered, with 1 if some were not.
    """
    from catsdogs_lib.common.progress import track
    from catsdogs_lib.inference.classifier import Classifier

    photos = list(_photos(paths))
    classifier = Classifier(open_bundle(folder))
    answers = track(classifier.predict_many(photos), "predicting", total=len(photos))
    failed = 0
    if as_json or not sys.stdout.isatty():
        for answer in answers:
            failed += answer.error is not None
            print(json.dumps(_fields(answer), allow_nan=False), flush=True)
    else:
        collected = list(answers)
        failed = sum(answer.error is not None for answer in collected)
        _show(collected)
    if failed:
        raise SystemExit(1)


def _photos(paths: Sequence[Path]) -> Iterator[Path]:
    from catsdogs_lib.imaging.decoding import SUFFIXES

    for path in paths:
        if not path.is_dir():
            yield path
            continue
        photos = sorted(
            Path(folder, name)
            for folder, _, names in os.walk(path, onerror=_raise)
            for name in names
            if Path(name).suffix.lower() in SUFFIXES
        )
        if not photos:
            raise CatsdogsError(f"folder {path} holds no photos; name one with files ending in {', '.join(SUFFIXES)}")
        yield from photos


def _raise(error: OSError) -> NoReturn:
    raise error


def _fields(answer: "Answer") -> dict[str, Any]:
    if answer.prediction is None:
        return {"path": str(answer.path), "error": answer.error}
    fields = ("prediction", "confidence", "probabilities", "confident", "reason")
    return {"path": str(answer.path), **{name: getattr(answer.prediction, name) for name in fields}}


def _show(answers: Sequence["Answer"]) -> None:
    rows = table("photo", "answer", "probability", "", right=("probability",))
    for answer in answers:
        path = escape(str(answer.path).encode(errors="backslashreplace").decode())
        if answer.prediction is None:
            rows.add_row(path, "[red]none[/]", "", escape(answer.error or ""))
        else:
            prediction = answer.prediction
            colour = "green" if prediction.confident else "yellow"
            name = f"[{colour}]{escape(prediction.prediction)}[/]"
            rows.add_row(path, name, f"{prediction.confidence:.1%}", prediction.reason or "")
    show(rows)


@click.command()
@click.argument("photo", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="Where the picture goes, PNG.")
@click.option("--bundle", "folder", type=FOLDER, help=f"Bundle to ask; {BUNDLE_HELP}")
def explain(photo: Path, output: Path, folder: Path | None) -> None:
    """Show where the model looked on a PHOTO: the square that it saw, coloured where it spoke for the answer."""
    from catsdogs_lib.common import files
    from catsdogs_lib.inference import explanation
    from catsdogs_lib.inference.classifier import Classifier

    bundle = open_bundle(folder)
    explained = explanation.explain(Classifier(bundle), photo)
    with files.replacing(output) as partial:
        explained.overlay().save(partial, "PNG")
    prediction = explained.prediction
    doubt = "" if prediction.reason is None else f", not sure: {prediction.reason}"
    print(f"{prediction.prediction} {prediction.confidence:.1%}{doubt}\n{output}: {bundle.description.explanation}")


@click.command()
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--bundle", "folder", type=FOLDER, help=f"Bundle that answers; {BUNDLE_HELP}")
@click.option("--workers", type=click.IntRange(1, 1024), help="Processes; else one for every core.")
def score(source: str, out: Path, folder: Path | None, workers: int | None) -> None:
    """Answer every photo of SOURCE into Parquet files in the folder OUT.

    SOURCE is a folder with all below it, a zip, an address that fsspec reads (s3://bucket/photos,
    https://..., with * as a glob), or a list: a text file with one path or address a line, or a CSV
    with a column 'path'. Each photo is a row; one that cannot be read or used has its reason in the
    column 'error'. However the command was ended, the same one goes on.

    Ends with 0 if every photo was answered, with 1 if some were not, with 2 if it could not begin.
    """
    from catsdogs_lib.batch import score as batch

    summary = batch.score(source, out, open_bundle(folder), workers)
    before = f", {summary.kept} of them before" if summary.kept else ""
    speed = f"; {summary.photos_per_second:.0f} photos/s" if summary.kept < summary.photos else ""
    answered = summary.photos - summary.unanswered
    print(f"{summary.photos} photos in {out}{before}: {answered} answered, {summary.unanswered} not{speed}")
    if summary.unanswered:
        raise SystemExit(1)


COMMANDS = (predict, explain, score)
