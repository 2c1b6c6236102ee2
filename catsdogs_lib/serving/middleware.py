"""The outermost middleware: request ids, security headers, unexpected errors, HEAD and telemetry."""

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
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:=;-]{1,128}")
_RECORD = "catsdogs.record"


def record_of(request: Request) -> RequestRecord:
    """Get the record of a request, to fill in."""
    return cast("RequestRecord", request.scope[_RECORD])


class RequestMiddleware:
    """ASGI middleware that records every request.

    Parameters
    ----------
    app
        The application.
    telemetry
        Receives the record of each request when it is over.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        method = scope["method"] if scope["method"] in METHODS else "other"
        record = scope[_RECORD] = RequestRecord(_request_id(scope), method, client_request_id=_client_request_id(scope))
        started = False
        # HEAD gets the same headers as GET, without the body (RFC 9110, section 9.3.2).
        head_only = scope["method"] == "HEAD"
        inner = {**scope, "method": "GET"} if head_only else scope

        async def send_recorded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                record.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = record.request_id
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            if head_only and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._app(inner, receive, send_recorded)
        except ClientDisconnect:
            record.status = 499
        except Exception as error:
            # The sender gets one sentence, never a stack trace.
            record.error, record.problem = error, problems.INTERNAL.name
            if started:
                raise
            problem = problems.ProblemError(
                problems.INTERNAL,
                f"a mistake of ours; it was logged as {record.request_id}; try again or report that id",
            )
            await problems.document(problem, record.request_id)(scope, receive, send_recorded)
        finally:
            record.seconds = time.perf_counter() - start
            record.route = _route_template(inner)
            self._telemetry.record(record)


def _route_template(scope: Scope) -> str:
    endpoint = scope.get("endpoint")
    if isinstance(endpoint, StaticFiles):
        return "/static"
    routes = scope["router"].routes if endpoint else ()
    return next((route.path for route in routes if getattr(route, "endpoint", None) is endpoint), "unmatched")


def _request_id(scope: Scope) -> str:
    # Lambda's own id, so that the response, the log line and AWS's log name the same request. Never the client's: two
    # requests could then have one id.
    given = scope.get("aws.event", {}).get("requestContext", {}).get("requestId")
    return given if isinstance(given, str) and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _client_request_id(scope: Scope) -> str | None:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else None
