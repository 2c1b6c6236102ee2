"""Verification of a release: every smoke test must pass, or one sentence says which one failed."""

import time

from catsdogs_lib.client import http, messages, smoke
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.common.files import parse_json
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.release import engine

READY_TIMEOUT_SECONDS = 60.0
"""Time that a server has to become ready."""
POLL_SECONDS = 2.0
"""Interval at which it is checked that the container still runs."""


class ReleaseFailedError(CatsdogsError):
    """A release failed its smoke tests and is not in service."""


def verify(container: str, bundle: Bundle, image: str | None = None, key: str = "") -> tuple[str, int]:
    """Run the smoke tests against the server in a container.

    Parameters
    ----------
    container
        Id of the container.
    bundle
        Bundle that it should serve.
    image
        Image that ``/version`` should name; None skips this check.
    key
        API key; "" if the server needs none.

    Returns
    -------
    str
        URL of the server.
    int
        Number of checks that passed.

    Raises
    ------
    ReleaseFailedError
        A check failed, or the server did not start; ``str()`` says which.
    """
    upstream = http.Upstream(engine.container_url(container), key=key)
    try:
        _wait_until_ready(upstream, container)
        checks = list(smoke.run_smoke_tests(upstream, bundle))
        if image is not None:
            named = fetch_version(upstream).get("image")
            detail = f"says that it runs from {named}, {image} was released"
            checks.append(smoke.SmokeCheck("image", named == image, detail))
    except http.UnreachableError as error:
        problem = str(error).partition(";")[0]
        raise ReleaseFailedError(f"{problem}; the last it printed: {engine.last_log_line(container)}") from None
    failed = [check for check in checks if not check.passed]
    if failed:
        # The part after the semicolon is advice for those who run the smoke tests by hand.
        first = f"{failed[0].name}: {failed[0].detail.partition('; ')[0]}"
        raise ReleaseFailedError(f"{len(failed)} of {len(checks)} smoke tests failed, {first}")
    return upstream.origin, len(checks)


def _wait_until_ready(upstream: http.Upstream, container: str) -> None:
    end = time.monotonic() + READY_TIMEOUT_SECONDS
    while True:
        try:
            smoke.wait_until_ready(upstream, POLL_SECONDS)
        except http.UnreachableError:
            if time.monotonic() >= end or not engine.runs_since_start(container):
                raise
        else:
            return


def fetch_version(upstream: http.Upstream) -> dict[str, object]:
    """Fetch ``/version`` of an endpoint.

    Raises
    ------
    UnreachableError
        There is no endpoint, or not one of ours.
    """
    response = upstream.ask(messages.HttpRequest("GET", "/version"))
    try:
        version = parse_json(response.body)
    except ValueError:
        version = None
    if response.status != 200 or not isinstance(version, dict) or "model_version" not in version:
        raise http.UnreachableError(
            f"{upstream.origin}/version answers {response.status} without a model version; is it the endpoint?"
        )
    return version
