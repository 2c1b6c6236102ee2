"""Conversion of HTTP requests to Lambda events, and of a function's result to an HTTP response.

Payload 2.0 of Function URLs and HTTP APIs, payload 1.0 of REST APIs. Where AWS's documentation is silent, this follows
recorded events: a Function URL keeps the path as sent, an HTTP API decodes it; a Function URL keeps the header
``cookie`` beside the list of cookies, an HTTP API removes it.
"""

import base64
import json
import re
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

from catsdogs_lib.client.messages import HOP_BY_HOP, Headers, HttpRequest, HttpResponse

MAX_EVENT_BYTES = 6 * 2**20
"""Largest event that Lambda accepts, as JSON."""
MAX_RESULT_BYTES = 6 * 2**20 + 100
"""Largest result that Lambda accepts from a function, as JSON (the number in Lambda's own error message)."""
URL_ID = "abcdefghijklmnopqrstuvwxyz012345"
REGION = "us-east-1"
ACCOUNT = "123456789012"
_TEXT_MEDIA_TYPE = re.compile(r"text/.*|application/(json|javascript|xml|.*\+json|.*\+xml)", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Arrival(NamedTuple):
    """Request id and time that AWS assigns to a request; fixed by default, so that sample events are reproducible."""

    request_id: str = "0f4e2c1a-6b7d-4c8e-9a01-23456789abcd"
    milliseconds: int = 1_795_464_000_000

    @classmethod
    def now(cls) -> "Arrival":
        """Make an arrival with a new id and the current time."""
        return cls(str(uuid.uuid4()), time.time_ns() // 1_000_000)

    @property
    def time(self) -> str:
        """Time in log format, e.g. ``23/Nov/2026:20:00:00 +0000``."""
        at = datetime.fromtimestamp(self.milliseconds / 1000, UTC)
        # strftime's %b depends on the locale.
        month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[at.month - 1]
        return f"{at.day:02}/{month}/{at:%Y:%H:%M:%S} +0000"

    @property
    def trace(self) -> str:
        """Value of the header ``x-amzn-trace-id``."""
        return f"Root=1-{self.milliseconds // 1000:08x}-{self.request_id.replace('-', '')[:24]}"


EXAMPLE_ARRIVAL = Arrival()


def function_url_event(request: HttpRequest, arrival: Arrival = EXAMPLE_ARRIVAL) -> dict[str, Any]:
    """Build the event of a Function URL without authentication: payload 2.0."""
    domain = f"{URL_ID}.lambda-url.{REGION}.on.aws"
    context = {"accountId": "anonymous", "apiId": URL_ID, "domainName": domain, "domainPrefix": URL_ID}
    return _payload_2(request, arrival, context, request.path or "/", _headers(request, arrival, domain))


def http_api_event(request: HttpRequest, arrival: Arrival = EXAMPLE_ARRIVAL) -> dict[str, Any]:
    """Build the event of an HTTP API with a single default route: payload 2.0."""
    api, headers = URL_ID[:10], _headers(request, arrival, f"{URL_ID[:10]}.execute-api.{REGION}.amazonaws.com")
    headers.pop("cookie", None)
    domain = f"{api}.execute-api.{REGION}.amazonaws.com"
    context = {"accountId": ACCOUNT, "apiId": api, "domainName": domain, "domainPrefix": api}
    return _payload_2(request, arrival, context, unquote(request.path or "/"), headers)


def rest_event(request: HttpRequest, arrival: Arrival = EXAMPLE_ARRIVAL) -> dict[str, Any]:
    """Build the event of a REST API with a single greedy route: payload 1.0.

    The API's binary media types are ``*/*``, so every body is base64.
    """
    api, stage, path = URL_ID[:10], "Prod", request.path or "/"
    domain = f"{api}.execute-api.{REGION}.amazonaws.com"
    resource = "/" if path == "/" else "/{proxy+}"
    headers = _collect(_sent(request, arrival, domain))
    queries = _collect(parse_qsl(request.query, keep_blank_values=True))
    identity = dict.fromkeys(
        (
            "accessKey",
            "accountId",
            "caller",
            "cognitoAuthenticationProvider",
            "cognitoAuthenticationType",
            "cognitoIdentityId",
            "cognitoIdentityPoolId",
            "principalOrgId",
            "user",
            "userArn",
        )
    )
    return {
        "resource": resource,
        "path": path,
        "httpMethod": request.method,
        "headers": {name: values[-1] for name, values in headers.items()},
        "multiValueHeaders": headers,
        "queryStringParameters": {name: values[-1] for name, values in queries.items()} or None,
        "multiValueQueryStringParameters": queries or None,
        "pathParameters": None if path == "/" else {"proxy": path.lstrip("/")},
        "stageVariables": None,
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": api,
            "domainName": domain,
            "domainPrefix": api,
            "extendedRequestId": arrival.request_id.replace("-", "")[:15] + "=",
            "httpMethod": request.method,
            "identity": {**identity, "sourceIp": request.source_ip, "userAgent": request.header("user-agent")},
            "path": f"/{stage}{path}",
            "protocol": "HTTP/1.1",
            "requestId": arrival.request_id,
            "requestTime": arrival.time,
            "requestTimeEpoch": arrival.milliseconds,
            "resourceId": "123456",
            "resourcePath": resource,
            "stage": stage,
        },
        "body": base64.b64encode(request.body).decode() if request.body else None,
        "isBase64Encoded": bool(request.body),
    }


def _payload_2(
    request: HttpRequest, arrival: Arrival, context: dict[str, str], path: str, headers: dict[str, str]
) -> dict[str, Any]:
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": request.query,
    }
    # A browser sends "a=1; b=2"; AWS splits it.
    sent = [value for name, value in request.headers if name.lower() == "cookie"]
    if cookies := [part.strip() for value in sent for part in value.split(";") if part.strip()]:
        event["cookies"] = cookies
    event["headers"] = headers
    if request.query:
        queries = _collect(parse_qsl(request.query, keep_blank_values=True))
        event["queryStringParameters"] = {name: ",".join(values) for name, values in queries.items()}
    event["requestContext"] = {
        **context,
        "http": {
            "method": request.method,
            "path": path,
            "protocol": "HTTP/1.1",
            "sourceIp": request.source_ip,
            "userAgent": request.header("user-agent"),
        },
        "requestId": arrival.request_id,
        "routeKey": "$default",
        "stage": "$default",
        "time": arrival.time,
        "timeEpoch": arrival.milliseconds,
    }
    text = _as_text(request)
    if request.body:
        event["body"] = base64.b64encode(request.body).decode() if text is None else text
    event["isBase64Encoded"] = bool(request.body) and text is None
    return event


