"""A request's body, within limits of size, time and memory, and the photo in it."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from catsdogs_lib.serving import problems
from catsdogs_lib.serving.problems import ProblemError
from catsdogs_lib.serving.settings import ServiceSettings

FIELD = "file"
JSON = "application/json"
MAX_PARTS = 8
DRAIN_BYTES = 64 * 2**20
"""A sender hears a refusal only once it has stopped sending: so much of a body too large is read and dropped."""

SEND = f"send a photo as multipart form (curl -F {FIELD}=@photo.jpg), or its bare bytes as image/*"


class ReceivedPhoto(NamedTuple):
    """What was sent: the bytes, and the name that the sender's file has, if any."""

    data: bytes
    filename: str | None


class MemoryReservation:
    """What one request holds of the memory that all bodies share."""

    def __init__(self, bodies: "BodyReader") -> None:
        self._bodies = bodies
        self._bytes = 0

    def take(self, count: int) -> None:
        """Count so many bytes more; raises `ProblemError` where there is no room for them."""
        if self._bodies.held + count > self._bodies.settings.max_held_bytes:
            raise busy()
        self._bodies.held += count
        self._bytes += count

    def give_back(self) -> None:
        """Count none any more."""
        self._bodies.held -= self._bytes
        self._bytes = 0


class BodyReader:
    """Reads bodies; knows how much all of them hold.

    Parameters
    ----------
    settings
        The limits.
    named
        Reads the photo that a JSON body names; None where none can be named.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        named: Callable[[bytes, MemoryReservation], Awaitable[ReceivedPhoto]] | None = None,
    ) -> None:
        self.settings = settings
        self._named = named
        self.held = 0

    @asynccontextmanager
    async def photo(self, request: Request) -> AsyncIterator[ReceivedPhoto]:
        """Read the photo of a request; it counts as held until the context ends.

        Raises
        ------
        ProblemError
            There is none, or it comes too slowly, is too large, of another kind, or the service is too busy.
        ClientDisconnect
            The sender has left.
        """
        held = MemoryReservation(self)
        try:
            yield await self._photo(request, held)
        finally:
            held.give_back()

    async def _photo(self, request: Request, held: MemoryReservation) -> ReceivedPhoto:
        kind = kind_of(request)
        data = await self._read(request, held)
        if not data:
            raise ProblemError(problems.NO_PHOTO, f"the body is empty; {SEND}")
        if kind.startswith("image/"):
            return ReceivedPhoto(data, None)
        if kind == "multipart/form-data":
            return await _file_of(request, data)
        if kind == JSON and self._named is not None:
            return await self._named(data, held)
        said = f"the content type '{kind[:80]}' is not read" if kind else "there is no content type"
        raise ProblemError(problems.NOT_A_PHOTO, f"{said}; {SEND}")

    async def _read(self, request: Request, held: MemoryReservation) -> bytes:
        limit, length = self.settings.max_body_bytes, request.headers.get("content-length", "")
        declared = int(length) if re.fullmatch("[0-9]{1,18}", length) else 0
        waits = request.headers.get("expect", "").lower() == "100-continue"
        if declared > DRAIN_BYTES or (declared > limit and waits):
            raise self._too_large()
        body, received = bytearray(), 0
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                async for chunk in request.stream():
                    received += len(chunk)
                    if received > DRAIN_BYTES:
                        raise self._too_large()
                    if received > limit:
                        body.clear()
                        held.give_back()
                        continue
                    held.take(len(chunk))
                    body += chunk
        except TimeoutError:
            seconds = self.settings.body_seconds
            detail = f"the body did not arrive within {seconds:g} seconds; send it again, perhaps scaled down"
            raise ProblemError(problems.SLOW_BODY, detail, {"connection": "close"}) from None
        if received > limit:
            raise self._too_large()
        return bytes(body)

    def _too_large(self) -> ProblemError:
        limit = self.settings.max_body_bytes / 2**20
        detail = f"the body is larger than {limit:g} MiB; scale the photo down"
        return ProblemError(problems.TOO_LARGE, detail, {"connection": "close"})


def kind_of(request: Request) -> str:
    """Give the media type of a request's body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def busy() -> ProblemError:
    """The problem of a service that has enough to do."""
    detail = "too many photos are waiting; send it again in a second"
    return ProblemError(problems.BUSY, detail, {"retry-after": "1", "connection": "close"})


class _InMemory(MultiPartParser):
    """Keeps files in memory: the body has been read whole, and within its limit."""

    spool_max_size = 2**31

    @property
    def _charset(self) -> str:
        # Not the sender's choice: some charsets make text of bytes that no log can hold.
        return "utf-8"

    @_charset.setter
    def _charset(self, named: str) -> None:
        pass


async def _file_of(request: Request, body: bytes) -> ReceivedPhoto:
    async def once() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _InMemory(request.headers, once(), max_files=MAX_PARTS, max_fields=MAX_PARTS, max_part_size=2**16)
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError, KeyError, ValueError) as error:
        reason = getattr(error, "message", None) or str(error)
        detail = f"the multipart form cannot be read ({reason[:200]}); {SEND}"
        raise ProblemError(problems.MALFORMED, detail) from None
    try:
        found = form.getlist(FIELD)
        if len(found) != 1:
            said = f"the form has {len(found)} fields '{FIELD}'" if found else f"the form has no field '{FIELD}'"
            raise ProblemError(problems.NO_PHOTO, f"{said}; {SEND}")
        (value,) = found
        if not isinstance(value, UploadFile):
            raise ProblemError(problems.NO_PHOTO, f"the field '{FIELD}' is text, not a file; {SEND}")
        photo = ReceivedPhoto(await value.read(), (value.filename or "")[:200] or None)
        if not photo.data:
            raise ProblemError(problems.NO_PHOTO, f"the file in the field '{FIELD}' is empty; choose another photo")
        return photo
    finally:
        await form.close()
