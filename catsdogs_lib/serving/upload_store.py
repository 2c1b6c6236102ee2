"""The S3 folder for photos that are too large for a request: callers upload with a form, then name the object's key."""

import asyncio
import re
import uuid
from importlib.util import find_spec

from pydantic import ValidationError

from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.common.s3 import MissingError, OpenedObject, Storage, StorageError
from catsdogs_lib.serving import problems
from catsdogs_lib.serving.body_memory import MemoryReservation
from catsdogs_lib.serving.form import ReceivedPhoto
from catsdogs_lib.serving.schemas import Upload, UploadedPhoto
from catsdogs_lib.serving.settings import ServiceSettings

_NAME = re.compile("[0-9a-f]{32}")


class UploadStore:
    """Creates upload forms, and reads the photos that were uploaded.

    Parameters
    ----------
    settings
        The folder, and the limits.

    Raises
    ------
    CatsdogsError
        botocore is not installed.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        assert settings.uploads is not None
        if find_spec("botocore") is None:
            raise CatsdogsError("uploads need more tools: pip install 'catsdogs[aws]', or leave CATSDOGS_UPLOADS unset")
        self._settings = settings
        self._folder = settings.uploads
        self._storage = Storage()

    async def form(self) -> Upload:
        """Create the form of one upload; raises `ProblemError` if S3 fails."""
        key = self._folder.key(uuid.uuid4().hex)
        limit, seconds = self._settings.max_body_bytes, self._settings.upload_seconds
        try:
            form = await asyncio.to_thread(self._storage.form, self._folder.bucket, key, limit, seconds)
        except StorageError as error:
            raise _store_failed(error) from None
        return Upload(url=form.url, fields=form.fields, key=key, expires_seconds=seconds, max_bytes=limit)

    async def read(self, body: bytes, reservation: MemoryReservation) -> ReceivedPhoto:
        """Read the photo that a JSON body names; its size is checked and reserved before it is read.

        Raises
        ------
        ProblemError
            The body names no upload, the upload is missing or too large, or the service or S3 is too busy.
        """
        key = self._key(body)
        try:
            with await asyncio.to_thread(self._storage.open, self._folder.bucket, key) as opened:
                return ReceivedPhoto(await self._read(opened, reservation), key)
        except MissingError:
            raise problems.ProblemError(
                problems.NO_UPLOAD,
                "no photo was uploaded under this key, or it has been deleted since; ask /uploads for a new form",
            ) from None
        except StorageError as error:
            raise _store_failed(error) from None

    async def _read(self, opened: OpenedObject, reservation: MemoryReservation) -> bytes:
        if opened.size > self._settings.max_body_bytes:
            raise problems.ProblemError(
                problems.TOO_LARGE,
                f"the upload is larger than {self._settings.max_body_bytes / 2**20:g} MiB; scale the photo down",
            )
        if opened.size == 0:
            raise problems.ProblemError(problems.NO_PHOTO, "the upload is empty; choose another photo")
        reservation.take(opened.size)
        return await asyncio.to_thread(opened.read)

    def _key(self, body: bytes) -> str:
        try:
            key = UploadedPhoto.model_validate_json(body).key
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise problems.ProblemError(
                problems.MALFORMED,
                f'the JSON cannot be used ({reason[:200]}); send {{"key": ...}} with the key that /uploads gave',
            ) from None
        folder, _, name = key.rpartition("/")
        if folder != self._folder.prefix or not _NAME.fullmatch(name):
            raise problems.ProblemError(
                problems.NO_UPLOAD, "this is no key of an upload; use the one that /uploads gave"
            )
        return key


def _store_failed(error: StorageError) -> problems.ProblemError:
    # Names of buckets and roles go to the log, not to the sender.
    return problems.ProblemError(
        problems.STORE_FAILED,
        "the store of uploads gives no answer; try again in a moment",
        {"retry-after": "5"},
        cause=str(error),
    )
