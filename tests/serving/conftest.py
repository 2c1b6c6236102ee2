"""One application with the reference bundle, asked in this process."""

import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from catsdogs_lib.serving.app import create_app
from catsdogs_lib.serving.metrics_prometheus import ServerTelemetry
from catsdogs_lib.serving.model import Model

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "models" / "reference"


@pytest.fixture(scope="session")
def model() -> Model:
    return Model.load(REFERENCE)


@pytest.fixture
def telemetry(model) -> ServerTelemetry:
    return ServerTelemetry(model.classifier.bundle)


@pytest.fixture
def ask(model, telemetry):
    """A client of the application; a mistake in it is an answer, as for a sender."""
    return TestClient(create_app(model, telemetry), raise_server_exceptions=False)


@pytest.fixture(scope="session")
def photo(model) -> bytes:
    """A drawn picture, PNG."""
    return model.classifier.bundle.description.golden[0].data


@pytest.fixture(scope="session")
def served_process():
    """`catsdogs serve` with the reference bundle, a process of its own: its `address` and `pid`."""
    command = [sys.executable, "-m", "catsdogs_lib", "serve", "--port", "0", "--bundle", REFERENCE]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            line = process.stderr.readline()
            yield SimpleNamespace(address=re.search(r"http://\S+:\d+", line)[0], pid=process.pid)
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def served_address(served_process):
    """The address of that server."""
    return served_process.address


class RawClient:
    """Sends raw bytes to a server, and measures how quickly it answers meanwhile."""

    def __init__(self, address: str) -> None:
        name, _, port = address.removeprefix("http://").partition(":")
        self.address = name, int(port)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=30)

    @staticmethod
    def head(length: int | None, kind: str = "image/png", path: str = "/predict", more: str = "") -> bytes:
        """The head of a POST request; without a length its body is chunked."""
        framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        return f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\n{framing}\r\n{more}\r\n".encode()

    @staticmethod
    def answer(connection: socket.socket) -> tuple[int, dict]:
        """The status and the JSON that the server sends until it closes the connection."""
        received = b""
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(65536):
                received += data
        head, _, body = received.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)

    def post(self, body: bytes, kind: str = "image/png", **options: str) -> tuple[int, dict]:
        """Send a body on a connection of its own."""
        with self.connect() as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(self.head(len(body), kind, more="connection: close\r\n", **options) + body)
            return self.answer(connection)

    @contextlib.contextmanager
    def watched_health(self):
        """Request /health repeatedly in the background; gives the list of response times in seconds."""
        seconds, stop = [], threading.Event()

        def watch():
            while not stop.is_set():
                start = time.monotonic()
                with self.connect() as connection:
                    connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                    assert self.answer(connection) == (200, {"status": "alive"})
                seconds.append(time.monotonic() - start)
                stop.wait(0.02)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield seconds
        finally:
            stop.set()
            thread.join()


@pytest.fixture
def raw_client():
    return RawClient


@pytest.fixture
def served(served_address) -> RawClient:
    """A raw client of `catsdogs serve` with its default settings."""
    return RawClient(served_address)
