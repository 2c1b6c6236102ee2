"""What tests of the doors share: applications and handlers behind real connections."""

import contextlib
import http.client
import socket
import threading
import time
from pathlib import Path

import pytest
import uvicorn

from catsdogs_lib.lambda_local.function_url import FunctionUrl, WorkerBackend
from catsdogs_lib.serving.server import Connection

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "models" / "reference"


@contextlib.contextmanager
def serving(app):
    """Serve an application on a free port of 127.0.0.1, with uvicorn as the commands do."""
    config = uvicorn.Config(app, port=0, http=Connection, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def ask(url, method="GET", target="/", body=None, headers=()):
    """Send one request exactly as written: target and headers are not touched."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders()
        if body is not None:
            # Who is refused may be told so before all is sent.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.send(body)
        answer = connection.getresponse()
        return answer.status, answer.getheaders(), answer.read()
    finally:
        connection.close()


@pytest.fixture
def serve():
    """Serve applications until the test ends: ``serve(app)`` gives the address."""
    with contextlib.ExitStack() as stack:
        yield lambda app: stack.enter_context(serving(app))


@pytest.fixture
def send():
    return ask


@pytest.fixture
def send_half():
    """Send a request whose body never comes whole; what is heard until the connection is closed."""

    def half(url, host=None):
        address = url.removeprefix("http://")
        name, _, port = address.partition(":")
        with socket.create_connection((name, int(port)), timeout=20) as connection:
            head = f"POST /predict HTTP/1.1\r\nhost: {host or address}\r\ncontent-length: 1000\r\n\r\n"
            connection.sendall(head.encode() + b"x" * 10)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.status, answer.getheaders(), answer.read()

    return half


@pytest.fixture
def function_url(tmp_path, serve):
    """Put a handler, given as source, behind a Function URL: ``function_url(source, workers)`` gives the address."""
    with contextlib.ExitStack() as stack:

        def start(source, workers=1):
            file = tmp_path / "handler.py"
            file.write_text(source)
            backend = WorkerBackend(file, workers)
            stack.callback(backend.close)
            return serve(FunctionUrl(backend))

        yield start


@pytest.fixture
def reference():
    return REFERENCE
