"""The server: uvicorn, with time limits for each connection and a shutdown that drops no request."""

import asyncio
import contextlib
import ctypes
import logging
import re
import socket
import struct
import sys
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import unquote

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.serving import problems
from catsdogs_lib.serving.body_memory import network_of
from catsdogs_lib.serving.bounded_h11 import BoundedH11Connection
from catsdogs_lib.serving.connections import (
    ConnectionLimit,
    Listener,
    always_answered_only,
    available_connections,
)
from catsdogs_lib.serving.metrics_prometheus import LOGGER
from catsdogs_lib.serving.problems import ProblemError

HEAD_SECONDS = 10.0
"""Time limit for the headers of a request."""
REQUEST_SECONDS = 120.0
"""Time limit for answering a request, and for the client to read the response."""
GRACE_SECONDS = 30
"""Time limit for requests in progress after the signal to stop."""
SO_ATTACH_FILTER = 26
"""Linux's socket option, which Python's `socket` does not name."""
DRAIN_SECONDS = 0.2
"""Time for handshakes in progress to complete before the listening socket closes."""
_ABSOLUTE_FORM = re.compile(rb"https?://(?:[^/?#@]*@)?([^/?#@]+)", re.IGNORECASE)
_FRAMING_HEADERS = frozenset({b"content-length", b"transfer-encoding"})
MAX_HEAD_BYTES = 64 * 1024
"""Maximum size of a request's head."""
READ_BYTES = 32 * 1024
"""Bytes read from one connection before the event loop turns to the others."""


