"""HTTP events of Lambda (payloads 1.0 and 2.0): checked, and their bodies decoded, before Mangum reads them."""

import base64
import re
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, NamedTuple

from catsdogs_lib.serving import problems
from catsdogs_lib.serving.problems import ProblemError

UNKNOWN_EVENT = "this function answers HTTP events (Function URL, HTTP API, REST API) and warm-up pings; call its URL"
_TYPE_NAMES = {
    str: "text",
    dict: "an object",
    list: "a list",
    bool: "true or false",
    int: "a number",
    float: "a number",
    NoneType: "null",
}


class Field(NamedTuple):
    """A field of an event: its path, the types that it may have, and whether it must be there."""

    path: str
    types: tuple[type, ...]
    required: bool = False


_BODY_FIELDS = (Field("body", (str, NoneType)), Field("isBase64Encoded", (bool, NoneType)))
PAYLOAD_1 = (
    Field("httpMethod", (str,), True),
    Field("path", (str,), True),
    Field("requestContext.identity", (dict,)),
    Field("headers", (dict, NoneType)),
    Field("multiValueHeaders", (dict, NoneType)),
    Field("queryStringParameters", (dict, NoneType)),
    Field("multiValueQueryStringParameters", (dict, NoneType)),
    *_BODY_FIELDS,
)
"""Fields that Mangum reads; the console's test sends null for headers."""
PAYLOAD_2 = (
    Field("requestContext.http", (dict,), True),
    Field("requestContext.http.method", (str,), True),
    Field("requestContext.http.path", (str,), True),
    Field("requestContext.http.sourceIp", (str,), True),
    Field("rawQueryString", (str,)),
    Field("headers", (dict,)),
    Field("cookies", (list, NoneType)),
    *_BODY_FIELDS,
)


def read(event: Mapping[str, Any]) -> dict[str, Any]:
    """Check an event, and decode its body.

    Parameters
    ----------
    event
        An event with a request context.

    Returns
    -------
    dict
        The event with its body as bytes, which Mangum passes on unchanged.

    Raises
    ------
    ProblemError
        The event is broken; the detail names the field and the fault.
    """
    context = event["requestContext"]
    if not isinstance(context, dict):
        raise _broken(f"its field requestContext is {_name(context)}, not an object")
    if "version" not in event and "resource" not in event and "elb" not in context:
        raise ProblemError(
            problems.MALFORMED,
            f"the event has neither 'version' (payload 2.0) nor 'resource' (payload 1.0); {UNKNOWN_EVENT}",
        )
    version = event.get("version", "1.0")
    if version not in ("1.0", "2.0"):
        raise _broken(f"its field version is {str(version)[:20]!r}, not 1.0 or 2.0")
    for field in PAYLOAD_2 if version == "2.0" else PAYLOAD_1:
        _check(event, field)
    _check_headers(event)
    _check_texts("field cookies", event.get("cookies") or ())
    return {**event, "body": _body(event), "isBase64Encoded": False}


def _check(event: Mapping[str, Any], field: Field) -> None:
    *parents, name = field.path.split(".")
    holder: Any = event
    for parent in parents:
        holder = holder[parent]
    if name not in holder:
        if field.required:
            raise _broken(f"its field {field.path} is missing")
    elif not isinstance(value := holder[name], field.types):
        raise _broken(f"its field {field.path} is {_name(value)}, not {_TYPE_NAMES[field.types[0]]}")
    elif isinstance(value, str) and name != "body":
        _check_texts(f"field {field.path}", (value,))


def _check_headers(event: Mapping[str, Any]) -> None:
    headers = event.get("headers") or {}
    for name, value in headers.items():
        _check_texts(f"header {name[:80]!r}", (value, name))
    for name, values in (event.get("multiValueHeaders") or {}).items():
        if not isinstance(values, list):
            raise _broken(f"its header {name[:80]!r} in multiValueHeaders is {_name(values)}, not a list")
        _check_texts(f"header {name[:80]!r}", (*values, name))
    sent = {name.lower(): value for name, value in headers.items()}
    # Mangum builds the server's address from these.
    if not re.fullmatch(r"[^:]*(:[0-9]{1,5})?", host := sent.get("host", "")):
        raise _broken(f"its header 'host' is {host[:80]!r}, not a name with an optional port")
    if not re.fullmatch("[0-9]{1,5}", port := sent.get("x-forwarded-port", "443")):
        raise _broken(f"its header 'x-forwarded-port' is {port[:80]!r}, not a number")


def _check_texts(name: str, values: Iterable[Any]) -> None:
    for value in values:
        if not isinstance(value, str):
            raise _broken(f"its {name} holds {_name(value)}, not text")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _broken(f"its {name} holds half a surrogate pair, which is not a character") from None


def _body(event: Mapping[str, Any]) -> bytes:
    body: str = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        _check_texts("field body", (body,))
        return body.encode()
    try:
        return base64.b64decode(body, validate=True)
    except ValueError:
        # Command-line tools wrap base64 into lines.
        body = "".join(body.split())
    try:
        return base64.b64decode(body, validate=True)
    except ValueError:
        invalid = re.search("[^A-Za-z0-9+/=]", body)
        reason = f"it holds {invalid[0]!r}" if invalid else "it is cut off, or its padding is wrong"
        raise ProblemError(
            problems.BROKEN_BASE64,
            f"the body's base64 is broken ({reason}); encode the whole body, or set isBase64Encoded to false for text",
        ) from None


def _name(value: Any) -> str:
    return _TYPE_NAMES.get(type(value), type(value).__name__)


def _broken(fault: str) -> ProblemError:
    return ProblemError(
        problems.BROKEN_EVENT, f"the event is broken: {fault}; send the payload that AWS documents for HTTP events"
    )
