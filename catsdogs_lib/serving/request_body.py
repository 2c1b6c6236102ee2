"""The body of a request, read within limits on size, time and memory."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from starlette.requests import Request

from catsdogs_lib.serving import problems
from catsdogs_lib.serving.body_memory import BodyMemory, MemoryReservation, client_of
from catsdogs_lib.serving.form import HOW_TO_SEND, FormBody, ReceivedPhoto
from catsdogs_lib.serving.settings import ServiceSettings

FORM_MEDIA_TYPE = "multipart/form-data"
JSON_MEDIA_TYPE = "application/json"
MAX_JSON_BYTES = 4096
"""Maximum size of a JSON body, which holds an id and a class, or a key."""
DRAIN_BYTES = 64 * 2**20
"""Most clients read the response only after sending the whole body: up to this size it is read and discarded."""
RATE_SECONDS = 5.0
"""Period over which the minimum rate of a body is measured."""
_CLOSE = {"connection": "close"}


class BodyReader:
    """Reads request bodies within the limits of the settings.

    Parameters
    ----------
    settings
        The limits.
    read_upload
        Reads the uploaded photo that a JSON body names; None where uploads are off.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        read_upload: Callable[[bytes, MemoryReservation], Awaitable[ReceivedPhoto]] | None = None,
    ) -> None:
        self.settings = settings
        self._read_upload = read_upload
        self._memory = BodyMemory(settings)

    @asynccontextmanager
    async def photo(self, request: Request) -> AsyncIterator[ReceivedPhoto]:
        """Read the photo of a request; its memory is reserved until the context ends.

        Raises
        ------
        ProblemError
            The body holds no photo, is too slow, too large, compressed or of another media type, or the service is
            too busy.
        ClientDisconnect
            The client has closed the connection.
        """
        with self._reservation(request) as reservation:
            yield await self._photo(request, reservation)

    async def json(self, request: Request, too_large: problems.ProblemError) -> bytes:
        """Read a JSON body of at most `MAX_JSON_BYTES` bytes, or raise `too_large`; other errors as in `photo`."""
        body = bytearray()
        with self._reservation(request) as reservation:
            await self._read(request, reservation, body, MAX_JSON_BYTES, too_large)
        return bytes(body)

    @contextmanager
    def _reservation(self, request: Request) -> Iterator[MemoryReservation]:
        reservation = MemoryReservation(self._memory, client_of(request), _declared_bytes(request))
        try:
            yield reservation
        finally:
            reservation.release()

    async def _photo(self, request: Request, reservation: MemoryReservation) -> ReceivedPhoto:
        kind = media_type(request)
        if kind == JSON_MEDIA_TYPE and self._read_upload is not None:
            too_large = problems.ProblemError(
                problems.MALFORMED,
                f"the JSON cannot be used (it has more than {MAX_JSON_BYTES} bytes); "
                'send {"key": ...} with the key that /uploads gave',
                _CLOSE,
            )
            name = bytearray()
            await self._read(request, reservation, name, MAX_JSON_BYTES, too_large)
            return await self._read_upload(bytes(name), reservation)
        limit = self.settings.max_body_bytes
        too_large = problems.ProblemError(
            problems.TOO_LARGE, f"the body is larger than {limit / 2**20:g} MiB; scale the photo down", _CLOSE
        )
        body = FormBody(request.headers["content-type"]) if kind == FORM_MEDIA_TYPE else bytearray()
        if not await self._read(request, reservation, body, limit, too_large):
            raise problems.ProblemError(problems.NO_PHOTO, f"the body is empty; {HOW_TO_SEND}")
        if isinstance(body, FormBody):
            return body.photo()
        if kind.startswith("image/"):
            return ReceivedPhoto(bytes(body), None)
        reason = f"the content type '{kind[:80]}' is not read" if kind else "there is no content type"
        raise problems.ProblemError(problems.NOT_A_PHOTO, f"{reason}; {HOW_TO_SEND}")

    async def _read(
        self,
        request: Request,
        reservation: MemoryReservation,
        body: bytearray | FormBody,
        limit: int,
        too_large: problems.ProblemError,
    ) -> int:
        """Append a request's body to `body` and return its size; raises `too_large` over `limit` bytes."""
        _require_identity(request)
        declared = reservation.declared
        expects_continue = request.headers.get("expect", "").lower() == "100-continue"
        # Not Starlette's `max_body_size`: where the declared length exceeds it, Starlette sends a text/plain 413 in
        # place of any answer of ours, a 401 included. Nor has it a time limit, or memory that all requests share.
        if declared > DRAIN_BYTES or (declared > limit and expects_continue):
            raise too_large
        received = pending = 0
        now, period_bytes = asyncio.get_running_loop().time, self.settings.min_body_rate * RATE_SECONDS
        end = now() + self.settings.body_seconds
        try:
            async with asyncio.timeout_at(min(end, now() + RATE_SECONDS)) as timeout:
                async for chunk in request.stream():
                    received += len(chunk)
                    pending += len(chunk)
                    if pending >= period_bytes:
                        pending = 0
                        timeout.reschedule(min(end, now() + RATE_SECONDS))
                    if received > DRAIN_BYTES:
                        raise too_large
                    if received > limit:
                        body.clear()
                        reservation.release()
                        continue
                    reservation.take(len(chunk))
                    body.extend(chunk)
        except TimeoutError:
            raise self._too_slow(now() >= end) from None
        if received > limit:
            raise too_large
        return received

    def _too_slow(self, out_of_time: bool) -> problems.ProblemError:
        if out_of_time:
            reason = f"the body did not arrive within {self.settings.body_seconds:g} seconds"
        else:
            rate = self.settings.min_body_rate / 2**10
            reason = f"the body arrived at less than {rate:g} KiB a second for {RATE_SECONDS:g} seconds"
        return problems.ProblemError(problems.SLOW_BODY, f"{reason}; send it again, perhaps scaled down", _CLOSE)


def media_type(request: Request) -> str:
    """Get the media type of a request's body, in lower case and without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _declared_bytes(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if re.fullmatch("[0-9]{1,18}", length) else 0


def _require_identity(request: Request) -> None:
    # Photos are compressed already; unpacking would add another way to make a small body large.
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise problems.ProblemError(
            problems.CONTENT_ENCODING,
            f"the body has the Content-Encoding '{encoding[:40]}', which is not supported; send it uncompressed",
            {"accept-encoding": "identity"},
        )
