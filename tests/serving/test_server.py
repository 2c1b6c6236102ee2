"""The application under uvicorn, as a process: slow senders, broken HTTP, and the signal to stop."""

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
from catsdogs_lib.serving import server
from catsdogs_lib.serving.app import create_app
from catsdogs_lib.serving.model import Model
from catsdogs_lib.serving.metrics_prometheus import ServerTelemetry
from catsdogs_lib.serving.settings import ServiceSettings

server.HEAD_SECONDS, server.REQUEST_SECONDS = 1.0, 4.0
model = Model.load(Path(sys.argv[1]))
app = create_app(model, ServerTelemetry(), ServiceSettings(body_seconds=1.0))
server.serve(app, port=0, on_start=lambda address: print(address, flush=True))
"""


@contextlib.contextmanager
def running(program=PROGRAM, **options):
    """A server as a process; gives it and its port."""
    with subprocess.Popen(
        [sys.executable, "-c", program, ROOT / "models/reference"], stdout=subprocess.PIPE, text=True, **options
    ) as process:
        try:
            yield process, int(process.stdout.readline().rpartition(":")[2])
        finally:
            process.kill()


@pytest.fixture(scope="module")
def port():
    with running() as (_, port):
        yield port


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def everything(connection):
    """What comes until the other side closes; nothing where it resets."""
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


def head(length, kind="image/png", more=""):
    return (
        f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n{more}\r\n".encode()
    )


def status_and_document(answer):
    top, _, body = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]), json.loads(body)


@pytest.mark.slow
def test_a_body_that_does_not_arrive_is_ended_with_408(port):
    with connect(port) as connection:
        connection.sendall(head(1000) + b"abc")
        status, document = status_and_document(everything(connection))
    assert (status, document["type"]) == (408, "/problems/slow-body")
    assert "1 seconds" in document["detail"]


@pytest.mark.slow
def test_a_byte_now_and_then_does_not_keep_a_connection(port):
    for opening in (b"GET /health HT", head(100_000) + b"x"):
        began = time.monotonic()
        with connect(port) as connection, contextlib.suppress(OSError):
            connection.sendall(opening)
            while time.monotonic() - began < 15:
                connection.sendall(b"x")
                time.sleep(0.2)
        assert time.monotonic() - began < 10


@pytest.mark.slow
def test_the_rest_of_a_refused_body_does_not_keep_a_connection(port):
    began = time.monotonic()
    with connect(port) as connection, contextlib.suppress(OSError):
        connection.sendall(b"POST /health HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
        while time.monotonic() - began < 15:
            connection.sendall(b"x")
            time.sleep(0.2)
    assert time.monotonic() - began < 10


@pytest.mark.slow
def test_clients_that_do_not_read_do_not_keep_connections():
    """Their answers are larger than what the kernel takes on its way: the server would wait for them to read."""
    with running() as (process, port), contextlib.ExitStack() as connections:
        descriptors = Path(f"/proc/{process.pid}/fd")
        with connect(port) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            everything(connection)
        before = len(list(descriptors.iterdir()))
        for _ in range(5):
            connection = connections.enter_context(connect(port))
            connection.sendall(b"GET /static/swagger/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n" * 12)
        time.sleep(1)
        assert len(list(descriptors.iterdir())) >= before + 5
        time.sleep(6)
        assert len(list(descriptors.iterdir())) <= before


@pytest.mark.slow
def test_what_is_no_http_gets_a_problem_document(port):
    with connect(port) as connection:
        connection.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
        status, document = status_and_document(everything(connection))
    assert (status, document["type"]) == (400, "/problems/malformed-request")
    assert document["request_id"]


@pytest.mark.slow
def test_a_sender_who_waits_for_leave_is_refused_before_it_sends(port):
    with connect(port) as connection:
        connection.sendall(head(30 * 2**20, more="expect: 100-continue\r\n"))
        status, document = status_and_document(everything(connection))
    assert (status, document["type"]) == (413, "/problems/too-large")


@pytest.mark.slow
def test_a_sender_of_too_much_hears_why(port):
    with connect(port) as connection:
        connection.sendall(head(30 * 2**20))
        connection.sendall(bytes(30 * 2**20))
        status, document = status_and_document(everything(connection))
    assert (status, document["type"]) == (413, "/problems/too-large")


@pytest.mark.slow
def test_two_requests_on_one_connection_are_answered(port):
    with connect(port) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n" * 2)
        received = b""
        while received.count(b'"alive"') < 2:
            received += connection.recv(65536)
    assert received.count(b"HTTP/1.1 200") == 2


HIDDEN = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
CHUNKED = b"3\r\nabc\r\n0\r\n\r\n"


@pytest.mark.slow
@pytest.mark.parametrize("length", [b"3", b"0", b"%d" % len(CHUNKED + HIDDEN)])
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("path", [b"/health", b"/predict"])
def test_a_request_with_two_lengths_is_answered_and_the_connection_closed(port, length, order, path):
    lengths = [b"content-length: " + length, b"transfer-encoding: chunked"][::order]
    head = b"\r\n".join([b"POST " + path + b" HTTP/1.1", b"host: x", b"content-type: image/png", *lengths, b"", b""])
    with connect(port) as connection:
        connection.sendall(head + CHUNKED + HIDDEN)
        answer = everything(connection)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer.lower()
    status, document = status_and_document(answer)
    # The body is that of the chunks, whatever the length says.
    expected = (405, "/problems/method-not-allowed") if path == b"/health" else (415, "/problems/not-a-photo")
    assert (status, document["type"]) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "headers"),
    [
        ("1.1", ["content-length: 3", "content-length: 4"]),
        ("1.1", ["content-length: 3, 4"]),
        ("1.1", ["content-length: +3"]),
        ("1.1", ["content-length: 0x3"]),
        ("1.1", ["content-length:"]),
        ("1.1", ["transfer-encoding: chunked, identity"]),
        ("1.1", ["transfer-encoding: identity, chunked"]),
        ("1.1", ["transfer-encoding: xchunked"]),
        ("1.1", ["transfer-encoding: chunked", "transfer-encoding: chunked"]),
        ("1.1", ["transfer-encoding: chunked", "transfer-encoding: identity"]),
        ("1.1", ["transfer-encoding: x\r\n chunked"]),
        ("1.1", ["transfer-encoding : chunked"]),
        ("1.1", ["transfer-encoding: \x0bchunked"]),
        ("1.1", ["transfer-encoding:"]),
        ("1.1", ["content-length: 3", "transfer-encoding: identity"]),
        ("1.1", ["transfer-encoding:\r\n chunked", "content-length: 3"]),
        ("1.0", ["transfer-encoding: chunked"]),
        ("1.0", ["transfer-encoding: chunked", "connection: keep-alive"]),
        ("1.0", ["transfer-encoding: chunked", "content-length: 3", "connection: keep-alive"]),
    ],
)
def test_no_request_hides_behind_unclear_framing(port, version, headers):
    top = "\r\n".join([f"POST /version HTTP/{version}", "host: x", *headers, "", ""]).encode("latin-1")
    with connect(port) as connection:
        connection.sendall(top + CHUNKED + HIDDEN)
        answer = everything(connection)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert not answer.startswith(b"HTTP/1.1 200")


@pytest.mark.slow
@pytest.mark.parametrize("framing", ["content-length: 3, 3", "content-length: 3\r\ncontent-length: 3"])
def test_a_length_that_is_repeated_is_one_length(port, framing):
    with connect(port) as connection:
        connection.sendall(f"POST /version HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\nabc".encode() + HIDDEN)
        received = b""
        while b'"alive"' not in received:
            received += connection.recv(65536)
    assert received.startswith(b"HTTP/1.1 405")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://x/health", 200),
        ("HTTP://other.example:8080/health?a=http://y/", 200),
        ("https://user@x/health", 200),
        ("http://x", 200),
        ("http://x?a=1", 200),
        ("http://x/http://x/health", 404),
        ("http:///health", 404),
        ("ftp://x/health", 404),
        ("//x/health", 404),
    ],
)
def test_an_absolute_form_target_is_served_as_its_path(port, target, status):
    with connect(port) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nhost: z\r\nconnection: close\r\n\r\n".encode())
        assert everything(connection).split()[1] == str(status).encode()


ECHO = """
import json
from catsdogs_lib.serving import server

