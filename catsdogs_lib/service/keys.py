"""The key that a sender may have to name. The service knows its digest alone."""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader

from catsdogs_lib.service import problems
from catsdogs_lib.service.problems import ProblemError
from catsdogs_lib.service.settings import ServiceSettings

HEADER = "x-api-key"
_SCHEME = APIKeyHeader(
    name=HEADER, scheme_name="key", auto_error=False, description="Whoever runs the service has the key."
)
_CHALLENGE = {"www-authenticate": f'ApiKey realm="catsdogs", header="{HEADER}"'}


class NewKey(NamedTuple):
    """A key, and the digest that the service is given."""

    key: str
    sha256: str


def new() -> NewKey:
    """Make a key that nobody guesses."""
    key = secrets.token_urlsafe(32)
    return NewKey(key, hashlib.sha256(key.encode()).hexdigest())


def needed(settings: ServiceSettings, unless: Callable[[Request], bool] = lambda _: False) -> list[Any]:
    """Give the dependencies of a route that wants the key; none where no key is set.

    Parameters
    ----------
    settings
        Hold the digest.
    unless
        Says of a request that it may do without.
    """
    if not settings.key_sha256:
        return []

    async def check(request: Request, given: Annotated[str | None, Security(_SCHEME)]) -> None:
        if unless(request):
            return
        if given is None:
            raise ProblemError(problems.KEY_NEEDED, f"there is no key; send it in the header {HEADER}", _CHALLENGE)
        # Starlette reads headers as latin-1: these are the bytes that were sent.
        digest = hashlib.sha256(given.encode("latin-1")).hexdigest()
        if not hmac.compare_digest(digest, settings.key_sha256):
            detail = f"the key in the header {HEADER} is not the right one; ask whoever runs the service for it"
            raise ProblemError(problems.KEY_NEEDED, detail, _CHALLENGE)

    return [Depends(check)]
