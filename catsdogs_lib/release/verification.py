"""Whether a release answers as its bundle says: every smoke test, or one sentence that says which one failed."""

import time

from catsdogs_lib.client import smoke
from catsdogs_lib.client.http import UnreachableError, Upstream
from catsdogs_lib.client.lambda_events import HttpRequest
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.common.files import parse_json
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.release import engine

SECONDS = 60.0
"""So long a server may take to become ready."""
POLL_SECONDS = 2.0
"""So often it is seen whether it still runs."""


class ReleaseFailedError(CatsdogsError):
    """A release does not answer as its bundle says, and is not in service."""


def verify(container: str, bundle: Bundle, image: str | None = None, key: str = "") -> tuple[str, int]:
    """Ask the server in a container all that its bundle knows the answers to.

    Parameters
    ----------
    container
        Where it runs.
    bundle
        What it should answer with.
    image
        What it should say that it runs from; None where nobody has told it.
    key
        That it wants to be named; "" where it wants none.

    Returns
    -------
    str
        Where it answers.
    int
        How many checks it passed.

    Raises
    ------
    ReleaseFailedError
        Names what was wrong.
    """
    upstream = Upstream(engine.address(container), key=key)
    try:
        _wait(upstream, container)
        checks = list(smoke.run_smoke_tests(upstream, bundle))
        if image is not None:
            checks.append(_runs_from(upstream, image))
    except UnreachableError as error:
        said = str(error).partition(";")[0]
        raise ReleaseFailedError(f"{said}; the last it printed: {engine.last_words(container)}") from None
    wrong = [check for check in checks if not check.passed]
    if wrong:
        # What comes after a semicolon is advice to somebody who asked by hand.
        first = f"{wrong[0].name}: {wrong[0].detail.partition('; ')[0]}"
        raise ReleaseFailedError(f"{len(wrong)} of {len(checks)} smoke tests failed, {first}")
    return upstream.origin, len(checks)


def _wait(upstream: Upstream, container: str) -> None:
    end = time.monotonic() + SECONDS
    while True:
        try:
            smoke.wait_until_ready(upstream, POLL_SECONDS)
        except UnreachableError:
            if time.monotonic() >= end or not engine.alive(container):
                raise
        else:
            return


def version_of(upstream: Upstream) -> dict[str, object]:
    """What an endpoint says it is.

    Raises
    ------
    UnreachableError
        There is no endpoint, or not one of ours.
    """
    answer = upstream.ask(HttpRequest("GET", "/version"))
    try:
        found = parse_json(answer.body)
    except ValueError:
        found = None
    if answer.status != 200 or not isinstance(found, dict) or "model_version" not in found:
        raise UnreachableError(
            f"{upstream.origin}/version answers {answer.status}, not what it is; is it the endpoint?"
        )
    return found


def _runs_from(upstream: Upstream, image: str) -> smoke.SmokeCheck:
    found = version_of(upstream).get("image")
    return smoke.SmokeCheck("image", found == image, f"says that it runs from {found}, {image} was released")
