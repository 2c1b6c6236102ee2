import base64
import json
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from catsdogs_lib.client import asgi
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.lambda_local import worker
from catsdogs_lib.lambda_local.backends import INVOCATIONS_PATH, EmulatorBackend, WorkerBackend, find_handler
from catsdogs_lib.lambda_local.function_url import FunctionUrl

ECHO = """
def handler(event, context):
    return event
"""
AWKWARD = """
import os, time
def handler(event, context):
    path = event["rawPath"]
    if path == "/raise": raise ValueError("a mistake")
    if path == "/die": os._exit(3)
    if path == "/exit": raise SystemExit
    if path == "/set": return {"statusCode": 200, "body": {1, 2}}
    if path == "/nan": return float("nan")
    if path == "/sleep": time.sleep(60)
    if path == "/large": return {"statusCode": 200, "body": "x" * (6 * 2**20 + 100)}
    if path == "/just": return {"statusCode": 200, "body": "x" * (6 * 2**20)}
    cookies = ["a=1; HttpOnly", "b=2"]
    return {"statusCode": 200, "cookies": cookies, "headers": {"X-Two": "1,2"}, "body": str(os.getpid())}
"""


def test_the_handler_hears_an_event_and_its_answer_is_sent(function_url, send):
    url = function_url(ECHO)
    body = bytes(range(256))
    headers = [("Content-Type", "image/jpeg"), ("X-Twice", "1"), ("X-Twice", "2"), ("Cookie", "a=1; b=2")]
    status, answered, text = send(url, "POST", "/a%20b//c?x=1&x=%26&y", body, headers)
    event = json.loads(text)
    assert status == 200
    assert event["version"] == "2.0"
    assert event["rawPath"] == "/a%20b//c"
    assert event["rawQueryString"] == "x=1&x=%26&y"
    assert event["queryStringParameters"] == {"x": "1,&", "y": ""}
    assert event["headers"]["x-twice"] == "1,2"
    assert event["cookies"] == ["a=1", "b=2"]
    assert base64.b64decode(event["body"]) == body
    assert event["requestContext"]["requestId"] == dict(answered)["x-amzn-requestid"]
    assert event["requestContext"]["http"]["sourceIp"] == "127.0.0.1"
    assert event["headers"]["x-forwarded-port"] == url.rpartition(":")[2]
    assert abs(event["requestContext"]["timeEpoch"] / 1000 - time.time()) < 60


def test_cookies_headers_and_head_requests(function_url, send):
    url = function_url(AWKWARD)
    status, headers, body = send(url)
    assert status == 200
    assert [value for name, value in headers if name == "set-cookie"] == ["a=1; HttpOnly", "b=2"]
    assert ("x-two", "1,2") in headers
    assert body.isdigit()
    assert send(url, "HEAD")[2] == b""


@pytest.mark.parametrize("path", ["/raise", "/die", "/exit", "/set", "/nan", "/large"])
def test_a_function_that_fails_is_a_502_and_the_next_request_is_answered(path, function_url, send):
    url = function_url(AWKWARD)
    status, _, body = send(url, target=path)
    assert (status, body) == (502, b"Internal Server Error")
    assert send(url)[0] == 200


def test_a_process_that_died_is_started_again_and_one_that_raised_is_kept(function_url, send):
    url = function_url(AWKWARD)
    first = send(url)[2]
    send(url, target="/raise")
    assert send(url)[2] == first
    send(url, target="/die")
    assert send(url)[2] != first


def test_a_function_that_takes_too_long_is_ended(function_url, send, monkeypatch):
    monkeypatch.setattr(worker, "FUNCTION_TIMEOUT_SECONDS", 1.0)
    url = function_url(AWKWARD)
    began = time.monotonic()
    assert send(url, target="/sleep")[0] == 502
    assert time.monotonic() - began < 20
    assert send(url)[0] == 200


def test_an_answer_may_have_six_megabytes(function_url, send):
    status, _, body = send(function_url(AWKWARD), target="/just")
    assert (status, len(body)) == (200, 6 * 2**20)


def test_a_request_of_which_the_event_has_more_than_six_megabytes_never_reaches_the_handler(
    function_url, send, tmp_path
):
    calls = tmp_path / "calls"
    url = function_url(f"def handler(event, context):\n    open({str(calls)!r}, 'a').write('x')\n    return 'heard'")
    photo = [("content-type", "image/jpeg")]
    # Base64 makes four bytes of three: 4.5 MiB are the end of it, less what stands around them.
    assert send(url, "POST", "/predict", b"x" * (4_718_592 - 1_500), photo)[0] == 200
    assert calls.read_text() == "x"
    for size in (4_718_592, 5_000_000, 7_000_000, 30_000_000):
        status, headers, body = send(url, "POST", "/predict", b"x" * size, photo)
        assert (status, body) == (413, b'{"Message":"Request Entity Too Large"}')
        assert dict(headers)["content-type"] == "application/json"
    # Text is not base64, so more of it passes; what JSON escapes counts escaped.
    text = [("content-type", "text/plain")]
    assert send(url, "POST", "/", b"x" * 6_000_000, text)[0] == 200
    assert send(url, "POST", "/", b'"' * 6_000_000, text)[0] == 413
    assert calls.read_text() == "xx"


def test_a_body_that_does_not_arrive_is_told_so(function_url, send_half, send, monkeypatch, caplog):
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.2)
    url = function_url(ECHO)
    status, headers, body = send_half(url)
    assert (status, body) == (408, b'{"Message":"Request Timeout"}')
    assert dict(headers)["connection"] == "close"
    assert "x-amzn-requestid" in dict(headers)
    assert send(url)[0] == 200
    assert caplog.text == ""


