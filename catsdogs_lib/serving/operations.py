"""What the API can be asked: each operation answers one route, and says what OpenAPI tells of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from catsdogs_lib.serving.auth import Guard


@dataclass(frozen=True)
class Operation:
    """An operation, itself an ASGI application.

    Attributes
    ----------
    method, path
        Of its route.
    endpoint
        Answers a request; what it raises, `ProblemError` above all, the application turns into an answer.
    documentation
        Gives the arguments of FastAPI's ``add_api_route``, once somebody asks for the document; None leaves the
        operation out of it.
    guard
        Looks at a request before its body is read; None lets everybody in.
    """

    method: str
    path: str
    endpoint: Callable[[Request], Awaitable[Response]]
    documentation: Callable[[], dict[str, Any]] | None = None
    guard: Guard | None = None

    @property
    def route(self) -> Route:
        """Starlette's route to it."""
        return Route(self.path, self, methods=[self.method])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        if self.guard is not None:
            self.guard(request)
        response = await self.endpoint(request)
        await response(scope, receive, send)
