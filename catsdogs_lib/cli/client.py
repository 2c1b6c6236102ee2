"""Commands that talk to an endpoint: the signing proxy and the smoke tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from catsdogs_lib.cli.options import BUNDLE_HELP, FOLDER, open_bundle, port_option
from catsdogs_lib.cli.output import show_check
from catsdogs_lib.cli.serving import run_server


def _credentials_options(command: Callable[..., Any]) -> Callable[..., Any]:
    profile = click.option("--profile", help="Profile of ~/.aws; else AWS_PROFILE or the default one.")
    return click.option("--region", help="AWS region; else the URL's, AWS_REGION, or the profile's.")(profile(command))


_key_option = click.option(
    "--key",
    envvar="CATSDOGS_KEY",
    default="",
    metavar="KEY",
    help="Key of the endpoint, where it wants one; better as $CATSDOGS_KEY, which no list of processes shows.",
)


@click.command()
@click.argument("url")
@port_option(8002)
@_credentials_options
@_key_option
def proxy(url: str, port: int, region: str | None, profile: str | None, key: str) -> None:
    """Open a local door to the Function URL at URL that signs every request with your AWS credentials."""
    from catsdogs_lib.client import http, sigv4
    from catsdogs_lib.client.proxy import Proxy

    upstream = http.Upstream(url, sigv4.Signer(url, region, profile), key=key)
    run_server(Proxy(upstream), "127.0.0.1", port, f"signs for {upstream.origin}")


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
    from catsdogs_lib.client import http, smoke

    signer = None
    if aws_iam:
        from catsdogs_lib.client.sigv4 import Signer

        signer = Signer(url, region, profile)
    failed = 0
    for check in smoke.run_smoke_tests(http.Upstream(url, signer, key=key), open_bundle(folder), wait):
        failed += not check.passed
        show_check(*check)
    if failed:
        raise SystemExit(1)


COMMANDS = (proxy, smoke)
