"""Commands that serve a bundle, stand in front of an endpoint, or look at one."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from catsdogs_lib.bundle import Bundle, locate

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


@click.command()
@_host_option
@_port_option(8000)
@click.option("--bundle", "folder", type=FOLDER, help=f"Bundle to serve; {BUNDLE_HELP}")
@click.option("--threads", type=click.IntRange(1, 256), help="Threads for one photo; else every core.")
@click.option("--fd", type=click.IntRange(0), help="A listening socket to serve on, in place of host and port.")
def serve(host: str, port: int, folder: Path | None, threads: int | None, fd: int | None) -> None:
    """Serve a bundle: the page, and an API for programs."""
    from catsdogs_lib.service.app import create_app
    from catsdogs_lib.service.model import Model
    from catsdogs_lib.service.prometheus import ServerTelemetry, log_to_stdout

    model = Model.load(folder, threads)
    bundle = model.classifier.bundle if model.classifier else None
    log_to_stdout()
    app = create_app(model, ServerTelemetry(bundle))
    _serve(app, host, port, f"model {bundle.version if bundle else 'none'}", fd)


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
    from catsdogs_lib.doors.function_url import FunctionUrl, open_backend

    backend = open_backend(emulator, handler, workers)
    try:
        _serve(FunctionUrl(backend), host, port, "Function URL")
    finally:
        backend.close()


@click.command()
@click.argument("url")
@_port_option(8002)
@_credentials_options
def proxy(url: str, port: int, region: str | None, profile: str | None) -> None:
    """Open a local door to the Function URL at URL that signs every request with your AWS credentials."""
    from catsdogs_lib.doors.proxy import Proxy
    from catsdogs_lib.doors.signing import Signer
    from catsdogs_lib.doors.upstream import Upstream

    upstream = Upstream(url, Signer(url, region, profile))
    _serve(Proxy(upstream), "127.0.0.1", port, f"signs for {upstream.origin}")


@click.command()
@click.argument("url")
@click.option("--aws-iam", is_flag=True, help="Sign the requests with your AWS credentials.")
@_credentials_options
@click.option("--bundle", "folder", type=FOLDER, help=f"What URL should answer with; {BUNDLE_HELP}")
@click.option("--wait", default=0.0, metavar="S", type=click.FloatRange(0), help="Seconds that URL has to get ready.")
def smoke(url: str, aws_iam: bool, region: str | None, profile: str | None, folder: Path | None, wait: float) -> None:
    """See whether the endpoint at URL answers as its bundle says.

    Ends with 0 if all is well, with 1 if something is not, with 2 if it could not begin.
    """
    if (region or profile) and not aws_iam:
        raise click.UsageError("--region and --profile are for signed requests; add --aws-iam")
    from rich.console import Console
    from rich.markup import escape

    from catsdogs_lib.doors import smoke as look
    from catsdogs_lib.doors.upstream import Upstream

    signer = None
    if aws_iam:
        from catsdogs_lib.doors.signing import Signer

        signer = Signer(url, region, profile)
    upstream, bundle = Upstream(url, signer), Bundle.load(locate(folder))
    console = Console(highlight=False)
    failed = 0
    for check in look.run(upstream, bundle, wait):
        failed += not check.passed
        if console.is_terminal:
            mark = "[green]✓[/]" if check.passed else "[red]✗[/]"
            console.print(f"{mark} {escape(check.name)}: {escape(check.detail)}", soft_wrap=True)
        else:
            print(f"{'ok' if check.passed else 'FAILED'}  {check.name}: {check.detail}", flush=True)
    if failed:
        raise SystemExit(1)


def _serve(app: Any, host: str, port: int, what: str, fd: int | None = None) -> None:
    from catsdogs_lib.service.server import serve as run

    def announce(address: str) -> None:
        print(f"{address}  ({what}; Ctrl-C ends it)", file=sys.stderr, flush=True)

    # Ctrl-C is how a server is ended: nothing is left half done.
    with contextlib.suppress(KeyboardInterrupt):
        run(app, host, port, announce, fd)


COMMANDS = (serve, function_url, proxy, smoke)