def _as_text(request: HttpRequest) -> str | None:
    kind = request.header("content-type").partition(";")[0].strip()
    if not _TEXT_MEDIA_TYPE.fullmatch(kind) or request.header("content-encoding"):
        return None
    try:
        return request.body.decode()
    except UnicodeDecodeError:
        return None


def _headers(request: HttpRequest, arrival: Arrival, domain: str) -> dict[str, str]:
    lowered = ((name.lower(), value) for name, value in _sent(request, arrival, domain))
    return {name: ("; " if name == "cookie" else ",").join(values) for name, values in _collect(lowered).items()}


def _sent(request: HttpRequest, arrival: Arrival, domain: str) -> list[tuple[str, str]]:
    """Return the headers as sent, plus those that AWS adds or replaces."""
    added = {
        "x-forwarded-for": request.source_ip,
        "x-forwarded-port": str(request.port),
        "x-forwarded-proto": request.scheme,
        "x-amzn-trace-id": request.header("x-amzn-trace-id") or arrival.trace,
    }
    # A function's host is always a name; Mangum cannot read an IPv6 address.
    if request.header("host")[:1] in ("", "["):
        added["host"] = domain
    kept = [pair for pair in request.headers if pair[0].lower() not in HOP_BY_HOP and pair[0].lower() not in added]
    return [*kept, *added.items()]


def _collect(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return values


def _error_response(status: int, text: str, *headers: tuple[str, str]) -> HttpResponse:
    body = json.dumps({"Message": text}, separators=(",", ":")).encode()
    return HttpResponse(status, (("content-type", "application/json"), *headers), body)


REQUEST_TOO_LARGE = _error_response(413, "Request Entity Too Large")
REQUEST_TIMEOUT = _error_response(408, "Request Timeout", ("connection", "close"))
"""AWS documents no response to a body that does not arrive; this one has the shape of the others."""
FUNCTION_FAILED = HttpResponse(502, (("content-type", "text/plain"),), b"Internal Server Error")
"""Response of a Function URL when the function fails, dies, times out or returns an invalid response."""


def response_of(payload: bytes) -> HttpResponse:
    """Convert a function's result to the response that a Function URL sends.

    Parameters
    ----------
    payload
        JSON from the runtime. Without a `statusCode` it is itself the body of a 200.
    """
    if len(payload) > MAX_RESULT_BYTES:
        return FUNCTION_FAILED
    try:
        value = json.loads(payload)
        if not isinstance(value, dict) or "statusCode" not in value:
            return HttpResponse(200, (("content-type", "application/json"),), payload)
        return HttpResponse(_status(value["statusCode"]), _response_headers(value), _response_body(value))
    except (ValueError, TypeError, AttributeError):
        return FUNCTION_FAILED


def _status(value: Any) -> int:
    status = int(value)
    if not 200 <= status <= 599:
        raise ValueError(f"status {status} cannot be sent")
    return status


def _response_headers(value: dict[str, Any]) -> Headers:
    headers = {str(name).lower(): str(content) for name, content in (value.get("headers") or {}).items()}
    headers.setdefault("content-type", "application/json")
    cookies = [("set-cookie", str(cookie)) for cookie in value.get("cookies") or ()]
    pairs = (*((name, content) for name, content in headers.items() if name not in HOP_BY_HOP), *cookies)
    for name, content in pairs:
        if not _HEADER_NAME.fullmatch(name) or any(character in content for character in "\r\n\0"):
            raise ValueError(f"header {name} cannot be sent")
    return pairs


def _response_body(value: dict[str, Any]) -> bytes:
    body = value.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        return json.dumps(body).encode()
    return base64.b64decode(body, validate=True) if value.get("isBase64Encoded") else body.encode()
