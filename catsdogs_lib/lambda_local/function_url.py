"""A Function URL on this machine: HTTP requests become events, one at a time a worker, within AWS's limits.

Behind it stands the real handler in processes of its own, or a runtime emulator.
"""

import asyncio
import json
import logging
import queue
import sys
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

from starlette.types import Receive, Scope, Send

import catsdogs_lib
from catsdogs_lib.client import asgi, lambda_events
from catsdogs_lib.client.http import UnreachableError, Upstream
from catsdogs_lib.client.lambda_events import Arrival, HttpRequest, HttpResponse
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.lambda_local.worker import FunctionError, WorkerProcess

HANDLER = Path("lambda/handler.py")
INVOCATIONS = "/2015-03-31/functions/function/invocations"
EMULATOR_SECONDS = 900.0
"""Lambda's own ceiling; the emulator ends a function at the limit that it was given."""


def find_handler(named: Path | None = None) -> Path:
    """Find the file of the handler: `named`, else ``lambda/handler.py`` here, above, or beside the library.

    Raises
    ------
    CatsdogsError
        There is none.
    """
    here = Path.cwd()
    source = Path(catsdogs_lib.__file__).parents[1]
    for found in (named,) if named else (folder / HANDLER for folder in (here, *here.parents, source)):
        if found.is_file():
            return found.resolve()
    raise CatsdogsError(f"{named or HANDLER} is missing; run this inside the project, or name the file with --handler")


class Backend(Protocol):
    """What answers events."""

    @property
    def concurrency(self) -> int:
        """How many events it takes at once."""

    def invoke(self, payload: bytes, request_id: str) -> bytes:
        """Answer one event, JSON for JSON; raises `FunctionError` where there is no answer."""

    def close(self) -> None:
        """End what was started."""


class WorkerBackend:
    """The handler, loaded once in each of some processes.

    Parameters
    ----------
    handler
        The file that defines ``handler(event, context)``.
    count
        How many processes; each answers one event at a time.

    Raises
    ------
    CatsdogsError
        The file cannot be loaded.
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
        """Answer one event; a process that has died is started again for the next."""
        worker = self._idle.get()
        try:
            return worker.invoke(payload, request_id)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.stop()


class EmulatorBackend:
    """A runtime interface emulator, or ``sam local start-lambda``; two events at once would crash it.

    Parameters
    ----------
    url
        ``http://host:port``, or the whole address of its invocations.
    """

    concurrency = 1

    def __init__(self, url: str) -> None:
        found = url.rstrip("/")
        self._upstream = Upstream(
            found if found.endswith("/invocations") else found + INVOCATIONS, None, EMULATOR_SECONDS
        )

    def invoke(self, payload: bytes, request_id: str) -> bytes:
        """Answer one event. A timeout comes as plain text with status 200, an exception as JSON that says so."""
        headers = (("content-type", "application/json"), ("x-amzn-requestid", request_id))
        try:
            answer = self._upstream.ask(HttpRequest("POST", "", "", headers, payload))
        except UnreachableError as error:
            raise FunctionError(str(error)) from None
        said = answer.body[:300].decode(errors="replace").strip()
        if answer.status != HTTPStatus.OK:
            raise FunctionError(f"the emulator answers with status {answer.status}: {said}")
        try:
            value = json.loads(answer.body)
        except ValueError:
            raise FunctionError(f"the emulator says: {said}") from None
        raised = isinstance(value, dict) and "errorType" in value and "statusCode" not in value
        if raised or answer.header("x-amz-function-error"):
            raise FunctionError(f"the function raised: {said}")
        return answer.body

    def close(self) -> None:
        """Leave it running: who started it ends it."""


class FunctionUrl:
    """ASGI application: a Function URL in front of a backend.

    Parameters
    ----------
    backend
        What answers.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._pool = ThreadPoolExecutor(backend.concurrency, thread_name_prefix="function")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        arrival = Arrival.now()
        try:
            # No body that is longer raw can pass as an event.
            request = await asgi.read_request(scope, receive, lambda_events.REQUEST_BYTES)
        except asgi.ClientDisconnectedError:
            return
        except asgi.BodyTooLargeError:
            response = lambda_events.TOO_LARGE
        except asgi.SlowBodyError:
            response = lambda_events.TOO_SLOW
        else:
            response = await self._answer(request, arrival)
        ours = (("x-amzn-requestid", arrival.request_id), ("x-amzn-trace-id", arrival.trace))
        response = HttpResponse(response.status, (*response.headers, *ours), response.body)
        await asgi.send_response(response, scope["method"], send)

    async def _answer(self, request: HttpRequest, arrival: Arrival) -> HttpResponse:
        payload = json.dumps(lambda_events.function_url_event(request, arrival)).encode()
        if len(payload) > lambda_events.REQUEST_BYTES:
            return lambda_events.TOO_LARGE
        loop = asyncio.get_running_loop()
        try:
            returned = await loop.run_in_executor(self._pool, self._backend.invoke, payload, arrival.request_id)
        except FunctionError as error:
            _say(str(error))
            return lambda_events.FUNCTION_FAILED
        response = lambda_events.response_of(returned)
        if response is lambda_events.FUNCTION_FAILED:
            _say(
                f"the function returned {len(returned)} bytes: no response, or more than {lambda_events.RESPONSE_BYTES}"
            )
        return response


def _say(sentence: str) -> None:
    logging.getLogger("catsdogs.doors").warning("%s; the sender was told 502", sentence)


def open_backend(emulator: str | None, handler: Path | None, workers: int) -> Backend:
    """Make the backend that the command line asks for; says on a terminal that the handler is being loaded."""
    if emulator is not None:
        return EmulatorBackend(emulator)
    found = find_handler(handler)
    if sys.stderr.isatty():
        print(f"loading {found} in {workers} process{'es' * (workers > 1)}", file=sys.stderr)
    return WorkerBackend(found, workers)
