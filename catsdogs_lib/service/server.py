"""uvicorn, with what it lacks: time limits for the head of a request, and a shutdown that loses no request."""

import asyncio
import ctypes
import json
import logging
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from catsdogs_lib.errors import CatsdogsError
from catsdogs_lib.service import problems

HEAD_SECONDS = 10.0
"""A connection that has not sent the head of a request by then is closed."""
GRACE_SECONDS = 30
"""Requests under way may go on for so long after the signal to stop."""
SO_ATTACH_FILTER = 26


class Connection(H11Protocol):
    """One connection: ended when the head of a request does not arrive, served to its end when the server stops."""

    _head_timer: asyncio.TimerHandle | None = None
    _last = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        super().connection_lost(exc)
        self._cancel_head_timer()

    def handle_events(self) -> None:
        """Stop waiting once a new request is under way."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._cancel_head_timer()
            self.cycle.keep_alive = self.cycle.keep_alive and not self._last

    def on_response_complete(self) -> None:
        """Wait for the next request; what is left of a body that nobody reads counts as waiting."""
        self._await_head()
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
        kind = problems.MALFORMED
        detail = f"{msg.rstrip('.')}: it breaks the HTTP protocol; check the client"
        body = json.dumps({"type": f"/problems/{kind.name}", "title": kind.title, "status": 400, "detail": detail})
        head = [("content-type", problems.MEDIA_TYPE), ("content-length", str(len(body))), ("connection", "close")]
        try:
            for event in (h11.Response(status_code=400, headers=head, reason=b"Bad Request"),
                          h11.Data(data=body.encode()), h11.EndOfMessage()):  # fmt: skip
                self.transport.write(self.conn.send(event))
        except h11.LocalProtocolError:
            pass  # an answer was already on its way
        self.transport.close()

    def _await_head(self) -> None:
        self._cancel_head_timer()
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """Stops in an order that resets no connection: no new ones, then those in the queue, then the end."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take what has already connected, then shut down."""
        for server in self.servers:
            for listener in server.sockets:
                _stop_connecting(listener)
        # Connections that the kernel has already made are accepted before the listener closes and resets them.
        await asyncio.sleep(0.2)
        await super().shutdown(sockets)


def _stop_connecting(listener: Any) -> None:
    """Let the kernel drop packets of new connections (Linux): they look for another server, or are refused."""
    if not sys.platform.startswith("linux"):
        return
    # The classic BPF program "return 0": struct sock_filter {u16 code; u8 jt, jf; u32 k}.
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    filter_ = struct.pack("HL", 1, ctypes.addressof(program))
    try:
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_)
    except OSError:
        logging.getLogger("uvicorn.error").debug("new connections cannot be held off while the server stops")


def serve(
    app: ASGIApp,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_start: Callable[[str], None] | None = None,
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

    Raises
    ------
    CatsdogsError
        The address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise CatsdogsError(f"cannot listen on {host} port {port} ({reason}); name another with --port") from None
        shown = f"[{host}]" if ":" in host else host
        listener.listen(2048)
        listener.setblocking(False)
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
            on_start(f"http://{shown}:{listener.getsockname()[1]}")
        Server(config).run(sockets=[listener])
