"""Objects in S3. botocore comes with Lambda's image, elsewhere with the extra ``aws``; it is imported on first use."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, NamedTuple, Self

from catsdogs_lib.common.errors import CatsdogsError, SettingsError

_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/([^\s?#]*[^\s?#/])/?")
_MISSING = frozenset({"404", "NoSuchKey", "NoSuchVersion"})
_CHANGED = frozenset({"412", "PreconditionFailed"})


class StorageError(CatsdogsError):
    """S3 does not do what it was asked for; a later try may help."""


class MissingError(StorageError):
    """There is no such object."""


class ChangedError(StorageError):
    """The object is another than the one that was meant: it has been replaced since."""


class Address(NamedTuple):
    """A folder in a bucket."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, setting: str, text: str) -> Self:
        """Read ``s3://bucket/folder``; raises `SettingsError` naming `setting` where it is none."""
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise SettingsError(setting, f"'{text}' is no folder of a bucket; write it as s3://bucket/folder")
        return cls(*found.groups())

    def key(self, name: str) -> str:
        """Give the key of the object `name` in this folder."""
        return f"{self.prefix}/{name}"


class Form(NamedTuple):
    """What a form that uploads one object is posted to, and the fields that go before its file."""

    url: str
    fields: dict[str, str]


@dataclass(frozen=True)
class About:
    """What an object says of itself."""

    etag: str
    metadata: Mapping[str, str]


class Opened:
    """An object whose size is known and whose content has not been read; a context manager that closes it."""

    def __init__(self, answer: Mapping[str, Any], name: str) -> None:
        self.size: int = answer["ContentLength"]
        self.etag: str = answer["ETag"].strip('"')
        self.version: str = answer.get("VersionId", "")
        self._body = answer["Body"]
        self._name = name

    def read(self) -> bytes:
        """Read it whole; raises `StorageError` where it does not arrive whole."""
        with _sentences(self._name):
            data: bytes = self._body.read()
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._body.close()


class Storage:
    """S3, asked with the rights of whoever runs this. Every method waits for the network and raises `StorageError`."""

    @cached_property
    def _client(self) -> Any:
        from botocore.config import Config
        from botocore.session import Session

        # A form that names the region's own host, signed with version 4, is taken at once wherever the bucket lies.
        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": "virtual"},
            connect_timeout=3,
            read_timeout=10,
            max_pool_connections=32,
            retries={"mode": "standard", "total_max_attempts": 3},
        )
        return Session().create_client("s3", config=config)

    def open(self, bucket: str, key: str, etag: str = "") -> Opened:
        """Open an object.

        Raises
        ------
        MissingError
            There is none.
        ChangedError
            It has another tag than `etag`.
        """
        only = {"IfMatch": f'"{etag}"'} if etag else {}
        with _sentences(name := f"s3://{bucket}/{key}"):
            return Opened(self._client.get_object(Bucket=bucket, Key=key, **only), name)

    def about(self, bucket: str, key: str) -> About | None:
        """Say what an object says of itself; None where there is none."""
        try:
            with _sentences(f"s3://{bucket}/{key}"):
                answer = self._client.head_object(Bucket=bucket, Key=key)
        except MissingError:
            return None
        return About(answer["ETag"], answer["Metadata"])

    def write(
        self, bucket: str, key: str, data: bytes, media_type: str, metadata: Mapping[str, str], replaces: About | None
    ) -> None:
        """Write an object in the place of `replaces`; None: where there is none yet.

        Raises
        ------
        ChangedError
            Another writer was faster.
        """
        only = {"IfNoneMatch": "*"} if replaces is None else {"IfMatch": replaces.etag}
        with _sentences(f"s3://{bucket}/{key}"):
            self._client.put_object(
                Bucket=bucket, Key=key, Body=data, ContentType=media_type, Metadata=dict(metadata), **only
            )

    def form(self, bucket: str, key: str, max_bytes: int, seconds: int) -> Form:
        """Make a form that uploads one image of at most `max_bytes` under exactly this key, for so many seconds."""
        with _sentences(f"s3://{bucket}/{key}"):
            made = self._client.generate_presigned_post(
                bucket,
                key,
                Fields={"Content-Type": "image/*"},
                Conditions=[["content-length-range", 1, max_bytes], ["starts-with", "$Content-Type", "image/"]],
                ExpiresIn=seconds,
            )
        return Form(made["url"], made["fields"])


@contextlib.contextmanager
def _sentences(name: str) -> Iterator[None]:
    """Turn what botocore raises into errors of ours."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _MISSING:
            raise MissingError(f"there is no {name}") from None
        if code in _CHANGED:
            raise ChangedError(f"{name} has been replaced since") from None
        said = " ".join(str(error).split()).rstrip(".")
        raise StorageError(f"{name}: {said}; check the permissions and that the bucket exists") from None
    except BotoCoreError as error:
        said = " ".join(str(error).split()).rstrip(".")
        raise StorageError(f"{name}: S3 cannot be asked ({said}); check credentials, region and network") from None
