"""A local proxy to an endpoint that requires AWS credentials: it signs and forwards every request.

It acts with the credentials of the user who started it, so it serves this machine only, and no pages of other sites.
"""

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from catsdogs_lib.client import asgi, http, lambda_events, sigv4
from catsdogs_lib.client.messages import HttpRequest, HttpResponse
from catsdogs_lib.common.files import parse_json
from catsdogs_lib.serving import problems

UNREACHABLE = problems.Kind(
    "upstream-unreachable", 502, "The endpoint gives no answer", "The proxy could not reach it."
)
NOT_SIGNED = problems.Kind("not-signed", 502, "The request cannot be signed", "The proxy has no valid credentials.")
NOT_ADMITTED = problems.Kind(
    "not-admitted", 403, "AWS does not admit these credentials", "Signature, permission or age."
)
FOREIGN_SITE = problems.Kind(
    "foreign-site", 403, "Not for other sites", "The proxy answers pages that it served itself."
)
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
MAX_THREADS = 16


class Proxy:
    """ASGI application that signs every request and forwards it to `upstream`.

    Parameters
    ----------
    upstream
        Endpoint, with its signer.
    """

    def __init__(self, upstream: http.Upstream) -> None:
        self._upstream = upstream
        self._pool = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="proxy")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        try:
            response = await self._answer(scope, receive)
        except ClientDisconnect:
            return
        except problems.ProblemError as error:
            await problems.document(error, uuid.uuid4().hex)(scope, receive, send)
            return
        await asgi.send_response(response, scope["method"], send)

    async def _answer(self, scope: Scope, receive: Receive) -> HttpResponse:
        # Refuse before reading the body.
        if reason := _foreign_site(asgi.request_head(scope)):
            raise problems.ProblemError(FOREIGN_SITE, f"{reason}; open the proxy's own address")
        try:
            request = await asgi.read_request(scope, receive, lambda_events.MAX_EVENT_BYTES)
        except asgi.BodyTooLargeError:
            raise problems.ProblemError(
                problems.TOO_LARGE,
                "the body is larger than the 6 MB that AWS takes (4.5 MB for a photo); scale the photo down",
            ) from None
        except TimeoutError:
            raise problems.ProblemError(
                problems.SLOW_BODY,
                f"the body did not arrive within {asgi.BODY_SECONDS:g} seconds; send it again, perhaps scaled down",
                {"connection": "close"},
            ) from None
        try:
            response = await asyncio.get_running_loop().run_in_executor(self._pool, self._upstream.ask, request)
        except (sigv4.SigningError, http.UnreachableError) as error:
            kind = NOT_SIGNED if isinstance(error, sigv4.SigningError) else UNREACHABLE
            raise problems.ProblemError(kind, str(error)) from None
        if response.status == NOT_ADMITTED.status and response.header("x-amzn-errortype"):
            raise problems.ProblemError(NOT_ADMITTED, _aws_message(response))
        return self._with_local_redirects(response)

    def _with_local_redirects(self, response: HttpResponse) -> HttpResponse:
        """Rewrite redirects to the endpoint so that they lead back to the proxy."""
        headers = tuple(
            (name, value.removeprefix(self._upstream.origin) or "/" if name.lower() == "location" else value)
            for name, value in response.headers
        )
        return HttpResponse(response.status, headers, response.body)


def _foreign_site(request: HttpRequest) -> str:
    """Return why a request counts as another site's, or ""."""
    host = request.header("host")
    if _hostname(host) not in LOOPBACK_HOSTS:
        return f"the request is for '{host[:80]}', a name that is not this machine's"
    origin = request.header("origin")
    if origin and origin != f"http://{host}":
        return f"the request comes from a page of '{origin[:80]}'"
    navigates = request.method in ("GET", "HEAD") and request.header("sec-fetch-mode") == "navigate"
    if request.header("sec-fetch-site") == "cross-site" and not navigates:
        return "the request comes from a page of another site"
    return ""


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _aws_message(response: HttpResponse) -> str:
    kind = response.header("x-amzn-errortype").partition(":")[0]
    try:
        content = parse_json(response.body)
        text = str(content.get("Message") or content.get("message") or "").strip().rstrip(".")
    except (ValueError, AttributeError):
        text = ""
    first = text.splitlines()[0] if text else kind
    return (
        f"AWS says: {first[:300]}; sign in again, check the region, and that you may call lambda:InvokeFunctionUrl "
        "and lambda:InvokeFunction"
    )
