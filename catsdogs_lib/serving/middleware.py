"""The outermost layer: names a request, adds safe headers, turns the unforeseen into a problem, tells telemetry."""

import re
import time
import uuid
from typing import cast

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from catsdogs_lib.serving import problems
from catsdogs_lib.serving.telemetry import RequestRecord, Telemetry

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SAFE_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:=;-]{1,128}")
_OUTCOME = "catsdogs.outcome"


def record_of(request: Request) -> RequestRecord:
    """Give the outcome that is being filled in for a request."""
    return cast("RequestRecord", request.scope[_OUTCOME])


class RequestMiddleware:
    """ASGI middleware around the whole application.

    Parameters
    ----------
    app
        The application.
    telemetry
        Is told of every request once it is over.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        method = scope["method"] if scope["method"] in METHODS else "other"
        outcome = scope[_OUTCOME] = RequestRecord(_request_id(scope), method)
        started = False
        # Whatever answers GET answers HEAD, with the same head alone (RFC 9110, section 9.1).
        head_only = scope["method"] == "HEAD"
        inner = {**scope, "method": "GET"} if head_only else scope

        async def send_observed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                outcome.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = outcome.request_id
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
            if head_only and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._app(inner, receive, send_observed)
        except ClientDisconnect:
            outcome.status = 499
        except Exception as error:
            # Nobody foresaw it: log and count it; the sender gets a sentence, never a trace.
            outcome.error, outcome.problem = error, problems.INTERNAL.name
            if started:
                raise
            detail = f"a mistake of ours; it was logged as {outcome.request_id}; try again or report that id"
            response = problems.document(problems.ProblemError(problems.INTERNAL, detail), outcome.request_id)
            await response(scope, receive, send_observed)
        finally:
            outcome.seconds = time.perf_counter() - began
            outcome.route = _route(inner)
            self._telemetry.record(outcome)


def _route(scope: Scope) -> str:
    if isinstance(scope.get("endpoint"), StaticFiles):
        return "/static"
    return getattr(scope.get("endpoint"), "path", "unmatched")


def _request_id(scope: Scope) -> str:
    # Lambda's own id, so that the answer, the log line and AWS's log name the same request.
    event = scope.get("aws.event", {})
    given = event.get("requestContext", {}).get("requestId") or Headers(scope=scope).get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
