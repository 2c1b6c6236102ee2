import base64
import json

import pytest
from mangum import Mangum
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from catsdogs_lib.client.lambda_events import (
    FUNCTION_FAILED,
    MAX_RESULT_BYTES,
    Arrival,
    function_url_event,
    http_api_event,
    response_of,
    rest_event,
)
from catsdogs_lib.client.messages import HttpRequest

DOCUMENTED = HttpRequest(
    "POST",
    "/my/path",
    "parameter1=value1&parameter1=value2&parameter2=value",
    (
        ("Header1", "value1"),
        ("Header2", "value1"),
        ("header2", "value2"),
        ("Cookie", "cookie1; cookie2"),
        ("User-Agent", "agent"),
        ("Host", "127.0.0.1:8001"),
        ("Content-Type", "text/plain"),
        ("Connection", "keep-alive"),
    ),
    b"Hello from client!",
    "123.123.123.123",
)
ARRIVAL = Arrival("0a1b2c3d-0000-4000-8000-000000000000", 1_583_348_638_390)


def test_a_function_url_event_is_the_documented_one():
    event = function_url_event(DOCUMENTED, ARRIVAL)
    url_id = event["requestContext"]["apiId"]
    # "Invoking Lambda function URLs", request payload format; what Function URLs do not use is left out.
    assert event == {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/my/path",
        "rawQueryString": "parameter1=value1&parameter1=value2&parameter2=value",
        "cookies": ["cookie1", "cookie2"],
        "headers": {
            "header1": "value1",
            "header2": "value1,value2",
            "cookie": "cookie1; cookie2",
            "user-agent": "agent",
            "host": "127.0.0.1:8001",
            "content-type": "text/plain",
            "x-forwarded-for": "123.123.123.123",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
            "x-amzn-trace-id": "Root=1-5e5ffb9e-0a1b2c3d0000400080000000",
        },
        "queryStringParameters": {"parameter1": "value1,value2", "parameter2": "value"},
        "requestContext": {
            "accountId": "anonymous",
            "apiId": url_id,
            "domainName": f"{url_id}.lambda-url.us-east-1.on.aws",
            "domainPrefix": url_id,
            "http": {
                "method": "POST",
                "path": "/my/path",
                "protocol": "HTTP/1.1",
                "sourceIp": "123.123.123.123",
                "userAgent": "agent",
            },
            "requestId": "0a1b2c3d-0000-4000-8000-000000000000",
            "routeKey": "$default",
            "stage": "$default",
            "time": "04/Mar/2020:19:03:58 +0000",
            "timeEpoch": 1583348638390,
        },
        "body": "Hello from client!",
        "isBase64Encoded": False,
    }
    assert len(url_id) == 32


def test_what_is_not_sent_is_not_in_the_event():
    event = function_url_event(HttpRequest("GET", "/health"))
    assert {"body", "cookies", "queryStringParameters"}.isdisjoint(event)
    assert event["isBase64Encoded"] is False
    assert event["rawQueryString"] == ""
    assert event["headers"]["host"] == event["requestContext"]["domainName"]


@pytest.mark.parametrize("host", ["", "[::1]:8001"])
def test_the_host_is_always_a_name(host):
    event = function_url_event(HttpRequest("GET", headers=(("host", host),)))
    assert event["headers"]["host"] == event["requestContext"]["domainName"]


def test_an_http_api_takes_the_cookie_header_out_and_decodes_the_path():
    request = HttpRequest("GET", "/caf%C3%A9/a%2Fb", "q=%20x", (("cookie", "a=1; b=2"),))
    event = http_api_event(request)
    assert event["cookies"] == ["a=1", "b=2"]
    assert "cookie" not in event["headers"]
    assert event["rawPath"] == event["requestContext"]["http"]["path"] == "/café/a/b"
    assert event["rawQueryString"] == "q=%20x"
    assert event["requestContext"]["domainName"].endswith(".execute-api.us-east-1.amazonaws.com")
    assert event["requestContext"]["accountId"].isdigit()
    assert function_url_event(request)["rawPath"] == "/caf%C3%A9/a%2Fb"


