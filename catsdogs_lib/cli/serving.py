"""Commands that serve a bundle on this machine, and make the key of a service."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from catsdogs_lib.cli.options import BUNDLE_HELP, FILE, FOLDER, port_option

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_host_option = click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 lets other machines in."
)


@click.command()
def key() -> None:
    """Make a key for a service, and its digest.

    Callers name the key (proxy and smoke take it from $CATSDOGS_KEY); the service is given the digest alone.
    """
    from catsdogs_lib.serving import auth

    pair = auth.new_key()
    print(f"CATSDOGS_KEY={pair.key}\nCATSDOGS_KEY_SHA256={pair.sha256}")
    if sys.stdout.isatty():
        print("The key is for callers and is not shown again; the digest is for the service.", file=sys.stderr)


@click.command()
@_host_option
@port_option(8000)
@click.option("--bundle", "folder", type=FOLDER, help=f"Bundle to serve; {BUNDLE_HELP}")
@click.option("--threads", type=click.IntRange(1, 256), help="Threads for one photo; else every core.")
@click.option(
    "--fd", type=click.IntRange(0), help="A listening socket that was passed down, in place of host and port."
)
def serve(host: str, port: int, folder: Path | None, threads: int | None, fd: int | None) -> None:
    """Serve a bundle: the page, and an API for programs."""
    from catsdogs_lib.serving import app, metrics_prometheus, settings
    from catsdogs_lib.serving.model import Model

    limits = settings.ServiceSettings.from_environment()
    model = Model.load(folder, threads, formats=limits.formats)
    bundle = model.classifier.bundle if model.classifier else None
    metrics_prometheus.log_to_stdout()
    service = app.create_app(model, metrics_prometheus.ServerTelemetry(bundle), limits)
    run_server(service, host, port, f"model {bundle.version if bundle else 'none'}", fd)


@click.command("function-url")
@_host_option
@port_option(8001)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes with the handler.")
@click.option("--emulator", metavar="URL", help="A runtime emulator, or sam local start-lambda, instead of processes.")
@click.option("--handler", type=FILE, help="File with the handler; else lambda/handler.py of the project.")
def function_url(host: str, port: int, workers: int, emulator: str | None, handler: Path | None) -> None:
    """Put the Lambda function behind a local Function URL.

    Events, limits and one request at a time a worker are AWS's. The bundle is $CATSDOGS_BUNDLE, else
    models/bundle or models/reference.
    """
    from catsdogs_lib.lambda_local import backends, function_url

    with contextlib.closing(backends.open_backend(emulator, handler, workers)) as backend:
        run_server(function_url.FunctionUrl(backend), host, port, "Function URL")


def run_server(app: "ASGIApp", host: str, port: int, title: str, fd: int | None = None) -> None:
    """Serve an application until Ctrl-C; its address and `title` go to stderr once it listens."""
    from catsdogs_lib.serving import server

    def announce(address: str) -> None:
        print(f"{address}  ({title}; Ctrl-C ends it)", file=sys.stderr, flush=True)

    # Ctrl-C is the normal way to stop a server, so it is no error.
    with contextlib.suppress(KeyboardInterrupt):
        server.serve(app, host, port, announce, fd)


COMMANDS = (serve, function_url, key)
