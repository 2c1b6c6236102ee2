"""A server that is asked over HTTP: one connection a request, bounded in time and size, signed where it must be."""

import contextlib
import http.client
import re
from typing import Protocol
from urllib.parse import quote, unquote_to_bytes, urlsplit

from catsdogs_lib.client.lambda_events import HOP_BY_HOP, HttpRequest, HttpResponse, Pairs
from catsdogs_lib.common.errors import CatsdogsError

SECONDS = 60.0
"""So long an answer may take. The function's own limit is shorter."""
MAX_BYTES = 8 * 2**20
"""A larger answer is not read; Lambda sends at most 6 MB."""
KEY_HEADER = "x-api-key"
_OURS = HOP_BY_HOP | {"host", "content-length", "authorization"}


class UnreachableError(CatsdogsError):
    """A server gives no answer; ``str()`` says why and what to do."""


class Signs(Protocol):
    """Signs requests; see `catsdogs_lib.client.sigv4`."""

    def sign(self, method: str, url: str, body: bytes) -> dict[str, str]:
        """Give the headers that prove who asks."""


class Upstream:
    """The server behind a URL.

    Parameters
    ----------
    url
        ``http://`` or ``https://``; its path goes before the path of each request.
    signer
        Signs each request; None where nobody asks for that.
    seconds
        So long an answer may take.
    key
        Named in the header ``x-api-key`` of each request, in the place of another; "" leaves that header as it is.

    Raises
    ------
    CatsdogsError
        This is no such URL, or the key cannot be sent.
    """

    def __init__(self, url: str, signer: Signs | None = None, seconds: float = SECONDS, key: str = "") -> None:
        if not re.fullmatch("[!-~]*", key):
            raise CatsdogsError("the key holds signs that no header can; give it as 'catsdogs key' printed it")
        self._key: Pairs = ((KEY_HEADER, key),) if key else ()
        self._signer = signer
        self._seconds = seconds
        try:
            found = urlsplit(url)
            self._host, port = found.hostname or "", found.port
        except ValueError:
            found, self._host, port = urlsplit(""), "", None
        odd = found.query or found.fragment or "@" in found.netloc
        if found.scheme not in ("http", "https") or not self._host or odd:
            raise CatsdogsError(f"'{url}' is no address of a server; write it as https://host or http://host:port")
        self._secure = found.scheme == "https"
        self._port = port or (443 if self._secure else 80)
        # The host is signed, so it is written as the signature has it: without a port that goes without saying.
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self._netloc = shown if self._port == (443 if self._secure else 80) else f"{shown}:{self._port}"
        self.origin = f"{found.scheme}://{self._netloc}"
        self._prefix = found.path.rstrip("/")

    def ask(self, request: HttpRequest) -> HttpResponse:
        """Send a request and read the answer.

        Raises
        ------
        UnreachableError
            No answer, or none that can be used.
        SigningError
            The request cannot be signed.
        """
        target, headers = self._prefix + request.path, list(self._key)
        if request.query:
            target += f"?{request.query}"
        if self._signer is not None:
            target = plain_target(self._prefix + request.path, request.query)
            signed = self._signer.sign(request.method, self.origin + target, request.body)
            headers += signed.items()
        kept = end_to_end(request.headers, _OURS | {name.lower() for name, _ in headers})
        kept = tuple(pair for pair in kept if self._signer is None or not pair[0].lower().startswith("x-amz-"))
        try:
            return self._exchange(request, target, (*kept, *headers))
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise UnreachableError(
                f"{self.origin} gives no answer ({reason}); check the address and whether it runs"
            ) from None

    def _exchange(self, request: HttpRequest, target: str, headers: Pairs) -> HttpResponse:
        connector = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = connector(self._host, self._port, timeout=self._seconds)
        try:
            connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
            connection.putheader("host", self._netloc)
            for name, value in headers:
                connection.putheader(name, value.encode("latin-1", "replace"))
            if request.body or request.method in ("POST", "PUT", "PATCH"):
                connection.putheader("content-length", str(len(request.body)))
            # Who refuses a body may answer before the body has been sent whole.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.endheaders(request.body)
            found = connection.getresponse()
            body = found.read(MAX_BYTES + 1)
            if len(body) > MAX_BYTES:
                raise UnreachableError(f"{self.origin} sends more than {MAX_BYTES >> 20} MB; is it the endpoint?")
            return HttpResponse(found.status, end_to_end(tuple(found.getheaders())), body)
        finally:
            connection.close()


def end_to_end(headers: Pairs, without: frozenset[str] = HOP_BY_HOP) -> Pairs:
    """Leave out headers of one connection: those of that name, and those that ``connection`` names."""
    named = {
        part.strip().lower() for name, value in headers if name.lower() == "connection" for part in value.split(",")
    }
    return tuple(pair for pair in headers if pair[0].lower() not in without and pair[0].lower() not in named)


def plain_target(path: str, query: str) -> str:
    """Write path and query with every byte encoded that may be: then all compute the same signature.

    Whether a server signs what it received or what it decoded and encoded again, this form comes out the same. The
    meaning stays; ``+`` in a query is a space, as forms write it.
    """
    target = "/".join(_encoded(segment) for segment in path.split("/"))
    pairs = []
    for pair in filter(None, query.split("&")):
        name, equals, value = pair.replace("+", " ").partition("=")
        pairs.append(f"{_encoded(name)}{equals}{_encoded(value)}")
    return f"{target}?{'&'.join(pairs)}" if pairs else target


def _encoded(text: str) -> str:
    return quote(unquote_to_bytes(text), safe="-_.~")
