"""HTTP requests as the events that AWS makes of them, and what a function returns as an HTTP response.

Payload 2.0 of Function URLs and HTTP APIs, payload 1.0 of REST APIs. Where AWS's documentation is silent, real
events decide: a Function URL keeps the path as it was sent, an HTTP API decodes it; a Function URL leaves the header
``cookie`` beside the list of cookies, an HTTP API takes it out.
"""

import base64
import json
import re
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

Pairs = tuple[tuple[str, str], ...]
"""Headers in their order; a name may come more than once."""

REQUEST_BYTES = 6 * 2**20
"""Most bytes that the JSON of an event may have; Lambda refuses more."""
RESPONSE_BYTES = 6 * 2**20 + 100
"""Most bytes that the JSON of a function's answer may have (the figure in Lambda's own error message)."""
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "expect",
    }
)
"""Headers that concern one connection and go no further."""

URL_ID = "abcdefghijklmnopqrstuvwxyz012345"
REGION = "us-east-1"
ACCOUNT = "123456789012"
_TEXT = re.compile(r"text/.*|application/(json|javascript|xml|.*\+json|.*\+xml)", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class _Headed:
    headers: Pairs

    def header(self, name: str) -> str:
        """Value of a header, given in lower case; repeated ones joined by commas, "" where there is none."""
        return ",".join(value for key, value in self.headers if key.lower() == name)


@dataclass(frozen=True)
class HttpRequest(_Headed):
    """A request as it came over the wire.

    Parameters
    ----------
    method
        E.g. ``"POST"``.
    path, query
        As they were sent, percent-encoded; the query without its question mark.
    headers
        Names and values in their order.
    body
        The bytes, whole.
    source_ip
        Who sent it.
    scheme, port
        How it came.
    """

    method: str
    path: str = "/"
    query: str = ""
    headers: Pairs = ()
    body: bytes = b""
    source_ip: str = "127.0.0.1"
    scheme: str = "https"
    port: int = 443


@dataclass(frozen=True)
class HttpResponse(_Headed):
    """A response to be sent; the length of the body is not yet among the headers."""

    status: int
    headers: Pairs
    body: bytes


class Arrival(NamedTuple):
    """What AWS notes when a request arrives; without it sample events would differ each time they are made."""

    request_id: str = "0f4e2c1a-6b7d-4c8e-9a01-23456789abcd"
    milliseconds: int = 1_795_464_000_000

    @classmethod
    def now(cls) -> "Arrival":
        """A new id at this moment."""
        return cls(str(uuid.uuid4()), time.time_ns() // 1_000_000)

    @property
    def time(self) -> str:
        """E.g. ``23/Nov/2026:20:00:00 +0000``."""
        at = datetime.fromtimestamp(self.milliseconds / 1000, UTC)
        # Not strftime's %b: that speaks the language of the machine.
        month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[at.month - 1]
        return f"{at.day:02}/{month}/{at:%Y:%H:%M:%S} +0000"

    @property
    def trace(self) -> str:
        """The value of ``x-amzn-trace-id``."""
        return f"Root=1-{self.milliseconds // 1000:08x}-{self.request_id.replace('-', '')[:24]}"


EXAMPLE = Arrival()


def function_url_event(request: HttpRequest, arrival: Arrival = EXAMPLE) -> dict[str, Any]:
    """Make the event that a Function URL without authentication sends: payload 2.0."""
    domain = f"{URL_ID}.lambda-url.{REGION}.on.aws"
    context = {"accountId": "anonymous", "apiId": URL_ID, "domainName": domain, "domainPrefix": URL_ID}
    return _payload_2(request, arrival, context, request.path or "/", _headers(request, arrival, domain))


def http_api_event(request: HttpRequest, arrival: Arrival = EXAMPLE) -> dict[str, Any]:
    """Make the event that an HTTP API with one default route sends: payload 2.0."""
    api, headers = URL_ID[:10], _headers(request, arrival, f"{URL_ID[:10]}.execute-api.{REGION}.amazonaws.com")
    headers.pop("cookie", None)
    domain = f"{api}.execute-api.{REGION}.amazonaws.com"
    context = {"accountId": ACCOUNT, "apiId": api, "domainName": domain, "domainPrefix": api}
    return _payload_2(request, arrival, context, unquote(request.path or "/"), headers)


def rest_event(request: HttpRequest, arrival: Arrival = EXAMPLE) -> dict[str, Any]:
    """Make the event that a REST API with one greedy route sends: payload 1.0.

    Its binary media types are ``*/*``, so every body is base64.
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
    # A browser sends "a=1; b=2"; AWS lists each.
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
    if not _TEXT.fullmatch(kind) or request.header("content-encoding"):
        return None
    try:
        return request.body.decode()
    except UnicodeDecodeError:
        return None


def _headers(request: HttpRequest, arrival: Arrival, domain: str) -> dict[str, str]:
    lowered = ((name.lower(), value) for name, value in _sent(request, arrival, domain))
    return {name: ("; " if name == "cookie" else ",").join(values) for name, values in _collect(lowered).items()}


def _sent(request: HttpRequest, arrival: Arrival, domain: str) -> list[tuple[str, str]]:
    """Headers as sent, with those that AWS adds or puts in their place."""
    added = {
        "x-forwarded-for": request.source_ip,
        "x-forwarded-port": str(request.port),
        "x-forwarded-proto": request.scheme,
        "x-amzn-trace-id": request.header("x-amzn-trace-id") or arrival.trace,
    }
    if not request.header("host"):
        added["host"] = domain
    kept = [pair for pair in request.headers if pair[0].lower() not in HOP_BY_HOP and pair[0].lower() not in added]
    return [*kept, *added.items()]


def _collect(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def message(status: int, text: str, *headers: tuple[str, str]) -> HttpResponse:
    """Answer as AWS's front does by itself."""
    body = json.dumps({"Message": text}, separators=(",", ":")).encode()
    return HttpResponse(status, (("content-type", "application/json"), *headers), body)


TOO_LARGE = message(413, "Request Entity Too Large")
TOO_SLOW = message(408, "Request Timeout", ("connection", "close"))
"""AWS documents none for a body that does not arrive; this has the shape of its others."""
FUNCTION_FAILED = HttpResponse(502, (("content-type", "text/plain"),), b"Internal Server Error")
"""What a Function URL answers when the function fails, dies, takes too long or returns what cannot be sent."""


def response_of(payload: bytes) -> HttpResponse:
    """Turn what a function returned into the response that a Function URL sends.

    Parameters
    ----------
    payload
        JSON as the runtime hands it back. Without a `statusCode` it is itself the body of a 200.
    """
    if len(payload) > RESPONSE_BYTES:
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


def _response_headers(value: dict[str, Any]) -> Pairs:
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