async def echo(scope, receive, send):
    headers = [[name.decode(), value.decode()] for name, value in scope["headers"]]
    body = json.dumps([scope["path"], scope["raw_path"].decode(), headers])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body.encode()})

server.serve(echo, port=0, on_start=lambda address: print(address, flush=True))
"""


@pytest.mark.slow
def test_the_application_sees_the_path_and_host_of_an_absolute_form_and_one_length():
    with running(ECHO) as (_, port), connect(port) as connection:
        lengths = b"content-length: 99\r\ntransfer-encoding: chunked\r\n\r\n"
        connection.sendall(b"POST http://u@a:1/%C3%A4?q HTTP/1.1\r\nhost: b\r\n" + lengths + CHUNKED)
        path, raw_path, headers = json.loads(everything(connection).partition(b"\r\n\r\n")[2].split(b"\r\n")[1])
    assert (path, raw_path) == ("/ä", "/%C3%A4")
    assert headers == [["host", "a:1"], ["transfer-encoding", "chunked"]]


def health(port):
    """The status of ``/health`` for a new client, and its seconds."""
    began = time.monotonic()
    with connect(port) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return everything(connection)[:12], time.monotonic() - began


def allow_files(count):
    """Limit the open files of a process about to start."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


@pytest.mark.slow
@pytest.mark.parametrize("opening", [b"", b"POST /predict HTTP/1.1\r\nhost: x\r\nx-slow: "])
def test_idle_connections_keep_nobody_out(opening, tmp_path):
    errors = tmp_path / "stderr"
    with errors.open("wb") as stderr, contextlib.ExitStack() as connections:
        process, port = connections.enter_context(running(stderr=stderr, preexec_fn=allow_files(256)))
        for _ in range(300):
            connections.enter_context(connect(port)).sendall(opening)
        for _ in range(3):
            status, seconds = health(port)
            assert status == b"HTTP/1.1 200"
            assert seconds < 1
        assert len(list(Path(f"/proc/{process.pid}/fd").iterdir())) < 200
    # One line tells of all that were turned away, and none of running out of files.
    assert errors.read_text() == "too many connections\n"


