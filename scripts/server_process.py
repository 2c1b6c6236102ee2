"""A server of this project as a process: started on a free port, sent requests, measured and stopped."""

import http.client
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from soak import fault_of, wire

from catsdogs_lib.client.lambda_events import REQUEST_TOO_LARGE
from catsdogs_lib.client.messages import HttpRequest

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from process_tree import ProcessTree, Sampler  # noqa: E402

START_SECONDS = 60.0
ANSWER_SECONDS = 120.0
"""Time limit for an answer, far above every guarantee."""
PROBE_SECONDS = 0.1
"""Time between two health checks."""
HEALTH = wire(HttpRequest("GET", "/health"))


class Answer(NamedTuple):
    """An answer: its status (0 if there was none), the seconds it took, its body, and what is wrong with it."""

    status: int
    seconds: float
    body: bytes
    fault: str | None


class ServerProcess:
    """A server that runs until the context ends.

    Parameters
    ----------
    arguments
        Of ``catsdogs``; it must print its address to stderr.
    log
        File for its output.
    prefix
        A command that executes the one that follows it.
    """

    def __init__(self, arguments: Sequence[str], log: Path, prefix: Sequence[str] = ()) -> None:
        self.log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "catsdogs_lib", *arguments, "--port", "0"],
                cwd=ROOT,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        self.tree = ProcessTree(self.process.pid)
        self.port = self._wait_for_port()

    def _wait_for_port(self) -> int:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            if match := re.search(rb"http://\S+:(\d+)  \(", self.log.read_bytes()):
                return int(match[1])
            time.sleep(0.05)
        self.stop()
        raise SystemExit(f"the server does not start:\n{self.log.read_text()[-2000:]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Terminate it; kill it if that takes over ten seconds."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def ask(self, raw: bytes, seconds: float = ANSWER_SECONDS) -> Answer:
        """Send one request as it is and read the answer; see `ask`."""
        return ask(self.port, raw, seconds)

    def connect(self, seconds: float = ANSWER_SECONDS) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(("127.0.0.1", self.port), seconds)


def ask(port: int, raw: bytes, seconds: float) -> Answer:
    """Send one request as it is and read the answer."""
    began = time.perf_counter()
    try:
        with socket.create_connection(("127.0.0.1", port), seconds) as connection:
            # A server that refuses a body may answer before all of it is sent.
            sender = threading.Thread(target=send, args=(connection, raw), daemon=True)
            sender.start()
            response = http.client.HTTPResponse(connection)
            response.begin()
            body = response.read()
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, time.perf_counter() - began, b"", f"no answer ({type(error).__name__}: {error})")
    elapsed = time.perf_counter() - began
    aws = response.status == REQUEST_TOO_LARGE.status and body == REQUEST_TOO_LARGE.body
    return Answer(response.status, elapsed, body, None if aws else fault_of(response, body))


def send(connection: socket.socket, raw: bytes) -> None:
    """Send a request, or as much of it as the server takes before it closes the connection."""
    try:
        connection.sendall(raw)
    except OSError:
        return  # the answer tells why


class HealthProber(Sampler):
    """A thread that asks ``/health`` up to ten times a second, on a new connection each time."""

    def __init__(self, port: int) -> None:
        super().__init__(PROBE_SECONDS)
        self._port = port
        self.seconds: list[float] = []
        self.failures = 0

    @property
    def worst(self) -> float:
        """The longest time that an answer took, in seconds."""
        return max(self.seconds, default=0.0)

    def sample(self) -> None:
        """Ask once."""
        answer = ask(self._port, HEALTH, 30.0)
        self.seconds.append(answer.seconds)
        self.failures += answer.status != 200