class Connection(H11Protocol):
    """A connection with time limits, whose request is still answered when the server stops.

    Parameters
    ----------
    arguments
        uvicorn's.
    limit
        Counts the connections of the server; None gives this one a limit of its own.
    """

    conn: BoundedH11Connection
    _timer: asyncio.TimerHandle | None = None
    _closing = False

    def __init__(self, *arguments: Any, limit: ConnectionLimit | None = None, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._limit = limit or ConnectionLimit()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit for the first request's headers."""
        super().connection_made(transport)
        self.conn = BoundedH11Connection(MAX_HEAD_BYTES)
        # asyncio's selector transports read this much at once.
        transport.max_size = READ_BYTES  # type: ignore[attr-defined]
        self._abort_after(HEAD_SECONDS)
        if not self._limit.add(self, network_of(self.client[0]) if self.client else "unknown"):
            self.app, self._closing = always_answered_only(self.app), True

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the time limit."""
        super().connection_lost(exc)
        self._limit.remove(self)
        if self._timer is not None:
            self._timer.cancel()

    def handle_events(self) -> None:
        """Prepare a request for the application when its headers have arrived, and start its time limit."""
        previous = self.cycle
        super().handle_events()
        if self.cycle is previous:
            return
        self._abort_after(REQUEST_SECONDS)
        self._limit.set_busy(self)
        _rewrite_absolute_form(self.scope)
        if _has_two_lengths(self.scope) or self._closing:
            self.cycle.keep_alive = False
            self.cycle.default_headers = [*self.cycle.default_headers, (b"connection", b"close")]

    def on_response_complete(self) -> None:
        """Start the time limit for the next request; the rest of an unread body must arrive within it, too."""
        self._abort_after(HEAD_SECONDS)
        self._limit.set_idle(self)
        super().on_response_complete()

    def shutdown(self) -> None:
        """Close after the request that is in progress, or about to arrive."""
        if self.cycle is None and not self.transport.is_closing():
            # Accepted, but nothing read yet: uvicorn would reset it. Answer one request first.
            self._closing = True
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answer invalid HTTP with a problem document."""
        detail = self.conn.refusal or f"{msg.rstrip('.')}: it breaks the HTTP protocol; check the client"
        request_id = uuid.uuid4().hex
        response = problems.document(ProblemError(problems.MALFORMED, detail, {"connection": "close"}), request_id)
        logging.getLogger(LOGGER).warning(problems.MALFORMED.name, extra={"fields": {"request_id": request_id}})
        headers = [*response.raw_headers, (b"x-request-id", request_id.encode())]
        with contextlib.suppress(h11.LocalProtocolError):  # a response may already have started
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=bytes(response.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event))
        self.transport.close()

    def abort(self) -> None:
        """Close the connection without waiting for the client."""
        self.transport.abort()

    def _abort_after(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Not close(), which waits until the client has read everything.
        self._timer = self.loop.call_later(seconds, self.transport.abort)


def _rewrite_absolute_form(scope: Any) -> None:
    """Serve ``http://host/path`` as its path, with the host that it names (RFC 9112, section 3.2.2)."""
    if match := _ABSOLUTE_FORM.match(scope["raw_path"]):
        path = scope["raw_path"][match.end() :] or b"/"
        scope["raw_path"], scope["path"] = path, unquote(path.decode("ascii"))
        scope["headers"][:] = [(name, match[1] if name == b"host" else value) for name, value in scope["headers"]]


def _has_two_lengths(scope: Any) -> bool:
    """Check for Content-Length beside Transfer-Encoding, and remove it.

    h11 reads the body by Transfer-Encoding. A proxy in front may have used the length instead, and forwarded a second
    request as part of the body, so nothing more may be read from the connection (RFC 9112, section 6.3).
    """
    if not _FRAMING_HEADERS.issubset(name for name, _ in scope["headers"]):
        return False
    scope["headers"][:] = [pair for pair in scope["headers"] if pair[0] != b"content-length"]
    return True


class Server(uvicorn.Server):
    """uvicorn's server, with a shutdown that resets no connection (docs/server.md).

    Parameters
    ----------
    config
        uvicorn's.
    shared
        True if other processes listen on the same socket: they accept the connections that wait in its queue.
    """

    def __init__(self, config: uvicorn.Config, *, shared: bool = False) -> None:
        super().__init__(config)
        self._shared = shared

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new connections, accept those that the kernel has already established, then shut down."""
        for server in self.servers:
            if self._shared:
                server.close()
                continue
            for listener in server.sockets:
                _drop_new_connections(listener)
        # Closing the listener resets the connections that are not accepted by then.
        await asyncio.sleep(DRAIN_SECONDS)
        await super().shutdown(sockets)


def _drop_new_connections(listener: Any) -> None:
    """Have the kernel drop new connections (Linux): clients repeat their SYN, and find another server or none."""
    if not sys.platform.startswith("linux"):
        return
    # Classic BPF on the TCP header: drops packets with SYN and passes all others, so that handshakes in progress
    # complete. struct sock_filter {u16 code; u8 jt, jf; u32 k}: 0x30 loads the byte at k; 0x45 skips jt instructions
    # if it has the bits k, else jf; 6 returns k, the number of bytes to keep.
    flags, syn, keep = 13, 0x02, 0xFFFFFFFF
    instructions = ((0x30, 0, 0, flags), (0x45, 0, 1, syn), (0x06, 0, 0, 0), (0x06, 0, 0, keep))
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *fields) for fields in instructions))
    filter_ = struct.pack("HL", len(instructions), ctypes.addressof(program))
    try:
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_)
    except OSError:
        logging.getLogger("uvicorn.error").debug("new connections cannot be dropped while the server stops")


def serve(
    app: ASGIApp,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_start: Callable[[str], None] | None = None,
    fd: int | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then answer the requests already accepted.

    Parameters
    ----------
    app
        Any ASGI application.
    host, port
        Address to listen on; port 0 takes a free port.
    on_start
        Called with the address, ``http://host:port``, once connections are accepted.
    fd
        A listening TCP socket that this process has inherited, in place of `host` and `port`. Several processes may
        share it: they can be replaced one by one, and no connection is lost as long as one of them listens.

    Raises
    ------
    CatsdogsError
        The address cannot be used.
    """
    limit = ConnectionLimit(available_connections())
    with _listen(host, port, limit) if fd is None else _inherit(fd, limit) as listener:
        listener.setblocking(False)
        host, port = listener.getsockname()[:2]
        config = uvicorn.Config(
            app,
            http=partial(Connection, limit=limit),  # type: ignore[arg-type]
            loop="asyncio",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        if on_start is not None:
            on_start(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        Server(config, shared=fd is not None).run(sockets=[listener])


def _listen(host: str, port: int, limit: ConnectionLimit) -> Listener:
    listener = Listener(limit, family=socket.AF_INET6 if ":" in host else socket.AF_INET, type=socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise CatsdogsError(f"cannot listen on {host} port {port} ({reason}); name another with --port") from None
    return listener


def _inherit(fd: int, limit: ConnectionLimit) -> Listener:
    message = f"file descriptor {fd} is no listening TCP socket; pass one down, or name --host and --port"
    try:
        listener = Listener(limit, fileno=fd)
    except OSError:
        raise CatsdogsError(message) from None
    is_tcp = listener.family in (socket.AF_INET, socket.AF_INET6) and listener.type == socket.SOCK_STREAM
    if not is_tcp or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.detach()
        raise CatsdogsError(message)
    return listener
