"""Scoring with processes on this machine, one for each core; a worker that dies is replaced and its photos retried."""

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from types import TracebackType
from typing import Self

from catsdogs_lib.batch import local_worker
from catsdogs_lib.batch.photos import Photo
from catsdogs_lib.batch.rows import Row, error_row
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.inference.bundle import Bundle

EXIT_TIMEOUT_SECONDS = 5.0
"""A worker that has not exited by then is killed."""


class WorkersLostError(CatsdogsError):
    """Workers cannot start, or keep dying."""


@dataclass
class _Task:
    position: int
    photo: Photo
    suspect: bool = False


@dataclass
class _Worker:
    process: "subprocess.Popen[bytes]"
    connection: Connection
    ready: bool = False
    queue: deque[_Task] = field(default_factory=deque)


class WorkerPool:
    """Worker processes that score photos with a bundle.

    Parameters
    ----------
    bundle
        Model that scores.
    count
        Number of processes.
    """

    def __init__(self, bundle: Bundle, count: int) -> None:
        self._bundle = bundle
        self._count = count
        self._workers: dict[Connection, _Worker] = {}
        self._suspects: deque[_Task] = deque()
        self._deaths = 0

    def __enter__(self) -> Self:
        for _ in range(self._count):
            self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._workers:
            connection.close()
        for worker in self._workers.values():
            _end(worker.process)

    def score(self, photos: Iterator[tuple[int, Photo]]) -> Iterator[tuple[int, Row]]:
        """Yield the row of each photo with its position, in the order in which they finish.

        A photo at which a worker dies is retried alone; if the second worker dies too, its row says so.

        Raises
        ------
        WorkersLostError
            Workers cannot start, or keep dying.
        """
        tasks = (_Task(position, photo) for position, photo in photos)
        for worker in self._workers.values():
            self._fill(worker, tasks)
        while any(worker.queue for worker in self._workers.values()):
            for connection in wait(list(self._workers)):
                worker = self._workers[connection]  # type: ignore[index]
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    yield from self._remove(worker)
                    self._fill(self._start(), tasks)
                    continue
                if worker.ready:
                    self._deaths = 0
                    yield worker.queue.popleft().position, message
                elif message:
                    raise WorkersLostError(message)
                worker.ready = True
                self._fill(worker, tasks)

    def _fill(self, worker: _Worker, tasks: Iterator[_Task]) -> None:
        while len(worker.queue) < local_worker.MAX_QUEUED:
            # Any photo that was queued when a worker died may have killed it, so each is retried alone.
            if worker.queue and (self._suspects or worker.queue[0].suspect):
                return
            task = self._suspects.popleft() if self._suspects else next(tasks, None)
            if task is None:
                return
            worker.queue.append(task)
            try:
                worker.connection.send(task.photo)
            except OSError:
                return  # it died; reading from it will tell

    def _remove(self, worker: _Worker) -> Iterator[tuple[int, Row]]:
        del self._workers[worker.connection]
        worker.connection.close()
        end = _end(worker.process)
        self._deaths += 1
        if not worker.ready or self._deaths > 2 * self._count + 2:
            raise WorkersLostError(
                f"processes that look at photos {end}; there may be too little memory for {self._count} of them: try "
                "--workers with fewer, the same command goes on from what is finished"
            )
        for task in worker.queue:
            if task.suspect:
                error = f"the process that looked at it {end}, twice; there may be too little memory, scale it down"
                yield task.position, error_row(task.photo.path, error, self._bundle.version)
            else:
                task.suspect = True
                self._suspects.append(task)

    def _start(self) -> _Worker:
        ours, theirs = Pipe()
        arguments = [str(theirs.fileno()), str(self._bundle.folder), self._bundle.description.digest]
        process = subprocess.Popen(  # noqa: S603 - this very Python
            [sys.executable, "-P", "-m", local_worker.__name__, *arguments],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            # Ctrl-C must reach this process only, which decides when its workers end.
            start_new_session=True,
        )
        theirs.close()
        worker = self._workers[ours] = _Worker(process, ours)
        return worker


def _end(process: "subprocess.Popen[bytes]") -> str:
    """Wait for a process to exit, or kill it; return how it ended."""
    try:
        status = process.wait(EXIT_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait()
    return f"ended with {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
