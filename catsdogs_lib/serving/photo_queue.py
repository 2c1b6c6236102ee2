"""The queue in which photos wait to be classified, with a limit on its length."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from catsdogs_lib.imaging.decoding import PhotoError
from catsdogs_lib.serving import problems
from catsdogs_lib.serving.settings import ServiceSettings

T = TypeVar("T")


class PhotoQueue:
    """Runs at most ``settings.concurrency`` photos at once; at most ``settings.max_waiting`` more wait."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._capacity = settings.concurrency + settings.max_waiting
        self._length = 0
        self._pool = None if settings.alone else ThreadPoolExecutor(settings.concurrency, thread_name_prefix="photo")

    async def run(self, function: Callable[[bytes], T], photo: bytes) -> tuple[T, float]:
        """Call a function with a photo once it is its turn.

        Returns
        -------
        result, seconds
            The function's result, and the time from its start, without waiting.

        Raises
        ------
        ProblemError
            The queue is full, the photo cannot be used, or there is too little memory for it.
        """
        if self._length >= self._capacity:
            raise problems.busy()
        self._length += 1
        try:
            if self._pool is None:
                return _timed(function, photo)
            return await asyncio.get_running_loop().run_in_executor(self._pool, _timed, function, photo)
        except PhotoError as error:
            raise problems.ProblemError(problems.KINDS[error.kind], str(error)) from None
        except MemoryError:
            raise problems.ProblemError(
                problems.TOO_LARGE, "there is too little memory for this photo; scale it down"
            ) from None
        finally:
            self._length -= 1


def _timed(function: Callable[[bytes], T], photo: bytes) -> tuple[T, float]:
    start = time.perf_counter()
    return function(photo), time.perf_counter() - start
