"""A process that runs the Lambda handler in an environment like Lambda's, one event at a time."""

import importlib.util
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from catsdogs_lib.client.lambda_events import ACCOUNT, REGION
from catsdogs_lib.common.errors import CatsdogsError

FUNCTION_NAME = "catsdogs"
MEMORY_MB = 1769
"""Memory size at which Lambda gives a function one full core."""
FUNCTION_TIMEOUT_SECONDS = 30.0
"""Timeout of the function."""
START_TIMEOUT_SECONDS = 120.0
"""Time that the handler has to load."""

Handler = Callable[[Any, Any], Any]


class FunctionError(CatsdogsError):
    """The function gave no answer: it raised, died, or took too long."""


class Context(NamedTuple):
    """The context object that Lambda passes to a handler."""

    aws_request_id: str
    deadline: float
    function_name: str = FUNCTION_NAME
    function_version: str = "$LATEST"
    invoked_function_arn: str = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{FUNCTION_NAME}"
    memory_limit_in_mb: str = str(MEMORY_MB)
    log_group_name: str = f"/aws/lambda/{FUNCTION_NAME}"
    log_stream_name: str = "2026/01/01/[$LATEST]local"
    identity: None = None
    client_context: None = None

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds left before the timeout."""
        return max(0, round((self.deadline - time.time()) * 1000))


def lambda_environment(folder: Path) -> dict[str, str]:
    """Return the environment variables that Lambda sets; `folder` is the handler's."""
    return {
        "AWS_LAMBDA_FUNCTION_NAME": FUNCTION_NAME,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(MEMORY_MB),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{FUNCTION_NAME}",
        "AWS_LAMBDA_LOG_STREAM_NAME": "2026/01/01/[$LATEST]local",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "LAMBDA_TASK_ROOT": str(folder),
        "_HANDLER": "handler.handler",
        "TZ": ":UTC",
    }


class WorkerProcess:
    """A process with the handler.

    Parameters
    ----------
    handler
        File that defines ``handler(event, context)``.
    """

    def __init__(self, handler: Path) -> None:
        self._file = handler
        self._process: Any = None
        self._connection: Any = None

    def start(self) -> None:
        """Start the process, which begins to load the handler."""
        # Not forked: the parent has threads, and a Lambda function starts from a fresh interpreter.
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=run_worker, args=(str(self._file), theirs), daemon=True)
        self._process.start()
        theirs.close()

    def wait_until_ready(self) -> None:
        """Wait until the handler is loaded.

        Raises
        ------
        CatsdogsError
            The handler cannot be loaded.
        ModuleNotFoundError
            The handler needs a module that is not installed.
        """
        missing, problem = "", f"no answer within {START_TIMEOUT_SECONDS:g} s"
        try:
            if self._connection.poll(START_TIMEOUT_SECONDS):
                missing, problem = self._connection.recv()
        except (EOFError, OSError):
            problem = "its process ended"
        if not problem:
            return
        self.stop()
        if missing:
            raise ModuleNotFoundError(problem, name=missing)
        raise CatsdogsError(f"{self._file} cannot be loaded ({problem}); fix it, or name another with --handler")

    def invoke(self, payload: bytes, request_id: str) -> bytes:
        """Answer an event; if the process is gone, restart it first. Call it from one thread at a time.

        Raises
        ------
        FunctionError
            There is no answer.
        """
        if self._process is None or not self._process.is_alive():
            self._restart()
        try:
            self._connection.send((payload, request_id))
            if not self._connection.poll(FUNCTION_TIMEOUT_SECONDS):
                self.stop()
                raise FunctionError(f"the function took longer than {FUNCTION_TIMEOUT_SECONDS:g} s and was ended")
            answer, problem = self._connection.recv()
        except (EOFError, OSError):
            self.stop()
            raise FunctionError("the function's process ended; the next request starts another") from None
        if problem:
            raise FunctionError(f"the function raised {problem}")
        return bytes(answer)

    def _restart(self) -> None:
        self.stop()
        self.start()
        try:
            self.wait_until_ready()
        except (CatsdogsError, ModuleNotFoundError) as error:
            raise FunctionError(str(error)) from None

    def stop(self) -> None:
        """Stop the process."""
        if self._process is not None:
            self._connection.close()
            self._process.kill()
            self._process.join()
            self._process = None


def run_worker(file: str, connection: Connection) -> None:
    """Run in the process: load the handler and answer events until the parent closes the pipe."""
    # Ctrl-C reaches every process of a terminal; here the parent decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(lambda_environment(Path(file).parent))
    time.tzset()
    try:
        handler = import_handler(Path(file))
    except ModuleNotFoundError as error:
        connection.send((error.name or "", str(error)))
        return
    except Exception as error:
        traceback.print_exc()
        connection.send(("", f"{type(error).__name__}: {error}"))
        return
    connection.send(("", ""))
    while True:
        try:
            payload, request_id = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(_answer(handler, payload, request_id))


def import_handler(file: Path) -> Handler:
    """Import a handler as Lambda does: its folder is on the path, and the module is named after the file."""
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file.name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    handler: Handler = module.handler
    return handler


def _answer(handler: Handler, payload: bytes, request_id: str) -> tuple[bytes, str]:
    event = json.loads(payload)
    if trace := (event.get("headers") or {}).get("x-amzn-trace-id"):
        os.environ["_X_AMZN_TRACE_ID"] = trace
    try:
        # As in Lambda's runtime, a result that JSON cannot hold is an error of the function.
        result = handler(event, Context(request_id, time.time() + FUNCTION_TIMEOUT_SECONDS))
        return json.dumps(result, ensure_ascii=False, allow_nan=False).encode(), ""
    except Exception as error:
        traceback.print_exc()
        return b"", f"{type(error).__name__}: {error}"