def test_who_leaves_before_the_end_of_a_body_is_no_error(function_url, send, caplog):
    url = function_url(ECHO)
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nx")
    assert send(url)[0] == 200
    assert caplog.text == ""


SPANS = """
import time
def handler(event, context):
    begin = time.time()
    time.sleep(0.4)
    return {"begin": begin, "end": time.time()}
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_answers_one_request_at_a_time(workers, function_url, send):
    url = function_url(SPANS, workers)
    with ThreadPoolExecutor(2) as clients:
        answers = list(clients.map(lambda _: json.loads(send(url)[2]), range(2)))
    first, second = sorted(answers, key=lambda span: span["begin"])
    assert (first["end"] <= second["begin"]) is (workers == 1)


def test_the_handler_finds_what_lambda_gives_it(function_url, send, monkeypatch, tmp_path):
    monkeypatch.setenv("OF_THE_CALLER", "kept")
    source = """
import os, neighbour
def handler(event, context):
    return {
        "environment": dict(os.environ), "neighbour": neighbour.NAME, "name": context.function_name,
        "memory": context.memory_limit_in_mb, "id": context.aws_request_id, "arn": context.invoked_function_arn,
        "left": context.get_remaining_time_in_millis(), "module": __name__,
    }
"""
    (tmp_path / "neighbour.py").write_text("NAME = 'beside'")
    status, headers, body = send(function_url(source))
    assert status == 200
    found = json.loads(body)
    environment = found["environment"]
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == found["name"] == "catsdogs"
    assert environment["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == found["memory"] == "1769"
    assert environment["LAMBDA_TASK_ROOT"] == str(tmp_path)
    assert environment["_X_AMZN_TRACE_ID"] == dict(headers)["x-amzn-trace-id"]
    assert environment["OF_THE_CALLER"] == "kept"
    assert found["neighbour"] == "beside"
    assert found["module"] == "handler"
    assert found["id"] == dict(headers)["x-amzn-requestid"]
    assert found["arn"].startswith("arn:aws:lambda:")
    assert 20_000 < found["left"] <= 30_000
    assert "AWS_LAMBDA_FUNCTION_NAME" not in os.environ


@pytest.mark.parametrize(
    ("source", "said"), [("def handler(", "SyntaxError"), ("1 / 0", "ZeroDivisionError"), ("x = 1", "handler")]
)
def test_a_handler_that_cannot_be_loaded_is_one_sentence(source, said, tmp_path):
    file = tmp_path / "handler.py"
    file.write_text(source)
    with pytest.raises(CatsdogsError, match=said) as caught:
        WorkerBackend(file)
    assert str(file) in str(caught.value)


def test_a_module_that_is_missing_is_named(tmp_path):
    file = tmp_path / "handler.py"
    file.write_text("import no_such_module_anywhere")
    with pytest.raises(ModuleNotFoundError) as caught:
        WorkerBackend(file)
    assert caught.value.name == "no_such_module_anywhere"


def test_the_handler_of_the_project_is_found_from_any_folder(tmp_path, monkeypatch, reference):
    monkeypatch.chdir(reference)
    assert find_handler().parts[-2:] == ("lambda", "handler.py")
    monkeypatch.chdir(tmp_path)
    assert find_handler().parts[-2:] == ("lambda", "handler.py")
    with pytest.raises(CatsdogsError, match=r"none\.py"):
        find_handler(tmp_path / "none.py")


class Emulates(BaseHTTPRequestHandler):
    """Answers as the runtime interface emulator does; counts who comes while it is busy."""

    busy = threading.Lock()
    clashes = 0

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if not self.busy.acquire(blocking=False):
            type(self).clashes += 1
            return
        try:
            time.sleep(0.1)
            event = json.loads(body)
            answers = {
                "/timeout": (200, "Task timed out after 3.00 seconds"),
                "/raise": (200, '{"errorMessage": "a mistake", "errorType": "ValueError", "stackTrace": []}'),
                "/broken": (500, "no"),
                "/large": (200, json.dumps({"statusCode": 200, "body": "x" * (6 * 2**20 + 100)})),
            }
            right = self.path == INVOCATIONS_PATH
            status, text = answers.get(event["rawPath"], (200, json.dumps(event))) if right else (404, "")
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())
        finally:
            self.busy.release()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def emulator():
    Emulates.clashes = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Emulates) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("whole", [False, True])
def test_an_emulator_answers_events(emulator, whole, serve, send):
    url = serve(FunctionUrl(EmulatorBackend(emulator + INVOCATIONS_PATH * whole)))
    status, _, body = send(url, "POST", "/predict", b"\0\1", [("content-type", "image/png")])
    assert status == 200
    assert base64.b64decode(json.loads(body)["body"]) == b"\0\1"


@pytest.mark.parametrize("path", ["/timeout", "/raise", "/broken", "/large"])
def test_an_emulator_that_fails_is_a_502(emulator, path, serve, send):
    assert send(serve(FunctionUrl(EmulatorBackend(emulator))), target=path)[0] == 502


def test_no_emulator_is_a_502(emulator, serve, send):
    assert send(serve(FunctionUrl(EmulatorBackend("http://127.0.0.1:1"))))[0] == 502


def test_an_emulator_is_asked_one_event_at_a_time(emulator, serve, send):
    url = serve(FunctionUrl(EmulatorBackend(emulator)))
    with ThreadPoolExecutor(4) as clients:
        statuses = list(clients.map(lambda _: send(url)[0], range(8)))
    assert statuses == [200] * 8
    assert Emulates.clashes == 0
