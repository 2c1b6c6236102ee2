"""Processes that look at photos, one a core; one that dies is replaced, and what it had at hand is not lost."""

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

from catsdogs_lib.batch import worker as child
from catsdogs_lib.batch.photos import Photo
from catsdogs_lib.batch.rows import Row, error_row
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.inference.bundle import Bundle

END_SECONDS = 5.0
"""A worker that has not ended by itself after that is killed."""


class WorkersLostError(CatsdogsError):
    """Workers cannot begin, or die faster than they answer."""


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
    at_hand: deque[_Task] = field(default_factory=deque)


class WorkerPool:
    """Processes that answer photos with a bundle.

    Parameters
    ----------
    bundle
        What answers.
    count
        How many processes.
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

    def answers(self, photos: Iterator[tuple[int, Photo]]) -> Iterator[tuple[int, Row]]:
        """Yield the row of each photo with its position, in whatever order they are answered.

        A photo at which a worker dies is given to another; if that dies, too, its row says so.

        Raises
        ------
        WorkersLostError
            No worker can begin, or they die again and again.
        """
        tasks = (_Task(position, photo) for position, photo in photos)
        for worker in self._workers.values():
            self._fill(worker, tasks)
        while any(worker.at_hand for worker in self._workers.values()):
            for connection in wait(list(self._workers)):
                worker = self._workers[connection]  # type: ignore[index]
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    yield from self._bury(worker)
                    self._fill(self._start(), tasks)
                    continue
                if worker.ready:
                    self._deaths = 0
                    yield worker.at_hand.popleft().position, message
                elif message:
                    raise WorkersLostError(message)
                worker.ready = True
                self._fill(worker, tasks)

    def _fill(self, worker: _Worker, tasks: Iterator[_Task]) -> None:
        while len(worker.at_hand) < child.MAX_PREFETCHED:
            # Whatever was at hand when a worker died may be what killed it: each of these is tried alone.
            if worker.at_hand and (self._suspects or worker.at_hand[0].suspect):
                return
            task = self._suspects.popleft() if self._suspects else next(tasks, None)
            if task is None:
                return
            worker.at_hand.append(task)
            try:
                worker.connection.send(task.photo)
            except OSError:
                return  # It is dead, which is seen when its answers are read.

    def _bury(self, worker: _Worker) -> Iterator[tuple[int, Row]]:
        del self._workers[worker.connection]
        worker.connection.close()
        how = _end(worker.process)
        self._deaths += 1
        if not worker.ready or self._deaths > 2 * self._count + 2:
            raise WorkersLostError(
                f"processes that look at photos {how}; there may be too little memory for {self._count} of them: try "
                "--workers with fewer, the same command goes on from what is finished"
            )
        for task in worker.at_hand:
            if task.suspect:
                error = f"the process that looked at it {how}, twice; there may be too little memory, scale it down"
                yield task.position, error_row(task.photo.path, error, self._bundle.version)
            else:
                task.suspect = True
                self._suspects.append(task)

    def _start(self) -> _Worker:
        ours, theirs = Pipe()
        settings = [str(theirs.fileno()), str(self._bundle.folder), self._bundle.description.digest]
        process = subprocess.Popen(  # noqa: S603 - this very Python
            [sys.executable, "-P", "-m", child.__name__, *settings],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            # Out of the terminal's reach: on Ctrl-C this process decides when they end.
            start_new_session=True,
        )
        theirs.close()
        worker = self._workers[ours] = _Worker(process, ours)
        return worker


def _end(process: "subprocess.Popen[bytes]") -> str:
    """Wait for the end of a process, or make it; how it ended."""
    try:
        status = process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait()
    return f"ended with {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
