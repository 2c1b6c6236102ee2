"""What both local doors need of ASGI: a request read whole within limits, and a response sent."""

import asyncio
from dataclasses import replace

from starlette.types import Receive, Scope, Send

from catsdogs_lib.client.lambda_events import HttpRequest, HttpResponse
from catsdogs_lib.serving.request_body import DRAIN_BYTES

BODY_SECONDS = 30.0
"""A body that has not arrived whole by then is given up."""


class BodyTooLargeError(Exception):
    """The body has more bytes than the door takes."""


class SlowBodyError(Exception):
    """The body did not arrive within `BODY_SECONDS`; the sender is still there."""


class ClientDisconnectedError(Exception):
    """The sender has left: nobody hears an answer."""


def head_of(scope: Scope) -> HttpRequest:
    """What a request says of itself before its body."""
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
    """Read a request with its whole body, at most `limit` bytes of it.

    Raises
    ------
    BodyTooLargeError
        The body is larger.
    SlowBodyError
        The body did not arrive in time.
    ClientDisconnectedError
        The sender has left.
    """
    body, received = bytearray(), 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnectedError
                part = message.get("body", b"")
                received += len(part)
                if received <= limit:
                    body += part
                more = message.get("more_body", False) and received <= DRAIN_BYTES
    except TimeoutError:
        raise SlowBodyError from None
    if received > limit:
        raise BodyTooLargeError
    return replace(head_of(scope), body=bytes(body))


async def send_response(response: HttpResponse, method: str, send: Send) -> None:
    """Send a response; its length is counted here, but for HEAD, where the one that the headers name is right."""
    bodyless = response.status in (204, 304)
    names_length = method == "HEAD" and bool(response.header("content-length"))
    headers = [pair for pair in response.headers if names_length or pair[0].lower() != "content-length"]
    if not bodyless and not names_length:
        headers.append(("content-length", str(len(response.body))))
    encoded = [(name.lower().encode("latin-1"), _bytes(value)) for name, value in headers]
    await send({"type": "http.response.start", "status": response.status, "headers": encoded})
    await send({"type": "http.response.body", "body": b"" if bodyless else response.body})


def _bytes(value: str) -> bytes:
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode()
