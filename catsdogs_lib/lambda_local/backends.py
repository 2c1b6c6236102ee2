"""Backends of the local Function URL: the handler in worker processes, or a runtime emulator."""

import json
import queue
import sys
from http import HTTPStatus
from pathlib import Path

import catsdogs_lib
from catsdogs_lib.client.http import UnreachableError, Upstream
from catsdogs_lib.client.messages import HttpRequest
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.lambda_local.worker import FunctionError, WorkerProcess

HANDLER_FILE = Path("lambda/handler.py")
INVOCATIONS_PATH = "/2015-03-31/functions/function/invocations"
EMULATOR_TIMEOUT_SECONDS = 900.0
"""Lambda's maximum; the emulator itself ends a function at its configured timeout."""


def find_handler(file: Path | None = None) -> Path:
    """Find the handler: `file`, or ``lambda/handler.py`` in this folder, its parents, or beside the library.

    Raises
    ------
    CatsdogsError
        There is none.
    """
    here = Path.cwd()
    source = Path(catsdogs_lib.__file__).parents[1]
    for candidate in (file,) if file else (folder / HANDLER_FILE for folder in (here, *here.parents, source)):
        if candidate.is_file():
            return candidate.resolve()
    raise CatsdogsError(
        f"{file or HANDLER_FILE} is missing; run this inside the project, or name the file with --handler"
    )


class WorkerBackend:
    """Worker processes, each with its own copy of the handler.

    Parameters
    ----------
    handler
        File that defines ``handler(event, context)``.
    count
        Number of processes; each answers one event at a time.

    Raises
    ------
    CatsdogsError
        The handler cannot be loaded.
    """

    def __init__(self, handler: Path, count: int = 1) -> None:
        self.concurrency = count
        self._workers = [WorkerProcess(handler) for _ in range(count)]
        self._idle: queue.SimpleQueue[WorkerProcess] = queue.SimpleQueue()
        try:
            for worker in self._workers:
                worker.start()
            for worker in self._workers:
                worker.wait_until_ready()
                self._idle.put(worker)
        except BaseException:
            self.close()
            raise

    def invoke(self, payload: bytes, request_id: str) -> bytes:
        """Answer an event; a process that dies is restarted for the next one.

        Raises
        ------
        FunctionError
            There is no answer.
        """
        worker = self._idle.get()
        try:
            return worker.invoke(payload, request_id)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """Stop the processes."""
        for worker in self._workers:
            worker.stop()


class EmulatorBackend:
    """A runtime interface emulator, or ``sam local start-lambda``; it takes one event at a time, two would crash it.

    Parameters
    ----------
    url
        ``http://host:port``, or the full address of its invocations.
    """

    concurrency = 1

    def __init__(self, url: str) -> None:
        address = url.rstrip("/")
        if not address.endswith("/invocations"):
            address += INVOCATIONS_PATH
        self._upstream = Upstream(address, seconds=EMULATOR_TIMEOUT_SECONDS)

    def invoke(self, payload: bytes, request_id: str) -> bytes:
        """Answer an event; the emulator reports a timeout as text with status 200, an exception as JSON.

        Raises
        ------
        FunctionError
            There is no answer.
        """
        headers = (("content-type", "application/json"), ("x-amzn-requestid", request_id))
        try:
            response = self._upstream.ask(HttpRequest("POST", "", "", headers, payload))
        except UnreachableError as error:
            raise FunctionError(str(error)) from None
        text = response.body[:300].decode(errors="replace").strip()
        if response.status != HTTPStatus.OK:
            raise FunctionError(f"the emulator answers with status {response.status}: {text}")
        try:
            result = json.loads(response.body)
        except ValueError:
            raise FunctionError(f"the emulator says: {text}") from None
        raised = isinstance(result, dict) and "errorType" in result and "statusCode" not in result
        if raised or response.header("x-amz-function-error"):
            raise FunctionError(f"the function raised: {text}")
        return response.body

    def close(self) -> None:
        """Do nothing: whoever started the emulator stops it."""


Backend = WorkerBackend | EmulatorBackend
"""Something that answers at most `concurrency` events at a time, JSON for JSON."""


def open_backend(emulator: str | None, handler: Path | None, workers: int) -> Backend:
    """Open an emulator's backend, or load the handler into worker processes, announcing it on a terminal."""
    if emulator is not None:
        return EmulatorBackend(emulator)
    file = find_handler(handler)
    if sys.stderr.isatty():
        print(f"loading {file} in {workers} process{'es' * (workers > 1)}", file=sys.stderr)
    return WorkerBackend(file, workers)