@pytest.mark.slow
def test_above_the_ceiling_only_operators_are_answered(photo):
    with running(preexec_fn=allow_files(100)) as (_, port), contextlib.ExitStack() as connections:
        for _ in range(30):  # more than the share of one client; each has a request in progress, none is idle
            connections.enter_context(connect(port)).sendall(head(len(photo)) + photo[:10])
        assert health(port)[0] == b"HTTP/1.1 200"
        with connect(port) as connection:
            connection.sendall(b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n")
            answer = everything(connection)
    status, document = status_and_document(answer)
    assert (status, document["type"]) == (503, "/problems/busy")
    assert b"retry-after: 1" in answer


@pytest.mark.slow
def test_running_out_of_files_closes_idle_connections_quietly(tmp_path):
    errors = tmp_path / "stderr"
    with errors.open("wb") as stderr, contextlib.ExitStack() as connections:
        process, port = connections.enter_context(running(stderr=stderr))
        for _ in range(5):
            connections.enter_context(connect(port))
        assert health(port)[0] == b"HTTP/1.1 200"
        used = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (used, used))
        for _ in range(20):
            connections.enter_context(connect(port))
        assert health(port)[0] == b"HTTP/1.1 200"
    assert errors.read_text() == "too many connections\n"


@pytest.mark.slow
def test_an_address_in_use_is_one_sentence(port, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "catsdogs_lib", "serve", "--port", str(port)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2
    assert re.search(rf"cannot listen on 127.0.0.1 port {port} .*--port", done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_signal_to_stop_loses_no_request(photo):
    """Clients with one connection a request: whoever could connect gets an answer."""
    answers, lost, stop = [], [], threading.Event()

    def client(port, request):
        while not stop.is_set():
            try:
                connection = connect(port)
            except OSError:
                return  # no longer accepted: the client knows
            with connection:
                try:
                    connection.sendall(request)
                    answers.append(everything(connection)[:12])
                except OSError as error:
                    lost.append(error)

    predict = head(len(photo), more="connection: close\r\n") + photo
    health = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    with running() as (process, port):
        clients = [threading.Thread(target=client, args=(port, request)) for request in [predict] * 4 + [health] * 60]
        for each in clients:
            each.start()
        time.sleep(1.5)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(20) == -signal.SIGTERM
        stop.set()
        for each in clients:
            each.join(30)
    assert not lost
    assert len(answers) > 100
    assert set(answers) == {b"HTTP/1.1 200"}


@pytest.mark.slow
def test_a_request_that_is_still_arriving_at_the_signal_is_answered(photo):
    with running() as (process, port), connect(port) as connection, connect(port) as silent:
        connection.sendall(head(len(photo))[:30])
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGTERM)
        time.sleep(0.4)
        connection.sendall(head(len(photo))[30:] + photo)
        status, answer = status_and_document(everything(connection))
        assert status == 200
        assert answer["prediction"] == "cat"
        assert everything(silent) == b""
        assert process.wait(20) == -signal.SIGTERM
