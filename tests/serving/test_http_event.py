"""Broken events are refused with the cause; fields that Mangum does not need may be missing."""

import base64
import json

import pytest

from catsdogs_lib.client.lambda_events import function_url_event, http_api_event, rest_event
from catsdogs_lib.client.messages import HttpRequest
from catsdogs_lib.serving import http_event
from catsdogs_lib.serving.problems import ProblemError

UPLOAD = HttpRequest("POST", "/predict", headers=(("Content-Type", "image/png"),), body=bytes(range(256)))


def changed(event, path, value):
    """A copy of an event with one field changed, or removed."""
    event = json.loads(json.dumps(event))
    *parents, name = path.split(".")
    holder = event
    for parent in parents:
        holder = holder[parent]
    if value is REMOVED:
        del holder[name]
    else:
        holder[name] = value
    return event


REMOVED = object()
BROKEN = [
    ("headers", None, "its field headers is null, not an object"),
    ("headers", [], "its field headers is a list, not an object"),
    ("headers", {"a": 1}, "its header 'a' holds a number, not text"),
    ("headers", {"a": None}, "its header 'a' holds null, not text"),
    ("headers", {"a": "\ud800"}, "half a surrogate pair"),
    ("headers", {"\ud800": "a"}, "half a surrogate pair"),
    ("headers", {"host": "a:b:c"}, "its header 'host' is 'a:b:c'"),
    ("headers", {"Host": "a:b"}, "its header 'host' is 'a:b'"),
    ("headers", {"x-forwarded-port": "x"}, "its header 'x-forwarded-port' is 'x'"),
    ("cookies", "a=1", "its field cookies is text, not a list"),
    ("cookies", [1], "its field cookies holds a number, not text"),
    ("rawQueryString", None, "its field rawQueryString is null, not text"),
    ("rawQueryString", "\udfff", "its field rawQueryString holds half a surrogate pair"),
    ("requestContext", None, "its field requestContext is null, not an object"),
    ("requestContext", "x", "its field requestContext is text, not an object"),
    ("requestContext.http", REMOVED, "its field requestContext.http is missing"),
    ("requestContext.http", [], "its field requestContext.http is a list, not an object"),
    ("requestContext.http.method", REMOVED, "its field requestContext.http.method is missing"),
    ("requestContext.http.method", ["POST"], "its field requestContext.http.method is a list, not text"),
    ("requestContext.http.path", None, "its field requestContext.http.path is null, not text"),
    ("requestContext.http.path", "/\ud800", "its field requestContext.http.path holds half a surrogate pair"),
    ("requestContext.http.sourceIp", REMOVED, "its field requestContext.http.sourceIp is missing"),
    ("version", "3.0", "its field version is '3.0', not 1.0 or 2.0"),
    ("version", 2, "its field version is '2', not 1.0 or 2.0"),
    ("version", None, "its field version is 'None', not 1.0 or 2.0"),
    ("body", 5, "its field body is a number, not text"),
    ("body", {"a": 1}, "its field body is an object, not text"),
    ("isBase64Encoded", "false", "its field isBase64Encoded is text, not true or false"),
    ("isBase64Encoded", 1, "its field isBase64Encoded is a number, not true or false"),
]
BROKEN_REST = [
    ("httpMethod", REMOVED, "its field httpMethod is missing"),
    ("path", None, "its field path is null, not text"),
    ("headers", 1, "its field headers is a number, not an object"),
    ("multiValueHeaders", [], "its field multiValueHeaders is a list, not an object"),
    ("multiValueHeaders", {"a": "b"}, "its header 'a' in multiValueHeaders is text, not a list"),
    ("multiValueHeaders", {"a": [1]}, "its header 'a' holds a number, not text"),
    ("multiValueQueryStringParameters", "a", "its field multiValueQueryStringParameters is text, not an object"),
    ("requestContext.identity", None, "its field requestContext.identity is null, not an object"),
]


@pytest.mark.parametrize(
    ("make", "path", "value", "fault"),
    [(function_url_event, *row) for row in BROKEN] + [(rest_event, *row) for row in BROKEN_REST],
)
def test_the_detail_names_the_field_and_the_fault(make, path, value, fault):
    with pytest.raises(ProblemError) as caught:
        http_event.read(changed(make(UPLOAD), path, value))
    assert caught.value.kind.name == "broken-event"
    assert fault in caught.value.detail


def test_an_event_of_no_payload_is_told_what_is_answered():
    with pytest.raises(ProblemError, match="neither 'version' .* nor 'resource' .* HTTP events") as caught:
        http_event.read(changed(function_url_event(UPLOAD), "version", REMOVED))
    assert caught.value.kind.name == "malformed-request"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("hello, world", "it holds ','"),
        ("\ufffdPNG", "it holds '\ufffd'"),
        ("aGVsbG8-", "it holds '-'"),
        ("aGVsbG8", "it is cut off, or its padding is wrong"),
        ("aGVs=bG8", "it is cut off, or its padding is wrong"),
        ("data:image/png;base64,aGVsbG8=", "it holds ':'"),
    ],
)
@pytest.mark.parametrize("make", [function_url_event, http_api_event, rest_event])
def test_broken_base64_is_named(make, body, reason):
    with pytest.raises(ProblemError) as caught:
        http_event.read({**make(UPLOAD), "body": body})
    assert caught.value.kind.name == "broken-base64"
    assert f"the body's base64 is broken ({reason})" in caught.value.detail


@pytest.mark.parametrize("make", [function_url_event, http_api_event, rest_event])
def test_bodies_are_decoded(make):
    event = make(UPLOAD)
    assert http_event.read(event)["body"] == UPLOAD.body
    in_lines = {**event, "body": base64.encodebytes(UPLOAD.body).decode()}
    assert http_event.read(in_lines)["body"] == UPLOAD.body
    text = {**event, "body": "\ufffdä", "isBase64Encoded": False}
    assert http_event.read(text)["body"] == "\ufffdä".encode()


@pytest.mark.parametrize(
    ("make", "path", "value"),
    [
        (rest_event, "headers", None),
        (rest_event, "multiValueHeaders", None),
        (rest_event, "isBase64Encoded", REMOVED),
        (function_url_event, "headers", REMOVED),
        (function_url_event, "rawPath", REMOVED),
        (function_url_event, "rawQueryString", REMOVED),
        (function_url_event, "requestContext.requestId", REMOVED),
    ],
)
def test_what_is_not_needed_may_be_missing(make, path, value):
    http_event.read(changed(make(HttpRequest("GET", "/health")), path, value))
