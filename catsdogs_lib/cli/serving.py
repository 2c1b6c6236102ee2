"""Commands that serve a bundle, stand in front of an endpoint, or look at one."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from catsdogs_lib.inference.bundle import Bundle, locate

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
BUNDLE_HELP = "else $CATSDOGS_BUNDLE, models/bundle, models/reference."


def _host_option(command: Callable[..., Any]) -> Callable[..., Any]:
    shown = "Address to listen on; 0.0.0.0 lets other machines in."
    return click.option("--host", default="127.0.0.1", show_default=True, help=shown)(command)


def _port_option(default: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    port = click.IntRange(0, 65535)
    return click.option("--port", default=default, show_default=True, type=port, help="Port; 0 takes a free one.")


def _credentials_options(command: Callable[..., Any]) -> Callable[..., Any]:
    profile = click.option("--profile", help="Profile of ~/.aws; else AWS_PROFILE or the default one.")
    return click.option("--region", help="AWS region; else the URL's, AWS_REGION, or the profile's.")(profile(command))


def _key_option(command: Callable[..., Any]) -> Callable[..., Any]:
    shown = "Key of the endpoint, where it wants one; better as $CATSDOGS_KEY, which no list of processes shows."
    return click.option("--key", envvar="CATSDOGS_KEY", default="", metavar="KEY", help=shown)(command)


@click.command()
def key() -> None:
    """Make a key for a service, and its digest.

    Callers name the key (proxy and smoke take it from $CATSDOGS_KEY); the service is given the digest alone.
    """
    from catsdogs_lib.serving import auth

    made = auth.new_key()
    print(f"CATSDOGS_KEY={made.key}\nCATSDOGS_KEY_SHA256={made.sha256}")
    if sys.stdout.isatty():
        print("The key is for callers and is not shown again; the digest is for the service.", file=sys.stderr)


@click.command()
@_host_option
@_port_option(8000)
@click.option("--bundle", "folder", type=FOLDER, help=f"Bundle to serve; {BUNDLE_HELP}")
@click.option("--threads", type=click.IntRange(1, 256), help="Threads for one photo; else every core.")
@click.option(
    "--fd", type=click.IntRange(0), help="A listening socket that was passed down, in place of host and port."
)
def serve(host: str, port: int, folder: Path | None, threads: int | None, fd: int | None) -> None:
    """Serve a bundle: the page, and an API for programs."""
    from catsdogs_lib.serving.app import create_app
    from catsdogs_lib.serving.metrics_prometheus import ServerTelemetry, log_to_stdout
    from catsdogs_lib.serving.model import Model
    from catsdogs_lib.serving.settings import ServiceSettings

    settings = ServiceSettings.from_environment()
    model = Model.load(folder, threads)
    bundle = model.classifier.bundle if model.classifier else None
    log_to_stdout()
    app = create_app(model, ServerTelemetry(bundle), settings)
    _serve(app, host, port, f"model {bundle.version if bundle else 'none'}", fd)


@click.command()
@click.argument("photo", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="Where the picture goes, PNG.")
@click.option("--bundle", "folder", type=FOLDER, help=f"Bundle to ask; {BUNDLE_HELP}")
def explain(photo: Path, output: Path, folder: Path | None) -> None:
    """Show where the model looked on a PHOTO: the square that it saw, coloured where it spoke for the answer."""
    from catsdogs_lib.common import files
    from catsdogs_lib.inference import explanation
    from catsdogs_lib.inference.classifier import Classifier

    bundle = Bundle.load(locate(folder))
    found = explanation.explain(Classifier(bundle), photo)
    with files.replacing(output) as partial:
        found.overlay().save(partial, "PNG")
    answer = found.prediction
    doubt = "" if answer.reason is None else f", not sure: {answer.reason}"
    print(f"{answer.prediction} {answer.confidence:.1%}{doubt}\n{output}: {bundle.description.explanation}")


@click.command("function-url")
@_host_option
@_port_option(8001)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes with the handler.")
@click.option("--emulator", metavar="URL", help="A runtime emulator, or sam local start-lambda, instead of processes.")
@click.option("--handler", type=FILE, help="File with the handler; else lambda/handler.py of the project.")
def function_url(host: str, port: int, workers: int, emulator: str | None, handler: Path | None) -> None:
    """Put the Lambda function behind a local Function URL.

    Events, limits and one request at a time a worker are AWS's. The bundle is $CATSDOGS_BUNDLE, else
    models/bundle or models/reference.
    """
    from catsdogs_lib.lambda_local.function_url import FunctionUrl, open_backend

    backend = open_backend(emulator, handler, workers)
    try:
        _serve(FunctionUrl(backend), host, port, "Function URL")
    finally:
        backend.close()


@click.command()
@click.argument("url")
@_port_option(8002)
@_credentials_options
@_key_option
def proxy(url: str, port: int, region: str | None, profile: str | None, key: str) -> None:
    """Open a local door to the Function URL at URL that signs every request with your AWS credentials."""
    from catsdogs_lib.client.http import Upstream
    from catsdogs_lib.client.proxy import Proxy
    from catsdogs_lib.client.sigv4 import Signer

    upstream = Upstream(url, Signer(url, region, profile), key=key)
    _serve(Proxy(upstream), "127.0.0.1", port, f"signs for {upstream.origin}")


@click.command()
@click.argument("url")
@click.option("--aws-iam", is_flag=True, help="Sign the requests with your AWS credentials.")
@_credentials_options
@click.option("--bundle", "folder", type=FOLDER, help=f"What URL should answer with; {BUNDLE_HELP}")
@click.option("--wait", default=0.0, metavar="S", type=click.FloatRange(0), help="Seconds that URL has to get ready.")
@_key_option
def smoke(
    url: str, aws_iam: bool, region: str | None, profile: str | None, folder: Path | None, wait: float, key: str
) -> None:
    """See whether the endpoint at URL answers as its bundle says.

    Ends with 0 if all is well, with 1 if something is not, with 2 if it could not begin.
    """
    if (region or profile) and not aws_iam:
        raise click.UsageError("--region and --profile are for signed requests; add --aws-iam")
    from rich.console import Console
    from rich.markup import escape

    from catsdogs_lib.client import smoke as look
    from catsdogs_lib.client.http import Upstream

    signer = None
    if aws_iam:
        from catsdogs_lib.client.sigv4 import Signer

        signer = Signer(url, region, profile)
    upstream, bundle = Upstream(url, signer, key=key), Bundle.load(locate(folder))
    console = Console(highlight=False)
    failed = 0
    for check in look.run_smoke_tests(upstream, bundle, wait):
        failed += not check.passed
        if console.is_terminal:
            mark = "[green]✓[/]" if check.passed else "[red]✗[/]"
            console.print(f"{mark} {escape(check.name)}: {escape(check.detail)}", soft_wrap=True)
        else:
            print(f"{'ok' if check.passed else 'FAILED'}  {check.name}: {check.detail}", flush=True)
    if failed:
        raise SystemExit(1)


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
    from catsdogs_lib.batch.score import score as run

    done = run(source, out, Bundle.load(locate(folder)), workers)
    before = f", {done.kept} of them before" if done.kept else ""
    speed = f"; {done.photos_per_second:.0f} photos/s" if done.kept < done.photos else ""
    answered = done.photos - done.unanswered
    print(f"{done.photos} photos in {out}{before}: {answered} answered, {done.unanswered} not{speed}")
    if done.unanswered:
        raise SystemExit(1)


def _serve(app: Any, host: str, port: int, what: str, fd: int | None = None) -> None:
    from catsdogs_lib.serving.server import serve as run

    def announce(address: str) -> None:
        print(f"{address}  ({what}; Ctrl-C ends it)", file=sys.stderr, flush=True)

    # Ctrl-C is how a server is ended: nothing is left half done.
    with contextlib.suppress(KeyboardInterrupt):
        run(app, host, port, announce, fd)


COMMANDS = (serve, explain, function_url, proxy, smoke, key, score)