def test_a_rest_event_has_every_documented_field():
    event = rest_event(DOCUMENTED, ARRIVAL)
    assert set(event) == {
        "resource",
        "path",
        "httpMethod",
        "headers",
        "multiValueHeaders",
        "queryStringParameters",
        "multiValueQueryStringParameters",
        "pathParameters",
        "stageVariables",
        "requestContext",
        "body",
        "isBase64Encoded",
    }
    assert (event["resource"], event["path"], event["httpMethod"]) == ("/{proxy+}", "/my/path", "POST")
    assert event["pathParameters"] == {"proxy": "my/path"}
    assert event["headers"]["Header1"] == "value1"
    assert event["multiValueHeaders"]["Header1"] == ["value1"]
    assert event["queryStringParameters"] == {"parameter1": "value2", "parameter2": "value"}
    assert event["multiValueQueryStringParameters"] == {"parameter1": ["value1", "value2"], "parameter2": ["value"]}
    assert base64.b64decode(event["body"]) == b"Hello from client!"
    context = event["requestContext"]
    assert context["path"] == "/Prod/my/path"
    assert context["requestTime"] == "04/Mar/2020:19:03:58 +0000"
    assert context["identity"]["sourceIp"] == "123.123.123.123"
    assert "version" not in event


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("application/json", b'{"a": 1}', True),
        ("application/json; charset=utf-8", "{'ä'}".encode(), True),
        ("text/html", b"<p>", True),
        ("application/problem+json", b"{}", True),
        ("text/plain", b"\xff\xfe", False),
        ("image/jpeg", b"plain", False),
        ("multipart/form-data; boundary=x", b"--x--", False),
        ("application/x-www-form-urlencoded", b"a=1", False),
        ("", b"plain", False),
    ],
)
def test_text_goes_as_text_and_all_else_as_base64(kind, body, text):
    event = function_url_event(HttpRequest("POST", headers=(("Content-Type", kind),) if kind else (), body=body))
    assert event["isBase64Encoded"] is not text
    assert (event["body"].encode() if text else base64.b64decode(event["body"])) == body


def test_a_compressed_text_is_not_text():
    headers = (("content-type", "text/plain"), ("content-encoding", "gzip"))
    assert function_url_event(HttpRequest("POST", headers=headers, body=b"x"))["isBase64Encoded"]


@pytest.mark.parametrize("make", [function_url_event, http_api_event, rest_event])
def test_mangum_hears_the_request_that_was_sent(make):
    async def echo(request):
        body = await request.body()
        return JSONResponse(
            {
                "method": request.method,
                "path": request.url.path,
                "query": request.query_params.multi_items(),
                "cookies": request.cookies,
                "twice": request.headers["x-twice"],
                "body": body.hex(),
                "client": request.client.host,
            }
        )

    app = Mangum(Starlette(routes=[Route("/{path:path}", echo, methods=["POST"])]), lifespan="off")
    headers = (("X-Twice", "a"), ("X-Twice", "b"), ("Cookie", "one=1; two=2"), ("Content-Type", "image/png"))
    request = HttpRequest("POST", "/predict", "a=1&a=2&b=%26", headers, bytes(range(256)), "10.0.0.7")
    answer = response_of(json.dumps(app(make(request), None)).encode())
    heard = json.loads(answer.body)
    assert answer.status == 200
    assert (heard["method"], heard["path"]) == ("POST", "/predict")
    assert sorted(heard["query"]) == [["a", "1"], ["a", "2"], ["b", "&"]]
    assert heard["cookies"] == {"one": "1", "two": "2"}
    assert heard["twice"].replace(" ", "") == "a,b"
    assert bytes.fromhex(heard["body"]) == bytes(range(256))
    assert heard["client"] == "10.0.0.7"


@pytest.mark.parametrize(
    ("payload", "status", "kind", "body"),
    [
        # "Response payload format": what Lambda infers.
        (b'"Hello, world!"', 200, "application/json", b'"Hello, world!"'),
        (b'{"message": "Hello, world!"}', 200, "application/json", b'{"message": "Hello, world!"}'),
        (b"null", 200, "application/json", b"null"),
        (b'{"statusCode": 201, "body": "x"}', 201, "application/json", b"x"),
        (b'{"statusCode": 204}', 204, "application/json", b""),
        (b'{"statusCode": 200, "headers": {"Content-Type": "text/html"}, "body": "<p>"}', 200, "text/html", b"<p>"),
        (b'{"statusCode": 200, "body": "AAH/", "isBase64Encoded": true}', 200, "application/json", b"\0\1\xff"),
        (b'{"statusCode": 200, "body": {"a": 1}}', 200, "application/json", b'{"a": 1}'),
    ],
)
def test_what_a_function_returns_becomes_a_response(payload, status, kind, body):
    response = response_of(payload)
    assert (response.status, response.header("content-type"), response.body) == (status, kind, body)


def test_cookies_of_a_function_become_set_cookie_headers():
    value = {"statusCode": 200, "headers": {"My-Header": "x"}, "cookies": ["a=1; Max-Age=5", "b=2"], "body": ""}
    headers = response_of(json.dumps(value).encode()).headers
    assert [content for name, content in headers if name == "set-cookie"] == ["a=1; Max-Age=5", "b=2"]
    assert ("my-header", "x") in headers


@pytest.mark.parametrize(
    "payload",
    [
        b"{not json",
        b'{"statusCode": "many"}',
        b'{"statusCode": 42}',
        b'{"statusCode": 200, "body": "no base64!", "isBase64Encoded": true}',
        b'{"statusCode": 200, "headers": {"x": "a\\r\\nset-cookie: stolen=1"}}',
        b'{"statusCode": 200, "headers": "none"}',
        json.dumps({"statusCode": 200, "body": "x" * MAX_RESULT_BYTES}).encode(),
    ],
)
def test_what_cannot_be_sent_is_a_502(payload):
    assert response_of(payload) is FUNCTION_FAILED


def test_the_time_is_written_as_aws_writes_it():
    assert Arrival("x", 1_795_464_000_000).time == "23/Nov/2026:20:00:00 +0000"
