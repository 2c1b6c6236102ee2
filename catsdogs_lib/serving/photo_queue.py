"""The queue in which photos wait to be classified, with limits on its length and waiting time."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from catsdogs_lib.imaging.decoding import PhotoError
from catsdogs_lib.inference.classifier import InferenceError
from catsdogs_lib.serving import problems
from catsdogs_lib.serving.body_memory import client_of
from catsdogs_lib.serving.settings import ServiceSettings

T = TypeVar("T")


class PhotoQueue:
    """Runs at most ``settings.concurrency`` photos at once; at most ``settings.max_waiting`` more wait.

    Clients take turns, so that one with many photos does not keep the others waiting.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._running = 0
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """Futures of the waiting photos, by client; the first client is next."""
        self._pool = None if settings.alone else ThreadPoolExecutor(settings.concurrency, thread_name_prefix="photo")

    async def run(self, function: Callable[[bytes], T], photo: bytes, request: Request) -> tuple[T, float]:
        """Call a function with a photo once it is its turn.

        Parameters
        ----------
        function
            Called with the photo; it may block.
        photo
            Its argument.
        request
            The request that brought the photo; its body has been read.

        Returns
        -------
        result, seconds
            The function's result, and the time from its start, without waiting.

        Raises
        ------
        ProblemError
            The queue is full, the photo has waited too long or cannot be used, there is too little memory for it, or
            the model gives no usable answer.
        ClientDisconnect
            The client has closed the connection while the photo was waiting.
        """
        try:
            if self._pool is None:
                return _timed(function, photo)
            await self._take_turn(request)
            try:
                return await asyncio.get_running_loop().run_in_executor(self._pool, _timed, function, photo)
            finally:
                self._pass_turn()
        except PhotoError as error:
            raise problems.ProblemError(problems.KINDS[error.kind], str(error)) from None
        except InferenceError as error:
            raise problems.ProblemError(
                problems.NO_ANSWER, "the model gives no usable answer; tell whoever runs the service", cause=str(error)
            ) from error
        except MemoryError:
            raise problems.ProblemError(
                problems.TOO_LARGE, "there is too little memory for this photo; scale it down"
            ) from None

    async def _take_turn(self, request: Request) -> None:
        if self._running < self._settings.concurrency:
            self._running += 1
            return
        if sum(map(len, self._waiting.values())) >= self._settings.max_waiting:
            raise problems.busy()
        client, turn = client_of(request), asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(turn)
        departure = asyncio.ensure_future(_departure(request))
        try:
            await asyncio.wait(
                (turn, departure), timeout=self._settings.queue_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if departure.done():
                raise ClientDisconnect
            if not turn.done():
                raise problems.busy()
        except BaseException:
            self._leave(client, turn)
            raise
        finally:
            departure.cancel()

    def _pass_turn(self) -> None:
        """Hand a finished photo's turn to the next one."""
        self._running -= 1
        if self._waiting:
            client = next(iter(self._waiting))
            turns = self._waiting.pop(client)
            turns.popleft().set_result(None)
            self._running += 1
            if turns:
                self._waiting[client] = turns

    def _leave(self, client: str, turn: "asyncio.Future[None]") -> None:
        """Take a photo out of the queue."""
        if turn.done():
            self._pass_turn()
            return
        self._waiting[client].remove(turn)
        if not self._waiting[client]:
            del self._waiting[client]


async def _departure(request: Request) -> None:
    """Wait until the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _timed(function: Callable[[bytes], T], photo: bytes) -> tuple[T, float]:
    start = time.perf_counter()
    return function(photo), time.perf_counter() - start
