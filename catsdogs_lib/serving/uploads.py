"""Photos too large for a request: the sender uploads them to S3 with a form made here, then names their key."""

import asyncio
import re
import uuid
from importlib.util import find_spec
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.common.s3 import Address, MissingError, Opened, Storage, StorageError
from catsdogs_lib.serving import auth, problems
from catsdogs_lib.serving.operations import Operation
from catsdogs_lib.serving.problems import ProblemError
from catsdogs_lib.serving.request_body import MemoryReservation, ReceivedPhoto
from catsdogs_lib.serving.schemas import Upload, UploadedPhoto
from catsdogs_lib.serving.settings import ServiceSettings

_NAME = re.compile("[0-9a-f]{32}")


class Uploads:
    """Makes forms for uploads, and reads what was uploaded.

    Parameters
    ----------
    settings
        The limits.
    place
        Where uploads go.

    Raises
    ------
    CatsdogsError
        What speaks with S3 is not installed.
    """

    def __init__(self, settings: ServiceSettings, place: Address) -> None:
        if find_spec("botocore") is None:
            raise CatsdogsError("uploads need more tools: pip install 'catsdogs[aws]', or leave CATSDOGS_UPLOADS unset")
        self._settings = settings
        self._place = place
        self._storage = Storage()

    async def form(self) -> Upload:
        """Make the form of one upload; raises `ProblemError` where S3 cannot be asked."""
        key, limit, seconds = (
            self._place.key(uuid.uuid4().hex),
            self._settings.max_body_bytes,
            self._settings.upload_seconds,
        )
        try:
            form = await asyncio.to_thread(self._storage.form, self._place.bucket, key, limit, seconds)
        except StorageError as error:
            raise _failed(error) from None
        return Upload(url=form.url, fields=form.fields, key=key, expires_seconds=seconds, max_bytes=limit)

    async def photo(self, body: bytes, held: MemoryReservation) -> ReceivedPhoto:
        """Read the photo that a JSON body names; its size is judged, and counts as held, before it is read.

        Raises
        ------
        ProblemError
            The body names none, there is none, it is too large, or the service or S3 is too busy.
        """
        key = self._key(body)
        try:
            with await asyncio.to_thread(self._storage.open, self._place.bucket, key) as opened:
                return ReceivedPhoto(await self._read(opened, held), key)
        except MissingError:
            detail = "no photo was uploaded under this key, or it has been deleted since; ask /uploads for a new form"
            raise ProblemError(problems.NO_UPLOAD, detail) from None
        except StorageError as error:
            raise _failed(error) from None

    async def _read(self, opened: Opened, held: MemoryReservation) -> bytes:
        if opened.size > self._settings.max_body_bytes:
            limit = self._settings.max_body_bytes / 2**20
            raise ProblemError(problems.TOO_LARGE, f"the upload is larger than {limit:g} MiB; scale the photo down")
        if opened.size == 0:
            raise ProblemError(problems.NO_PHOTO, "the upload is empty; choose another photo")
        held.take(opened.size)
        return await asyncio.to_thread(opened.read)

    def _key(self, body: bytes) -> str:
        try:
            key = UploadedPhoto.model_validate_json(body).key
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]["msg"]
            detail = f'the JSON cannot be used ({wrong[:200]}); send {{"key": ...}} with the key that /uploads gave'
            raise ProblemError(problems.MALFORMED, detail) from None
        folder, _, name = key.rpartition("/")
        if folder != self._place.prefix or not _NAME.fullmatch(name):
            raise ProblemError(problems.NO_UPLOAD, "this is no key of an upload; use the one that /uploads gave")
        return key


def operation(uploads: Uploads, settings: ServiceSettings) -> Operation:
    """Give the operation that gives forms."""

    async def upload(_: Request) -> Response:
        return JSONResponse((await uploads.form()).model_dump(), 201, {"cache-control": "no-store"})

    return Operation("POST", "/uploads", upload, _documentation, auth.guard(settings))


def _documentation() -> dict[str, Any]:
    return {
        "status_code": 201,
        "summary": "Get a form for a photo too large for a request",
        "description": "Post the fields and then the photo, as the field 'file', to the url as multipart/form-data. "
        "Then name the key to /predict.",
        "tags": ["Prediction"],
        "response_model": Upload,
        "responses": problems.documented(401, 503),
    }


def _failed(error: StorageError) -> ProblemError:
    # The sender need not know the names of buckets and roles; the log does.
    detail = "the store of uploads gives no answer; try again in a moment"
    return ProblemError(problems.STORE_FAILED, detail, {"retry-after": "5"}, cause=str(error))
