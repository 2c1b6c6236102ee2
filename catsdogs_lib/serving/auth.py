"""The API key. The service stores only its digest, or two digests while a key is being replaced."""

import hashlib
import hmac
import secrets
from typing import NamedTuple

from starlette.requests import Request

from catsdogs_lib.serving import problems
from catsdogs_lib.serving.settings import ServiceSettings

HEADER = "x-api-key"
_CHALLENGE = {"www-authenticate": f'ApiKey realm="catsdogs", header="{HEADER}"'}


class NewKey(NamedTuple):
    """A key for callers, and its digest for the service."""

    key: str
    sha256: str


def new_key() -> NewKey:
    """Generate a key of 256 random bits."""
    key = secrets.token_urlsafe(32)
    return NewKey(key, hashlib.sha256(key.encode()).hexdigest())


def require_key(request: Request, settings: ServiceSettings) -> None:
    """Check the key of a request; call it before reading the body.

    Parameters
    ----------
    request
        Names the key in the header `HEADER`.
    settings
        Hold the digests of one or two keys; where they hold none, every request passes.

    Raises
    ------
    ProblemError
        The key is missing or wrong (401).
    """
    if not settings.key_sha256:
        return
    key = request.headers.get(HEADER)
    if not key:
        raise problems.ProblemError(problems.KEY_NEEDED, f"there is no key; send it in the header {HEADER}", _CHALLENGE)
    # Starlette decodes headers as latin-1: encoding gives the bytes that were sent.
    digest = hashlib.sha256(key.encode("latin-1")).hexdigest()
    # sum(), not any(): every digest is compared, so the time taken does not tell which one matches.
    if not sum(hmac.compare_digest(digest, known) for known in settings.key_digests):
        raise problems.ProblemError(
            problems.KEY_NEEDED,
            f"the key in the header {HEADER} is not the right one; ask whoever runs the service for it",
            _CHALLENGE,
        )
