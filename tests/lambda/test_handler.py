"""The handler in this process: every kind of event, what it logs and counts."""

import asyncio
import base64
import contextlib
import importlib.util
import json
import logging
import re
import sys
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urljoin

import pytest

from catsdogs_lib.client.lambda_events import function_url_event, http_api_event, rest_event
from catsdogs_lib.client.messages import HttpRequest

ROOT = Path(__file__).parents[2]
CONTEXT = SimpleNamespace(
    function_name="catsdogs",
    memory_limit_in_mb=1769,
    invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:catsdogs",
    aws_request_id="11111111-2222-3333-4444-555555555555",
)


def loaded(monkeypatch, **environment):
    """The module, loaded anew as in a fresh container."""
    for name, value in {"CATSDOGS_BUNDLE": str(ROOT / "models/reference"), **environment}.items():
        monkeypatch.setenv(name, value)
    from aws_lambda_powertools.metrics.provider import cold_start

    monkeypatch.setattr(cold_start, "is_cold_start", True)
    spec = importlib.util.spec_from_file_location("handler", ROOT / "lambda/handler.py")
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _own_logger_and_loop():
    """Powertools keeps a test's stdout on its logger, Mangum never closes its event loop: each test has new ones."""
    logging.Logger.manager.loggerDict.pop("catsdogs", None)
    with warnings.catch_warnings(), contextlib.suppress(RuntimeError):
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.get_event_loop().close()  # what an earlier test or a plugin has left
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()
    logging.Logger.manager.loggerDict.pop("catsdogs", None)


@pytest.fixture
def function(monkeypatch):
    module = loaded(monkeypatch)
    yield module
    module.metrics.clear_metrics()


@pytest.fixture
def golden(function):
    return function.model.classifier.bundle.description.golden[0]


def ask(function, event):
    """Call the handler, with its log going to where this test listens."""
    function.logger.registered_handler.setStream(sys.stdout)
    return function.handler(event, CONTEXT)


def upload(data, content_type="image/png", **headers):
    pairs = (("Content-Type", content_type), *headers.items())
    return HttpRequest("POST", "/predict", headers=pairs, body=data)


def lines(capsys):
    """What was written: log lines, and metrics."""
    written = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [line for line in written if "_aws" not in line], [line for line in written if "_aws" in line]


@pytest.mark.parametrize("make", [function_url_event, http_api_event, rest_event])
def test_each_kind_of_event_gets_its_golden_answer(function, golden, make):
    response = ask(function, make(upload(golden.data)))
    assert response["statusCode"] == 200
    assert response["isBase64Encoded"] is False
    assert json.loads(response["body"])["probabilities"] == pytest.approx(golden.probabilities, abs=1e-3)


def test_no_thread_is_woken_for_a_photo(function, golden):
    before = set(threading.enumerate())
    ask(function, function_url_event(upload(golden.data)))
    assert [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("photo")] == []


@pytest.mark.parametrize("make", [function_url_event, http_api_event, rest_event])
def test_a_problem_is_text_of_its_own_type(function, make):
    response = ask(function, make(upload(b"no photo")))
    assert response["statusCode"] == 415
    headers = response.get("headers") or {}
    headers |= {name: value[0] for name, value in response.get("multiValueHeaders", {}).items()}
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(response["body"])["type"] == "/problems/not-a-photo"


@pytest.mark.parametrize("path", sorted((ROOT / "lambda/events").glob("*.json")), ids=lambda path: path.stem)
def test_each_sample_event_is_answered(function, path):
    response = ask(function, json.loads(path.read_text()))
    if path.stem.startswith("warm_up"):
        assert response == {"warm": True, "model_version": function.model.classifier.bundle.version}
    else:
        expected = {
            "function_url_cut_off": 422,
            "function_url_no_photo": 400,
            "function_url_text_file": 415,
            "get_nothing": 404,
            # For the other functions of the image.
            "map-batch": 400,
            "sqs-s3-batch": 400,
        }
        assert response["statusCode"] == expected.get(path.stem, 200)


@pytest.mark.parametrize(
    "event", [{}, {"Records": []}, [], None, {"requestContext": {}}, {"requestContext": {"http": {}}}]
)
def test_what_is_no_request_is_told_so(function, event):
    response = ask(function, event)
    assert response["statusCode"] == 400
    assert "HTTP events" in json.loads(response["body"])["detail"]


