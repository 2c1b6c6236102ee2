"""A client of one server: a connection for each request, limited in time and size, signed if necessary."""

import contextlib
import http.client
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes, urlsplit

from catsdogs_lib.client.messages import HOP_BY_HOP, Headers, HttpRequest, HttpResponse
from catsdogs_lib.common.errors import CatsdogsError

if TYPE_CHECKING:
    # It needs botocore, which comes with an extra.
    from catsdogs_lib.client.sigv4 import Signer

RESPONSE_TIMEOUT_SECONDS = 60.0
"""Time limit for a response; the limit of the function itself is shorter."""
MAX_RESPONSE_BYTES = 8 * 2**20
"""Size limit of a response; Lambda sends at most 6 MB."""
KEY_HEADER = "x-api-key"
_REPLACED_HEADERS = HOP_BY_HOP | {"host", "content-length", "authorization"}


class UnreachableError(CatsdogsError):
    """A server does not answer; ``str()`` says why and what to do."""


class Upstream:
    """The server behind a URL.

    Parameters
    ----------
    url
        ``http://`` or ``https://``; its path is the prefix of every request's path.
    signer
        Signs each request; None leaves them unsigned.
    seconds
        Time limit for a response.
    key
        Sent as the header ``x-api-key`` of each request; "" keeps the request's own.

    Raises
    ------
    CatsdogsError
        The URL is not of this form, or the key cannot be sent in a header.
    """

    def __init__(
        self, url: str, signer: "Signer | None" = None, seconds: float = RESPONSE_TIMEOUT_SECONDS, key: str = ""
    ) -> None:
        if not re.fullmatch("[!-~]*", key):
            raise CatsdogsError("the key has characters that no header can hold; give it as 'catsdogs key' printed it")
        self._key: Headers = ((KEY_HEADER, key),) if key else ()
        self._signer = signer
        self._seconds = seconds
        try:
            parts = urlsplit(url)
            self._host, port = parts.hostname or "", parts.port
        except ValueError:
            parts, self._host, port = urlsplit(""), "", None
        unsupported = parts.query or parts.fragment or "@" in parts.netloc
        if parts.scheme not in ("http", "https") or not self._host or unsupported:
            raise CatsdogsError(f"'{url}' is no address of a server; write it as https://host or http://host:port")
        self._secure = parts.scheme == "https"
        self._port = port or (443 if self._secure else 80)
        # The signature covers the host, so it is written as the server sees it: without a default port.
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._netloc = host if self._port == (443 if self._secure else 80) else f"{host}:{self._port}"
        self.origin = f"{parts.scheme}://{self._netloc}"
        self._prefix = parts.path.rstrip("/")

    def ask(self, request: HttpRequest) -> HttpResponse:
        """Send a request and read the response.

        Raises
        ------
        UnreachableError
            There is no response, or it is too large.
        SigningError
            The request cannot be signed.
        """
        target, headers = self._prefix + request.path, list(self._key)
        if request.query:
            target += f"?{request.query}"
        if self._signer is not None:
            target = canonical_target(self._prefix + request.path, request.query)
            signed = self._signer.sign(request.method, self.origin + target, request.body)
            headers += signed.items()
        forwarded = end_to_end(request.headers, _REPLACED_HEADERS | {name.lower() for name, _ in headers})
        forwarded = tuple(
            pair for pair in forwarded if self._signer is None or not pair[0].lower().startswith("x-amz-")
        )
        try:
            return self._exchange(request, target, (*forwarded, *headers))
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise UnreachableError(
                f"{self.origin} gives no answer ({reason}); check the address and whether it runs"
            ) from None

    def _exchange(self, request: HttpRequest, target: str, headers: Headers) -> HttpResponse:
        connector = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = connector(self._host, self._port, timeout=self._seconds)
        try:
            connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
            connection.putheader("host", self._netloc)
            for name, value in headers:
                connection.putheader(name, value.encode("latin-1", "replace"))
            if request.body or request.method in ("POST", "PUT", "PATCH"):
                connection.putheader("content-length", str(len(request.body)))
            # A server that refuses a body may answer and close before it has received all of it.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.endheaders(request.body)
            response = connection.getresponse()
            body = response.read(MAX_RESPONSE_BYTES + 1)
            if len(body) > MAX_RESPONSE_BYTES:
                raise UnreachableError(
                    f"{self.origin} sends more than {MAX_RESPONSE_BYTES >> 20} MB; is it the endpoint?"
                )
            return HttpResponse(response.status, end_to_end(tuple(response.getheaders())), body)
        finally:
            connection.close()


def end_to_end(headers: Headers, without: frozenset[str] = HOP_BY_HOP) -> Headers:
    """Remove the headers in `without`, and those that the header ``connection`` lists."""
    removed = without | {
        part.strip().lower() for name, value in headers if name.lower() == "connection" for part in value.split(",")
    }
    return tuple(pair for pair in headers if pair[0].lower() not in removed)


def canonical_target(path: str, query: str) -> str:
    """Percent-encode path and query in full, so that client and server compute the same signature.

    The form is the same whether the server signs the target as received or decodes and encodes it first. The meaning
    does not change; ``+`` in a query is a space, as in forms.
    """
    target = "/".join(_encoded(segment) for segment in path.split("/"))
    pairs = []
    for pair in filter(None, query.split("&")):
        name, equals, value = pair.replace("+", " ").partition("=")
        pairs.append(f"{_encoded(name)}{equals}{_encoded(value)}")
    return f"{target}?{'&'.join(pairs)}" if pairs else target


def _encoded(text: str) -> str:
    return quote(unquote_to_bytes(text), safe="-_.~")
