"""Limits on a server's connections: fewer than its open-file limit, and a maximum share per client."""

import asyncio
import contextlib
import errno
import logging
import resource
import socket
import time
import uuid
from collections import Counter
from typing import Any, Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from catsdogs_lib.serving import problems
from catsdogs_lib.serving.metrics_prometheus import LOGGER
from catsdogs_lib.serving.problems import ProblemError

MAX_CONNECTIONS = 512
"""Upper bound of the ceiling; each connection may buffer about 0.3 MB."""
RESERVED_DESCRIPTORS = 64
"""File descriptors for everything that is not a connection: the model, the decoder, S3, the log."""
CLIENT_SHARE = 0.75
"""Maximum share of the connections for one client address."""
GRACE_SECONDS = 0.2
"""Time that a new or idle connection is left to send its request, while there is room above the ceiling."""
MAX_SURPLUS = 16
"""Connections allowed above the ceiling; only requests for `ALWAYS_ANSWERED` are served on them."""
ACCEPTS_PER_PASS = 8
"""Connections accepted in one pass of the event loop; the limit counts them two passes later."""
LOG_SECONDS = 10.0
"""Minimum time between two log lines about the limit."""
ALWAYS_ANSWERED = frozenset({"/health", "/ready", "/metrics"})
"""Paths for operators, answered even when every connection is busy."""


class Abortable(Protocol):
    """A connection that can be closed at once."""

    def abort(self) -> None:
        """Close the connection without waiting for the client."""


def available_connections() -> int:
    """Raise the process's open-file limit as far as necessary, and return the number of connections that it allows.

    Each connection may need two files: itself, and a static file that it is sending.
    """
    wanted = 2 * MAX_CONNECTIONS + RESERVED_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, max((soft - RESERVED_DESCRIPTORS) // 2, soft // 4, 1))


class ConnectionLimit:
    """A ceiling on connections, and on those of one client; idle connections make room for new ones.

    The connection that is closed is the longest idle one of the client with the most idle connections, so a client that
    opens many closes its own.

    Parameters
    ----------
    ceiling
        Maximum number of connections, not counting `MAX_SURPLUS`.
    """

    def __init__(self, ceiling: int = MAX_CONNECTIONS) -> None:
        self._ceiling = ceiling
        self._client_ceiling = max(1, int(ceiling * CLIENT_SHARE))
        self._clients: dict[Abortable, str] = {}
        self._counts: Counter[str] = Counter()
        # The time since which each connection of a client is idle, oldest first.
        self._idle: dict[str, dict[Abortable, float]] = {}
        self._turned_away = 0
        self._next_line = 0.0

    def add(self, connection: Abortable, client: str) -> bool:
        """Count a new connection; return False if it is above the ceiling, so that its request must be refused."""
        room = True
        grace = GRACE_SECONDS if len(self._clients) < self._ceiling + MAX_SURPLUS else 0.0
        if self._counts[client] >= self._client_ceiling:
            room = self._close_oldest(self._idle.get(client), grace)
        elif len(self._clients) >= self._ceiling:
            room = self.close_idle(grace)
        if not room:
            self._log()
        self._clients[connection] = client
        self._counts[client] += 1
        self.set_idle(connection)
        return room

    def set_idle(self, connection: Abortable) -> None:
        """Mark a connection as waiting for a request."""
        if client := self._clients.get(connection):
            self._idle.setdefault(client, {})[connection] = time.monotonic()

    def set_busy(self, connection: Abortable) -> None:
        """Mark a connection as having a request in progress."""
        client = self._clients.get(connection, "")
        if idle := self._idle.get(client):
            idle.pop(connection, None)
            if not idle:
                del self._idle[client]

    def remove(self, connection: Abortable) -> None:
        """Forget a connection that is closed."""
        self.set_busy(connection)
        if client := self._clients.pop(connection, None):
            self._counts[client] -= 1
            if not self._counts[client]:
                del self._counts[client]

    def close_idle(self, grace: float = 0.0) -> bool:
        """Close the longest idle connection of the client with most; False if it is idle for less than `grace`."""
        return self._close_oldest(max(self._idle.values(), key=len, default=None), grace)

    def _close_oldest(self, idle: dict[Abortable, float] | None, grace: float) -> bool:
        if not idle:
            return False
        oldest, since = next(iter(idle.items()))
        if time.monotonic() - since < grace:
            return False
        self.remove(oldest)
        oldest.abort()
        self._log()
        return True

    def _log(self) -> None:
        self._turned_away += 1
        if (now := time.monotonic()) >= self._next_line:
            fields = {"connections": len(self._clients), "turned_away": self._turned_away}
            logging.getLogger(LOGGER).warning("too many connections", extra={"fields": fields})
            self._turned_away, self._next_line = 0, now + LOG_SECONDS


class Listener(socket.socket):
    """A listening socket that accepts a few connections at a time, and makes room when file descriptors run out.

    asyncio accepts all pending connections before it creates a protocol for any; when file descriptors run out, it logs
    a traceback for each attempt.

    Parameters
    ----------
    limit
        Closes idle connections when file descriptors run out.
    arguments
        Those of `socket.socket`.
    """

    def __init__(self, limit: ConnectionLimit, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._limit = limit
        self._accepted = 0

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection.

        Raises
        ------
        BlockingIOError
            No connection is pending, or this pass of the event loop has accepted enough.
        OSError
            File descriptors have run out and no connection is idle; asyncio retries after a second.
        """
        if self._accepted == 0:
            asyncio.get_running_loop().call_soon(self._begin_pass)
        if self._accepted >= ACCEPTS_PER_PASS:
            raise BlockingIOError
        self._accepted += 1
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self._accepted = ACCEPTS_PER_PASS
            if not self._limit.close_idle():
                raise
            raise BlockingIOError from None

    def _begin_pass(self) -> None:
        self._accepted = 0


def always_answered_only(app: ASGIApp) -> ASGIApp:
    """Wrap an application for a connection above the ceiling: paths for operators are answered, others get 503."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in ALWAYS_ANSWERED:
            await app(scope, receive, send)
            return
        problem = ProblemError(
            problems.BUSY,
            "the server has reached its limit on connections; try again in a second",
            {"retry-after": "1", "connection": "close"},
        )
        await problems.document(problem, uuid.uuid4().hex)(scope, receive, send)

    return answer
