"""HTTP requests and responses as plain values."""

from dataclasses import dataclass

Headers = tuple[tuple[str, str], ...]
"""Names and values in order; a name may occur more than once."""

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "expect",
    }
)
"""Headers of a single connection, which are not forwarded."""


class _Message:
    headers: Headers

    def header(self, name: str) -> str:
        """Return the value of a header, named in lower case: repeated ones joined by commas, "" if there is none."""
        return ",".join(value for key, value in self.headers if key.lower() == name)


@dataclass(frozen=True)
class HttpRequest(_Message):
    """An HTTP request.

    Parameters
    ----------
    method
        E.g. ``"POST"``.
    path, query
        Percent-encoded, as sent; the query without its question mark.
    headers
        Names and values in order.
    body
        The complete body.
    source_ip
        Address of the sender.
    scheme, port
        Scheme and port that received it.
    """

    method: str
    path: str = "/"
    query: str = ""
    headers: Headers = ()
    body: bytes = b""
    source_ip: str = "127.0.0.1"
    scheme: str = "https"
    port: int = 443


@dataclass(frozen=True)
class HttpResponse(_Message):
    """An HTTP response; ``content-length`` is added when it is sent."""

    status: int
    headers: Headers
    body: bytes
