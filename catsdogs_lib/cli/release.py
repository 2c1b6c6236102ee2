"""Commands for releases: release a champion, roll back, trace an endpoint."""

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from catsdogs_lib.cli.options import FOLDER, open_bundle, open_workspace
from catsdogs_lib.cli.output import escape, mark, show, show_check, table

if TYPE_CHECKING:
    from catsdogs_lib.release.rollout import Candidate


@click.command()
@click.option(
    "--registry",
    envvar="CATSDOGS_REGISTRY",
    default="127.0.0.1:5001/catsdogs",
    show_default=True,
    help="Repository for the image, in ECR, GHCR, Docker Hub, or the registry of 'make registry'; "
    "or $CATSDOGS_REGISTRY.",
)
@click.option(
    "--to",
    "target_name",
    type=click.Choice(["compose", "kubernetes", "lambda", "none"]),
    default="none",
    show_default=True,
    help="Where it goes into service.",
)
@click.option("--model", metavar="NAME", help="Name in the model registry; needed where several have a champion.")
@click.option("--bundle", "folder", type=FOLDER, help="Release the bundle in this folder, not a champion.")
@click.option(
    "--base-image",
    envvar="CATSDOGS_BASE_IMAGE",
    default="public.ecr.aws/lambda/python:3.13",
    show_default=True,
    help="What the image is built on; or $CATSDOGS_BASE_IMAGE.",
)
@click.option(
    "--key", envvar="CATSDOGS_KEY", default="", help="Key of the service that Compose runs; or $CATSDOGS_KEY."
)
@click.option("--back", "go_back", is_flag=True, help="Go back to the release before, without building anything.")
@click.option("--list", "show_list", is_flag=True, help="Show the ledger.")
def release(
    registry: str,
    target_name: str,
    model: str | None,
    folder: Path | None,
    base_image: str,
    key: str,
    go_back: bool,
    show_list: bool,
) -> None:
    """Release the champion: build its image, prove it, push it, put it in service.

    Prints the image's name by digest, and all else on stderr. Ends with 0 if it is in service, with 1 if it does not
    answer as its bundle says (what was in service before is so again), with 2 if it could not begin.
    """
    if go_back + show_list + bool(model or folder) > 1 or (model and folder):
        raise click.UsageError("--back, --list, --model and --bundle exclude each other")
    from catsdogs_lib.release import rollout, targets, verification

    ws = open_workspace()
    if show_list:
        _show_ledger()
        return
    target = targets.target_named(target_name, ws.root, key)
    try:
        if go_back:
            released = rollout.roll_back(target, _report)
        else:
            with _candidate(model, folder) as candidate:
                released = rollout.release(ws.root, candidate, registry, base_image, target, _report)
    except verification.ReleaseFailedError as error:
        print(f"catsdogs: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    print(released.image)


def _candidate(model: str | None, folder: Path | None) -> "contextlib.AbstractContextManager[Candidate]":
    from catsdogs_lib.release import rollout

    if folder is not None:
        return contextlib.nullcontext(rollout.Candidate(open_bundle(folder)))
    return rollout.fetched_champion(model)


def _report(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _show_ledger() -> None:
    from catsdogs_lib.release.ledger import Ledger

    entries = Ledger().entries()
    in_service = {entry.release.place: entry for entry in entries if entry.status != "FAILED"}.values()
    if not sys.stdout.isatty():
        for entry in entries:
            status = {"when": entry.when.isoformat(), "status": entry.status, "problem": entry.problem}
            print(json.dumps({**entry.release._asdict(), **status, "stands": entry in in_service}))
        return
    rows = table("", "when (UTC)", "place", "bundle", "commit", "image", "model", "")
    for entry in entries:
        release = entry.release
        rows.add_row(
            "[green]●[/]" if entry in in_service else "[red]✗[/]" if entry.status == "FAILED" else "",
            f"{entry.when:%Y-%m-%d %H:%M}",
            release.place,
            f"{'back to ' if release.back else ''}{release.bundle}",
            release.commit[:12],
            escape(release.image),
            f"{release.model} {release.version}",
            escape(entry.problem or ("" if entry.status == "FINISHED" else "under way, or killed")),
        )
    show(rows)


@click.command()
@click.argument("url")
def trace(url: str) -> None:
    """Walk from the endpoint at URL back to image, release, registry, run, data and commits, and check each.

    Ends with 0 if all agree, with 1 if something does not, with 2 if there is no endpoint. Behind AWS's signatures,
    name the local door of 'catsdogs proxy'.
    """
    from catsdogs_lib.release.trace import trace_endpoint

    checks = list(trace_endpoint(url, open_workspace().root))
    if sys.stdout.isatty():
        rows = table(show_header=False)
        for check in checks:
            rows.add_row(mark(check.passed), f"[bold]{check.name}[/]", escape(check.detail))
        show(rows, highlight=False)
    else:
        for check in checks:
            show_check(*check)
    if not all(check.passed for check in checks):
        raise SystemExit(1)


COMMANDS = (release, trace)