@pytest.mark.parametrize(
    ("make", "changes", "kind", "fault"),
    [
        (function_url_event, {"headers": None}, "broken-event", "its field headers is null"),
        (rest_event, {"requestContext": 5}, "broken-event", "its field requestContext is a number"),
        # Nothing foresees this one.
        (rest_event, {"multiValueQueryStringParameters": {"a": ["\ud800"]}}, "broken-event", "the log of the service"),
        (http_api_event, {"body": "hello, world"}, "broken-base64", "the body's base64 is broken (it holds ',')"),
    ],
)
def test_a_broken_event_gets_its_cause(function, golden, capsys, make, changes, kind, fault):
    response = ask(function, {**make(upload(golden.data)), **changes})
    document = json.loads(response["body"])
    assert (response["statusCode"], document["type"]) == (400, f"/problems/{kind}")
    assert fault in document["detail"]
    assert response["headers"]["x-request-id"] == document["request_id"]
    logged, metrics = lines(capsys)
    assert logged[-1]["problem"] == kind
    assert [blob["UnknownEvents"] for blob in metrics if "UnknownEvents" in blob] == [[1.0]]


def test_a_request_id_that_is_no_text_is_not_taken_over(function):
    event = function_url_event(HttpRequest("GET", "/health"))
    event["requestContext"]["requestId"] = 5
    response = ask(function, event)
    assert response["statusCode"] == 200
    assert re.fullmatch("[0-9a-f]{32}", response["headers"]["x-request-id"])


def test_a_body_that_a_gateway_turned_into_text_is_no_photo(function, golden):
    event = {**function_url_event(upload(golden.data)), "body": golden.data.decode(errors="replace")}
    response = ask(function, {**event, "isBase64Encoded": False})
    assert (response["statusCode"], json.loads(response["body"])["type"]) == (415, "/problems/body-as-text")


def http_api_event_1(request):
    """The event of an HTTP API with payload 1.0."""
    event = rest_event(request)
    return {**event, "version": "1.0", "requestContext": {**event["requestContext"], "path": request.path}}


@pytest.mark.parametrize(
    ("make", "prefix"),
    [
        (http_api_event, "/prod"),
        (http_api_event_1, "/prod"),
        (rest_event, "/api/v1"),
        (function_url_event, "/prod"),
    ],
)
def test_a_stage_or_base_path_is_taken_off(monkeypatch, golden, make, prefix):
    function = loaded(monkeypatch, CATSDOGS_BASE_PATH=prefix)

    def get(path, method="GET"):
        headers = (("Accept", "text/html"),)
        return ask(function, make(HttpRequest(method, path, headers=headers)))

    photo = HttpRequest("POST", f"{prefix}/predict", headers=(("Content-Type", "image/png"),), body=golden.data)
    assert ask(function, make(photo))["statusCode"] == 200
    page = get(f"{prefix}/")
    assert "<title>" in page["body"]
    assert "<title>" in get(f"{prefix}/docs")["body"]
    # The links of the page are relative, and lead below the prefix.
    links = re.findall('(?:href|src)="([^"]+)"', page["body"])
    assert len(links) > 5
    assert {get(urljoin(f"{prefix}/", link))["statusCode"] for link in links} == {200}
    # Relative to the prefix itself they would not.
    for method in ("GET", "HEAD"):
        response = get(prefix, method)
        assert (response["statusCode"], response["headers"]["location"]) == (308, f"{prefix}/")
    assert get("/health")["statusCode"] == 200
    assert get(f"{prefix}uction/health")["statusCode"] == 404
    assert get(f"{prefix}health")["statusCode"] == 404


def test_the_function_url_alone_answers_for_cors(monkeypatch):
    function = loaded(monkeypatch, CATSDOGS_CORS_ORIGINS="https://example.org")
    response = ask(
        function, function_url_event(HttpRequest("GET", "/health", headers=(("Origin", "https://example.org"),)))
    )
    assert response["statusCode"] == 200
    assert not [name for name in response["headers"] if name.startswith("access-control-")]


def test_a_client_s_request_id_is_beside_aws_s(function, capsys):
    event = function_url_event(HttpRequest("GET", "/nowhere", headers=(("X-Request-Id", "mine"),)))
    response = ask(function, event)
    assert response["headers"]["x-request-id"] == event["requestContext"]["requestId"]
    (line,), _ = lines(capsys)
    assert line["client_request_id"] == "mine"
    assert line["request_id"] == event["requestContext"]["requestId"]


def test_the_log_line_names_the_request_and_holds_no_photo(function, golden, capsys):
    event = function_url_event(upload(golden.data))
    body = json.loads(ask(function, event)["body"])
    (line,), _ = lines(capsys)
    assert line["correlation_id"] == line["request_id"] == event["requestContext"]["requestId"]
    assert line["function_request_id"] == CONTEXT.aws_request_id
    assert line["prediction"] == body["prediction"]
    assert line["prediction_id"] == body["prediction_id"]
    assert {"timestamp", "confidence", "latency_seconds", "model_version", "cold_start"} <= set(line)
    assert base64.b64encode(golden.data[:30]).decode() not in json.dumps(line)


