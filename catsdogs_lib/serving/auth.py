"""The key that a sender may have to name. The service knows its digest alone."""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import NamedTuple

from starlette.requests import Request

from catsdogs_lib.serving import problems
from catsdogs_lib.serving.problems import ProblemError
from catsdogs_lib.serving.settings import ServiceSettings

Guard = Callable[[Request], None]
"""Raises `ProblemError` where a request may not pass."""
HEADER = "x-api-key"
_CHALLENGE = {"www-authenticate": f'ApiKey realm="catsdogs", header="{HEADER}"'}


class NewKey(NamedTuple):
    """A key, and the digest that the service is given."""

    key: str
    sha256: str


def new_key() -> NewKey:
    """Make a key that nobody guesses."""
    key = secrets.token_urlsafe(32)
    return NewKey(key, hashlib.sha256(key.encode()).hexdigest())


def guard(settings: ServiceSettings, unless: Callable[[Request], bool] = lambda _: False) -> Guard | None:
    """Give what looks for the key in a request; None where no key is set.

    Parameters
    ----------
    settings
        Hold the digest.
    unless
        Says of a request that it may do without.
    """
    if not settings.key_sha256:
        return None

    def check(request: Request) -> None:
        if unless(request):
            return
        given = request.headers.get(HEADER)
        if not given:
            raise ProblemError(problems.KEY_NEEDED, f"there is no key; send it in the header {HEADER}", _CHALLENGE)
        # Starlette reads headers as latin-1: these are the bytes that were sent.
        digest = hashlib.sha256(given.encode("latin-1")).hexdigest()
        if not hmac.compare_digest(digest, settings.key_sha256):
            detail = f"the key in the header {HEADER} is not the right one; ask whoever runs the service for it"
            raise ProblemError(problems.KEY_NEEDED, detail, _CHALLENGE)

    return check
