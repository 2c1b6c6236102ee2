"""Objects in S3. botocore comes with Lambda's image, elsewhere with the extra ``aws``; it is imported on first use."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple, Self

from catsdogs_lib.common.errors import CatsdogsError, SettingsError

_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/([^\s?#]*[^\s?#/])/?")
_MISSING_CODES = frozenset({"404", "NoSuchKey", "NoSuchVersion"})
_CHANGED_CODES = frozenset({"412", "PreconditionFailed"})


class StorageError(CatsdogsError):
    """A request to S3 has failed; a retry may help."""


class MissingError(StorageError):
    """The object does not exist."""


class ChangedError(StorageError):
    """The object has been replaced since it was last seen."""


class Address(NamedTuple):
    """A folder in a bucket."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, setting: str, text: str) -> Self:
        """Parse ``s3://bucket/folder``; raises `SettingsError` for `setting` if it is invalid."""
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise SettingsError(setting, f"'{text}' is no folder of a bucket; write it as s3://bucket/folder")
        return cls(*match.groups())

    def key(self, name: str) -> str:
        """Build the key of the object `name` in this folder."""
        return f"{self.prefix}/{name}"


class UploadForm(NamedTuple):
    """A form that uploads one object: the URL to post to, and the fields that precede the file."""

    url: str
    fields: dict[str, str]


class ObjectHead(NamedTuple):
    """An object's tag and metadata, without its content."""

    etag: str
    metadata: Mapping[str, str]


class OpenedObject(contextlib.AbstractContextManager["OpenedObject"]):
    """An object whose size is known and whose content has not been read yet; closes as a context manager."""

    def __init__(self, response: Mapping[str, Any], name: str) -> None:
        self.size: int = response["ContentLength"]
        self.etag: str = response["ETag"].strip('"')
        self.version: str = response.get("VersionId", "")
        self._body = response["Body"]
        self._name = name

    def read(self) -> bytes:
        """Read the content; raises `StorageError` if it does not arrive whole."""
        with _translated_errors(self._name):
            return bytes(self._body.read())

    def __exit__(self, *error: object) -> None:
        self._body.close()


class Storage:
    """Client of S3 with the credentials of the environment. Every method blocks, and may raise `StorageError`."""

    @cached_property
    def _client(self) -> Any:
        from botocore.config import Config
        from botocore.session import Session

        # Forms then name the region's own host and are signed with version 4, which every region accepts.
        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": "virtual"},
            connect_timeout=3,
            read_timeout=10,
            max_pool_connections=32,
            retries={"mode": "standard", "total_max_attempts": 3},
        )
        return Session().create_client("s3", config=config)

    def open(self, bucket: str, key: str, etag: str = "") -> OpenedObject:
        """Open an object.

        Raises
        ------
        MissingError
            The object does not exist.
        ChangedError
            Its tag is not `etag`.
        """
        condition = {"IfMatch": f'"{etag}"'} if etag else {}
        with _translated_errors(name := f"s3://{bucket}/{key}"):
            return OpenedObject(self._client.get_object(Bucket=bucket, Key=key, **condition), name)

    def head(self, bucket: str, key: str) -> ObjectHead | None:
        """Get an object's tag and metadata; None if the object does not exist."""
        try:
            with _translated_errors(f"s3://{bucket}/{key}"):
                response = self._client.head_object(Bucket=bucket, Key=key)
        except MissingError:
            return None
        return ObjectHead(response["ETag"], response["Metadata"])

    def write(
        self,
        bucket: str,
        key: str,
        data: bytes,
        media_type: str,
        metadata: Mapping[str, str],
        replaces: ObjectHead | None,
    ) -> None:
        """Write an object that replaces `replaces`, or a new one if that is None.

        Raises
        ------
        ChangedError
            Another writer was faster.
        """
        condition = {"IfNoneMatch": "*"} if replaces is None else {"IfMatch": replaces.etag}
        with _translated_errors(f"s3://{bucket}/{key}"):
            self._client.put_object(
                Bucket=bucket, Key=key, Body=data, ContentType=media_type, Metadata=dict(metadata), **condition
            )

    def form(self, bucket: str, key: str, max_bytes: int, seconds: int) -> UploadForm:
        """Create a form that uploads one image of at most `max_bytes` to this key, and expires after `seconds`."""
        with _translated_errors(f"s3://{bucket}/{key}"):
            form = self._client.generate_presigned_post(
                bucket,
                key,
                Fields={"Content-Type": "image/*"},
                Conditions=[["content-length-range", 1, max_bytes], ["starts-with", "$Content-Type", "image/"]],
                ExpiresIn=seconds,
            )
        return UploadForm(form["url"], form["fields"])


@contextlib.contextmanager
def _translated_errors(name: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _MISSING_CODES:
            raise MissingError(f"there is no {name}") from None
        if code in _CHANGED_CODES:
            raise ChangedError(f"{name} has been replaced since") from None
        reason = " ".join(str(error).split()).rstrip(".")
        raise StorageError(f"{name}: {reason}; check the permissions and that the bucket exists") from None
    except BotoCoreError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise StorageError(f"{name}: S3 cannot be asked ({reason}); check credentials, region and network") from None