def test_the_file_name_of_a_form_is_in_the_log(function, golden, capsys):
    head = b'--b\r\ncontent-disposition: form-data; name="file"; filename="my cat.png"\r\n\r\n'
    form = head + golden.data + b"\r\n--b--\r\n"
    ask(function, function_url_event(upload(form, "multipart/form-data; boundary=b")))
    (line,), _ = lines(capsys)
    assert line["filename"] == "my cat.png"
    assert line["status"] == 200


def test_metrics_have_few_dimensions_and_the_cold_start_comes_once(monkeypatch, golden, capsys):
    function = loaded(monkeypatch, AWS_LAMBDA_FUNCTION_VERSION="7")
    for data in (golden.data, b"no photo"):
        ask(function, function_url_event(upload(data)))
    _, metrics = lines(capsys)
    named = {}
    for blob in metrics:
        (directive,) = blob["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == "Catsdogs"
        for metric in directive["Metrics"]:
            dimensions = {frozenset(names) for names in directive["Dimensions"]}
            named.setdefault(metric["Name"], []).append((dimensions, blob))
    request, whole = frozenset({"service", "route", "model_version"}), frozenset({"service"})
    expected = {
        "Requests": {request},
        "Latency": {request},
        "Problems": {request},
        "UnhandledError": {request},
        "PredictionsByClass": {whole | {"class_name"}},
        "ProblemsByType": {whole | {"problem"}},
        "Confidence": {whole, whole | {"function_version"}},
        "ClassPosition": {whole, whole | {"function_version"}},
        "Unsure": {whole, whole | {"function_version"}},
        "ColdStart": {whole | {"function_name"}},
    }
    assert {name: dimensions for name, found in named.items() for dimensions, _ in found} == expected
    assert [blob["Requests"] for _, blob in named["Requests"]] == [[1.0], [1.0]]
    assert [blob["Problems"] for _, blob in named["Problems"]] == [[0.0], [1.0]]
    assert [blob["class_name"] for _, blob in named["PredictionsByClass"]] == ["cat"]
    assert [blob["problem"] for _, blob in named["ProblemsByType"]] == ["not-a-photo"]
    ((_, compared),) = named["Confidence"]
    assert compared["Confidence"] == [pytest.approx(max(golden.probabilities.values()), abs=1e-3)]
    unsure = float(not function.model.classifier.predict(golden.data).confident)
    assert (compared["ClassPosition"], compared["Unsure"], compared["function_version"]) == ([0.0], [unsure], "7")
    assert len(named["ColdStart"]) == 1
    function.metrics.clear_metrics()


def test_the_unforeseen_is_counted(function, golden, capsys, monkeypatch):
    def fail(_):
        raise RuntimeError("secret")

    monkeypatch.setattr(function.model.classifier, "prepare", fail)
    response = ask(function, function_url_event(upload(golden.data)))
    assert response["statusCode"] == 500
    assert "secret" not in response["body"]
    (line,), metrics = lines(capsys)
    assert "secret" in line["exception"]
    assert line["level"] == "ERROR"
    assert [blob["UnhandledError"] for blob in metrics if "UnhandledError" in blob] == [[1.0]]


def test_without_a_bundle_the_sender_hears_why(monkeypatch, tmp_path, capsys):
    module = loaded(monkeypatch, CATSDOGS_BUNDLE=str(tmp_path))
    response = ask(module, function_url_event(HttpRequest("GET", "/ready")))
    assert response["statusCode"] == 503
    assert "log of the service" in json.loads(response["body"])["detail"]
    assert str(tmp_path) not in response["body"]
    assert ask(module, function_url_event(HttpRequest("GET", "/health")))["statusCode"] == 200
    logged = json.loads(capsys.readouterr().out.splitlines()[0])
    assert str(tmp_path) in logged["reason"]


def test_metrics_say_that_cloudwatch_has_them(function):
    response = ask(function, function_url_event(HttpRequest("GET", "/metrics")))
    assert "CloudWatch" in response["body"]
    assert all(line.startswith("#") for line in response["body"].splitlines())


def test_traces_are_taken_only_where_there_is_a_daemon(monkeypatch, golden):
    for name in [name for name in sys.modules if name.startswith("aws_xray_sdk")]:
        monkeypatch.delitem(sys.modules, name)
    loaded(monkeypatch)
    assert "aws_xray_sdk" not in sys.modules
    loaded(monkeypatch, AWS_XRAY_DAEMON_ADDRESS="127.0.0.1:2000", POWERTOOLS_TRACE_DISABLED="true")
    assert "aws_xray_sdk" not in sys.modules
    module = loaded(monkeypatch, AWS_XRAY_DAEMON_ADDRESS="127.0.0.1:2000", POWERTOOLS_TRACE_DISABLED="false")
    assert "aws_xray_sdk" in sys.modules
    assert ask(module, function_url_event(upload(golden.data)))["statusCode"] == 200
