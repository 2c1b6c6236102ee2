"""The photo in a request's body, read within limits on size, time and memory."""

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
from catsdogs_lib.serving.settings import ServiceSettings

FORM_FIELD = "file"
JSON_MEDIA_TYPE = "application/json"
MAX_FORM_PARTS = 8
DRAIN_BYTES = 64 * 2**20
"""Most clients read the response only after sending the whole body: up to this size it is read and discarded."""
HOW_TO_SEND = f"send a photo as multipart form (curl -F {FORM_FIELD}=@photo.jpg), or its bare bytes as image/*"


class ReceivedPhoto(NamedTuple):
    """A photo's bytes, and the name of the sender's file, if any."""

    data: bytes
    filename: str | None


class MemoryReservation:
    """One request's share of the memory that all bodies may hold together."""

    def __init__(self, reader: "BodyReader") -> None:
        self._reader = reader
        self._bytes = 0

    def take(self, count: int) -> None:
        """Reserve `count` bytes more; raises `ProblemError` (503) if they exceed the limit."""
        if self._reader.held_bytes + count > self._reader.settings.max_held_bytes:
            raise problems.busy()
        self._reader.held_bytes += count
        self._bytes += count

    def release(self) -> None:
        """Release the whole reservation."""
        self._reader.held_bytes -= self._bytes
        self._bytes = 0


class BodyReader:
    """Reads request bodies, and counts the memory that they hold together.

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
        self.held_bytes = 0

    @asynccontextmanager
    async def photo(self, request: Request) -> AsyncIterator[ReceivedPhoto]:
        """Read the photo of a request; its memory is reserved until the context ends.

        Raises
        ------
        ProblemError
            The body holds no photo, is too slow, too large or of another media type, or the service is too busy.
        ClientDisconnect
            The client has closed the connection.
        """
        reservation = MemoryReservation(self)
        try:
            yield await self._photo(request, reservation)
        finally:
            reservation.release()

    async def _photo(self, request: Request, reservation: MemoryReservation) -> ReceivedPhoto:
        kind = media_type(request)
        data = await self._read(request, reservation)
        if not data:
            raise problems.ProblemError(problems.NO_PHOTO, f"the body is empty; {HOW_TO_SEND}")
        if kind.startswith("image/"):
            return ReceivedPhoto(data, None)
        if kind == "multipart/form-data":
            return await _photo_in_form(request, data)
        if kind == JSON_MEDIA_TYPE and self._read_upload is not None:
            return await self._read_upload(data, reservation)
        reason = f"the content type '{kind[:80]}' is not read" if kind else "there is no content type"
        raise problems.ProblemError(problems.NOT_A_PHOTO, f"{reason}; {HOW_TO_SEND}")

    async def _read(self, request: Request, reservation: MemoryReservation) -> bytes:
        limit, length = self.settings.max_body_bytes, request.headers.get("content-length", "")
        declared = int(length) if re.fullmatch("[0-9]{1,18}", length) else 0
        expects_continue = request.headers.get("expect", "").lower() == "100-continue"
        # Not Starlette's `max_body_size`: where the declared length exceeds it, Starlette sends a text/plain 413 in
        # place of any answer of ours, a 401 included. Nor has it a time limit, or memory that all requests share.
        if declared > DRAIN_BYTES or (declared > limit and expects_continue):
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
                        reservation.release()
                        continue
                    reservation.take(len(chunk))
                    body += chunk
        except TimeoutError:
            raise problems.ProblemError(
                problems.SLOW_BODY,
                f"the body did not arrive within {self.settings.body_seconds:g} seconds; send it again, perhaps "
                "scaled down",
                {"connection": "close"},
            ) from None
        if received > limit:
            raise self._too_large()
        return bytes(body)

    def _too_large(self) -> problems.ProblemError:
        return problems.ProblemError(
            problems.TOO_LARGE,
            f"the body is larger than {self.settings.max_body_bytes / 2**20:g} MiB; scale the photo down",
            {"connection": "close"},
        )


def media_type(request: Request) -> str:
    """Get the media type of a request's body, in lower case and without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


class _InMemoryParser(MultiPartParser):
    """Parser that keeps files in memory, where the body already is, within its limit."""

    spool_max_size = 2**31

    @property
    def _charset(self) -> str:
        # Not the sender's choice: some charsets decode to text that no log can hold.
        return "utf-8"

    @_charset.setter
    def _charset(self, value: str) -> None:
        pass


async def _chunks(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


async def _photo_in_form(request: Request, body: bytes) -> ReceivedPhoto:
    limits = {"max_files": MAX_FORM_PARTS, "max_fields": MAX_FORM_PARTS, "max_part_size": 2**16}
    parser = _InMemoryParser(request.headers, _chunks(body), **limits)
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError, KeyError, ValueError) as error:
        reason = getattr(error, "message", None) or str(error)
        raise problems.ProblemError(
            problems.MALFORMED, f"the multipart form cannot be read ({reason[:200]}); {HOW_TO_SEND}"
        ) from None
    try:
        values = form.getlist(FORM_FIELD)
        if len(values) != 1:
            count = f"{len(values)} fields" if values else "no field"
            raise problems.ProblemError(problems.NO_PHOTO, f"the form has {count} '{FORM_FIELD}'; {HOW_TO_SEND}")
        (file,) = values
        if not isinstance(file, UploadFile):
            raise problems.ProblemError(
                problems.NO_PHOTO, f"the field '{FORM_FIELD}' is text, not a file; {HOW_TO_SEND}"
            )
        photo = ReceivedPhoto(await file.read(), (file.filename or "")[:200] or None)
        if not photo.data:
            raise problems.ProblemError(
                problems.NO_PHOTO, f"the file in the field '{FORM_FIELD}' is empty; choose another photo"
            )
        return photo
    finally:
        await form.close()
