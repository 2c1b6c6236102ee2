"""uvicorn, with what it lacks: time limits for the head of a request, and a shutdown that loses no request."""

import asyncio
import contextlib
import ctypes
import logging
import socket
import struct
import sys
import uuid
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.serving import problems
from catsdogs_lib.serving.metrics_prometheus import LOGGER
from catsdogs_lib.serving.problems import ProblemError

HEAD_SECONDS = 10.0
"""A connection that has not sent the head of a request by then is closed."""
REQUEST_SECONDS = 120.0
"""A connection whose request is not answered, or whose answer is not read, by then is closed."""
GRACE_SECONDS = 30
"""Requests under way may go on for so long after the signal to stop."""
SO_ATTACH_FILTER = 26


class Connection(H11Protocol):
    """One connection: ended when its peer neither sends nor reads, served to its end when the server stops."""

    _timer: asyncio.TimerHandle | None = None
    _last = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._end_after(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def handle_events(self) -> None:
        """Allow more time once a new request is under way."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._end_after(REQUEST_SECONDS)
            self.cycle.keep_alive = self.cycle.keep_alive and not self._last

    def on_response_complete(self) -> None:
        """Wait for the next request; a body or an answer that nobody reads to its end counts as waiting."""
        self._end_after(HEAD_SECONDS)
        super().on_response_complete()

    def shutdown(self) -> None:
        """Stop after the request that is under way, or on its way."""
        if self.cycle is None and not self.transport.is_closing():
            # Accepted, but nothing read yet: uvicorn would reset it. Its one request is answered first.
            self._last = True
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with a problem document."""
        detail = f"{msg.rstrip('.')}: it breaks the HTTP protocol; check the client"
        request_id = uuid.uuid4().hex
        response = problems.document(ProblemError(problems.MALFORMED, detail, {"connection": "close"}), request_id)
        logging.getLogger(LOGGER).warning(problems.MALFORMED.name, extra={"fields": {"request_id": request_id}})
        headers = [*response.raw_headers, (b"x-request-id", request_id.encode())]
        with contextlib.suppress(h11.LocalProtocolError):  # an answer may already be on its way
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=bytes(response.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event))
        self.transport.close()

    def _end_after(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Not close(), which waits until the peer has read what is still to be sent.
        self._timer = self.loop.call_later(seconds, self.transport.abort)


class Server(uvicorn.Server):
    """Stops in an order that resets no connection: no new ones, then those in the queue, then the end.

    Parameters
    ----------
    config
        uvicorn's.
    shared
        Whether other processes listen on the same socket: then they take what waits in its queue.
    """

    def __init__(self, config: uvicorn.Config, *, shared: bool = False) -> None:
        super().__init__(config)
        self._shared = shared

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take what has already connected, then shut down."""
        for server in self.servers:
            if self._shared:
                server.close()
                continue
            for listener in server.sockets:
                _stop_connecting(listener)
        # Connections that the kernel has already made are accepted before the listener closes and resets them; those
        # that are accepted get their protocol.
        await asyncio.sleep(0.2)
        await super().shutdown(sockets)


def _stop_connecting(listener: Any) -> None:
    """Let the kernel answer no new connection (Linux): it looks for another server, or is refused."""
    if not sys.platform.startswith("linux"):
        return
    # Classic BPF on the TCP header: a packet with SYN is dropped, any other passes, so that a handshake that is
    # under way comes to its end. struct sock_filter {u16 code; u8 jt, jf; u32 k}: 0x30 loads the byte at k, 0x45
    # goes jt or jf instructions on by the bits k, 6 returns k, the bytes to keep.
    flags, syn, keep = 13, 0x02, 0xFFFFFFFF
    steps = ((0x30, 0, 0, flags), (0x45, 0, 1, syn), (0x06, 0, 0, 0), (0x06, 0, 0, keep))
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    filter_ = struct.pack("HL", len(steps), ctypes.addressof(program))
    try:
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_)
    except OSError:
        logging.getLogger("uvicorn.error").debug("new connections cannot be held off while the server stops")


def serve(
    app: ASGIApp,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_start: Callable[[str], None] | None = None,
    fd: int | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; requests already accepted are answered first.

    Parameters
    ----------
    app
        Any ASGI application.
    host, port
        Where to listen; port 0 takes a free one.
    on_start
        Is told the address, ``http://host:port``, once connections are accepted.
    fd
        A listening TCP socket that this process was given, in place of `host` and `port`. Several processes may serve
        on one: they can be replaced in turn, and no connection is lost as long as one of them listens.

    Raises
    ------
    CatsdogsError
        The address cannot be used.
    """
    with _listener(host, port) if fd is None else _given(fd) as listener:
        listener.setblocking(False)
        name = listener.getsockname()
        shown = f"[{name[0]}]" if ":" in name[0] else name[0]
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            h11_max_incomplete_event_size=64 * 1024,
        )
        if on_start is not None:
            on_start(f"http://{shown}:{name[1]}")
        Server(config, shared=fd is not None).run(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise CatsdogsError(f"cannot listen on {host} port {port} ({reason}); name another with --port") from None
    return listener


def _given(fd: int) -> socket.socket:
    sentence = f"file descriptor {fd} is no listening TCP socket; pass one down, or name --host and --port"
    try:
        listener = socket.socket(fileno=fd)
    except OSError:
        raise CatsdogsError(sentence) from None
    inet = listener.family in (socket.AF_INET, socket.AF_INET6) and listener.type == socket.SOCK_STREAM
    if not inet or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.detach()
        raise CatsdogsError(sentence)
    return listener
