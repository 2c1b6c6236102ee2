"""A process that holds the Lambda handler and answers one event at a time, with what Lambda gives it around."""

import importlib.util
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from catsdogs_lib.client.lambda_events import ACCOUNT, REGION
from catsdogs_lib.common.errors import CatsdogsError

NAME = "catsdogs"
MEMORY_MB = 1769
"""Lambda's memory with which a function has one whole core."""
SECONDS = 30.0
"""A function that takes longer is ended."""
START_SECONDS = 120.0

Handler = Callable[[Any, Any], Any]


class FunctionError(CatsdogsError):
    """The function gave no answer: it raised, died, or took too long."""


@dataclass(frozen=True)
class Context:
    """What Lambda's runtime hands to a handler beside the event."""

    aws_request_id: str
    deadline: float
    function_name: str = NAME
    function_version: str = "$LATEST"
    invoked_function_arn: str = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{NAME}"
    memory_limit_in_mb: str = str(MEMORY_MB)
    log_group_name: str = f"/aws/lambda/{NAME}"
    log_stream_name: str = "2026/01/01/[$LATEST]local"
    identity: None = field(default=None)
    client_context: None = field(default=None)

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the function is ended."""
        return max(0, round((self.deadline - time.time()) * 1000))


def environment(folder: Path) -> dict[str, str]:
    """Variables that Lambda sets; `folder` is where the handler lies."""
    return {
        "AWS_LAMBDA_FUNCTION_NAME": NAME,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(MEMORY_MB),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{NAME}",
        "AWS_LAMBDA_LOG_STREAM_NAME": "2026/01/01/[$LATEST]local",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "LAMBDA_TASK_ROOT": str(folder),
        "_HANDLER": "handler.handler",
        "TZ": ":UTC",
    }


class WorkerProcess:
    """One process with the handler.

    Parameters
    ----------
    handler
        The file that defines ``handler(event, context)``.
    """

    def __init__(self, handler: Path) -> None:
        self._file = handler
        self._lock = threading.Lock()
        self._process: Any = None
        self._connection: Any = None

    def start(self) -> None:
        """Start the process; it begins to load."""
        # Not forked: the parent has threads, and a Lambda function starts from nothing, too.
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
            It cannot be loaded.
        ModuleNotFoundError
            It needs a module that is not installed.
        """
        missing, problem = "", f"no answer within {START_SECONDS:g} s"
        try:
            if self._connection.poll(START_SECONDS):
                missing, problem = self._connection.recv()
        except (EOFError, OSError):
            problem = "its process ended"
        if not problem:
            return
        self.stop()
        if missing:
            raise ModuleNotFoundError(problem, name=missing)
        raise CatsdogsError(f"{self._file} cannot be loaded ({problem}); mend it, or name another with --handler")

    def invoke(self, payload: bytes, request_id: str) -> bytes:
        """Answer one event; starts the process again first if it is gone.

        Raises
        ------
        FunctionError
            There is no answer.
        """
        with self._lock:
            if self._process is None or not self._process.is_alive():
                self._restart()
            try:
                self._connection.send((payload, request_id))
                if not self._connection.poll(SECONDS):
                    self.stop()
                    raise FunctionError(f"the function took longer than {SECONDS:g} s and was ended")
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
        """End the process."""
        if self._process is not None:
            self._connection.close()
            self._process.kill()
            self._process.join()
            self._process = None


def run_worker(file: str, connection: Connection) -> None:
    """Load the handler and answer events until the parent is gone. The body of the process."""
    # Ctrl-C reaches every process of a terminal; the parent decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(environment(Path(file).parent))
    time.tzset()
    try:
        handler = load(Path(file))
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


def load(file: Path) -> Handler:
    """Import a file as Lambda does: its folder is on the path, and its name is the module's."""
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    handler: Handler = module.handler
    return handler


def _answer(handler: Handler, payload: bytes, request_id: str) -> tuple[bytes, str]:
    event = json.loads(payload)
    if trace := event.get("headers", {}).get("x-amzn-trace-id"):
        os.environ["_X_AMZN_TRACE_ID"] = trace
    try:
        # As Lambda's runtime writes it: what JSON cannot hold is an error of the function.
        returned = handler(event, Context(request_id, time.time() + SECONDS))
        return json.dumps(returned, ensure_ascii=False, allow_nan=False).encode(), ""
    except Exception as error:
        traceback.print_exc()
        return b"", f"{type(error).__name__}: {error}"
