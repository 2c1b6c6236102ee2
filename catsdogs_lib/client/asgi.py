"""ASGI for the proxy and the local Function URL: read a request within limits, send a response."""

import asyncio
from dataclasses import replace

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from catsdogs_lib.client.messages import HttpRequest, HttpResponse
from catsdogs_lib.serving.request_body import DRAIN_BYTES

BODY_SECONDS = 30.0
"""Time that a body has to arrive."""


class BodyTooLargeError(Exception):
    """The body is larger than the limit."""


def request_head(scope: Scope) -> HttpRequest:
    """Return a request without its body."""
    return HttpRequest(
        method=scope["method"],
        path=(scope.get("raw_path") or b"/").decode("latin-1"),
        query=scope["query_string"].decode("latin-1"),
        headers=tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]),
        source_ip=(scope.get("client") or ("127.0.0.1", 0))[0],
        scheme=scope["scheme"],
        port=(scope.get("server") or ("", 80))[1] or 80,
    )


async def read_request(scope: Scope, receive: Receive, limit: int) -> HttpRequest:
    """Read a request with its body, at most `limit` bytes.

    Raises
    ------
    BodyTooLargeError
        The body is larger.
    TimeoutError
        The body did not arrive within `BODY_SECONDS`; the client is still connected.
    ClientDisconnect
        The client has disconnected; nobody would receive a response.
    """
    body, received = bytearray(), 0
    async with asyncio.timeout(BODY_SECONDS):
        async for part in Request(scope, receive).stream():
            received += len(part)
            if received <= limit:
                body += part
            if received > DRAIN_BYTES:
                break
    if received > limit:
        raise BodyTooLargeError
    return replace(request_head(scope), body=bytes(body))


async def send_response(response: HttpResponse, method: str, send: Send) -> None:
    """Send a response, with its length; a response to HEAD keeps the length that its headers give."""
    without_body = response.status in (204, 304)
    keeps_length = method == "HEAD" and bool(response.header("content-length"))
    headers = [pair for pair in response.headers if keeps_length or pair[0].lower() != "content-length"]
    if not without_body and not keeps_length:
        headers.append(("content-length", str(len(response.body))))
    encoded = [(name.lower().encode("latin-1"), _bytes(value)) for name, value in headers]
    await send({"type": "http.response.start", "status": response.status, "headers": encoded})
    await send({"type": "http.response.body", "body": b"" if without_body else response.body})


def _bytes(value: str) -> bytes:
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode()
