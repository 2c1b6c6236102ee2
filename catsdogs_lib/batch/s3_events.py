"""Photos that land in a bucket: each becomes one row in the results, or a letter that says why it has no answer.

Messages come more than once and in any order, and a function may die between any two steps. So a row carries the mark
of what it was made from, it is written only in the place of what was seen there before, and a letter goes out before
the row that settles its photo: whatever is repeated ends in the same one row.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from urllib.parse import unquote_plus

from botocore.session import Session

from catsdogs_lib.batch.rows import Row, answered_row, error_row, score_photo
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.common.s3 import Address, ChangedError, MissingError, ObjectHead, OpenedObject, Storage
from catsdogs_lib.imaging.decoding import MAX_BYTES, PhotoError, PhotoTooLargeError
from catsdogs_lib.inference.classifier import TOO_LITTLE_MEMORY, Classifier

MAX_PREFETCHED = 4
"""Photos that are fetched while one is looked at."""
MAX_REPORTED_ERROR_CHARS = 1000


class UnreadableMessageError(CatsdogsError):
    """A message is no notification of S3."""

    kind = "unreadable-message"


class S3ObjectGoneError(PhotoError):
    """The photo that a notification names is not there any more."""

    kind = "gone"


@dataclass(frozen=True)
class S3Object:
    """A photo that landed in a bucket.

    Attributes
    ----------
    version
        "" where the bucket keeps none.
    sequencer
        Another each time the key is written to, the same in each copy of a notification.
    notice
        The notification of this photo alone.
    """

    bucket: str
    key: str
    etag: str
    version: str
    sequencer: str
    notice: dict[str, Any]


def read_message(body: str) -> list[S3Object]:
    """Read the photos that a message names: notifications that S3 sends itself, or through EventBridge.

    Test messages, deletions and the markers of empty folders name none.

    Raises
    ------
    UnreadableMessageError
        The message is neither.
    """
    try:
        found = _named(json.loads(body))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}"[:MAX_REPORTED_ERROR_CHARS]
        raise UnreadableMessageError(f"the message is no notification of S3 ({said}); see what sends it") from None
    return [photo for photo in found if not photo.key.endswith("/")]


def _named(notice: dict[str, Any]) -> list[S3Object]:
    if "Records" in notice:
        return [_of_record(record) for record in notice["Records"] if "ObjectCreated:" in record["eventName"]]
    if "detail" in notice:
        return [_of_detail(notice)] if notice["detail-type"] == "Object Created" else []
    if notice["Event"] != "s3:TestEvent":
        raise ValueError(f"the event '{notice['Event']}'")
    return []


def _of_record(record: dict[str, Any]) -> S3Object:
    found = record["s3"]["object"]
    return S3Object(
        bucket=record["s3"]["bucket"]["name"],
        # S3 writes these keys as forms write theirs: a space is a plus. EventBridge leaves them as they are.
        key=unquote_plus(found["key"]),
        etag=found.get("eTag", ""),
        version=found.get("versionId", ""),
        sequencer=found.get("sequencer", ""),
        notice={"Records": [record]},
    )


def _of_detail(notice: dict[str, Any]) -> S3Object:
    found = notice["detail"]["object"]
    return S3Object(
        bucket=notice["detail"]["bucket"]["name"],
        key=found["key"],
        etag=found.get("etag", ""),
        version=found.get("version-id", ""),
        sequencer=found.get("sequencer", ""),
        notice=notice,
    )


class DeadLetters:
    """The queue of what will never get an answer.

    Parameters
    ----------
    url
        Of the queue.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    @cached_property
    def _client(self) -> Any:
        return Session().create_client("sqs")

    def send(self, kind: str, reason: str, notice: dict[str, Any]) -> None:
        """Send a letter. It holds the notification, too: moved back to the queue, it is looked at again."""
        said = "".join(sign if sign.isprintable() else " " for sign in reason)[:MAX_REPORTED_ERROR_CHARS]
        named = {"kind": kind, "reason": said}
        self._client.send_message(
            QueueUrl=self._url,
            MessageBody=json.dumps({**notice, **named}),
            MessageAttributes={name: {"DataType": "String", "StringValue": value} for name, value in named.items()},
        )


class S3Batch:
    """Answers for photos in buckets.

    Parameters
    ----------
    classifier
        What answers.
    storage
        Where photos lie.
    """

    def __init__(self, classifier: Classifier, storage: Storage) -> None:
        self._classifier = classifier
        self._storage = storage

    def rows(self, bucket: str, keys: Iterable[str]) -> list[Row]:
        """Give the row of each photo, in their order; the next ones are fetched while one is looked at.

        Raises
        ------
        StorageError
            S3 gives no answer; nothing is wrong with the photos.
        """
        return [score_photo(self._classifier, key, fetched.result) for key, fetched in self._fetched(bucket, keys)]

    def _fetched(self, bucket: str, keys: Iterable[str]) -> Iterator[tuple[str, "Future[bytes]"]]:
        with ThreadPoolExecutor(MAX_PREFETCHED) as pool:
            waiting: deque[tuple[str, Future[bytes]]] = deque()
            for key in keys:
                waiting.append((key, pool.submit(self._fetch, bucket, key)))
                if len(waiting) > MAX_PREFETCHED:
                    yield waiting.popleft()
            yield from waiting

    def _fetch(self, bucket: str, key: str) -> bytes:
        try:
            with self._storage.open(bucket, key) as opened:
                return _content(opened)
        except MissingError:
            raise S3ObjectGoneError("the photo is not there any more; put it there again") from None


class S3PhotoProcessor(S3Batch):
    """Settles photos one by one: each gets its row.

    Parameters
    ----------
    classifier, storage
        See `S3Batch`.
    results
        Where rows go: the key of the photo, and ``.json``.
    letters
        Where what is wrong with a photo goes, besides its row.
    """

    def __init__(self, classifier: Classifier, storage: Storage, results: Address, letters: DeadLetters) -> None:
        super().__init__(classifier, storage)
        self._results = results
        self._letters = letters

    def handle(self, body: str, settle: Callable[..., dict[str, Any]] | None = None) -> Iterator[dict[str, Any]]:
        """Settle all photos of a message.

        Parameters
        ----------
        body
            Of the message.
        settle
            `settle`, perhaps wrapped; called with the keyword `photo`.

        Yields
        ------
        dict
            What became of each photo.

        Raises
        ------
        Exception
            What kept the first of those photos from being settled that have to come again.
        """
        first: Exception | None = None
        try:
            dropped = read_message(body)
        except UnreadableMessageError as error:
            self._letters.send(error.kind, str(error), {"message": body})
            yield {"outcome": "refused", "kind": error.kind, "reason": str(error)}
            return
        for photo in dropped:
            try:
                yield {"key": photo.key, **(settle or self.settle)(photo=photo)}
            except Exception as error:  # one photo must not keep the others of its message waiting
                first = first or error
        if first is not None:
            raise first

    def settle(self, photo: S3Object) -> dict[str, Any]:
        """Write the row of a photo.

        Returns
        -------
        dict
            `outcome`: ``answered``; ``refused``, and a letter was sent; ``known``, its row was there; ``replaced`` by
            another photo, which has a message of its own; ``result``, a row is no photo. With it what its row says.

        Raises
        ------
        StorageError
            S3 does not answer, or another function was faster; the message has to come again.
        """
        if photo.bucket == self._results.bucket and photo.key.startswith(f"{self._results.prefix}/"):
            return {"outcome": "result"}
        # Before the photo is opened: a row that another photo gets from here on is not written over.
        before = self._storage.head(self._results.bucket, self._row_key(photo))
        try:
            opened = self._storage.open(photo.bucket, photo.key, photo.etag)
        except ChangedError:
            return {"outcome": "replaced"}
        except MissingError:
            reason = "the photo was deleted before it was looked at; put it there again"
            self._letters.send(S3ObjectGoneError.kind, reason, photo.notice)
            return {"outcome": "refused", "kind": S3ObjectGoneError.kind, "reason": reason}
        with opened:
            return self._settle(photo, opened, before)

    def _row_key(self, photo: S3Object) -> str:
        return self._results.key(f"{photo.key}.json")

    def _settle(self, photo: S3Object, opened: OpenedObject, before: ObjectHead | None) -> dict[str, Any]:
        version = self._classifier.bundle.version
        mark = {"etag": opened.etag, "version": opened.version, "model-version": version}
        if before is not None and before.metadata == mark:
            return {"outcome": "known"}
        kind = None
        try:
            row = answered_row(photo.key, self._classifier.predict(_content(opened)), version)
        except PhotoError as error:
            kind, row = error.kind, error_row(photo.key, str(error), version)
        except MemoryError:
            kind, row = PhotoTooLargeError.kind, error_row(photo.key, TOO_LITTLE_MEMORY, version)
        if kind is not None:
            self._letters.send(kind, row["error"] or "", photo.notice)
        origin = {"bucket": photo.bucket, "etag": opened.etag, "version": opened.version or None}
        content = {**row, **origin, "scored_at": datetime.now(UTC).isoformat(timespec="seconds")}
        data, place = json.dumps(content).encode(), self._results.bucket
        self._storage.write(place, self._row_key(photo), data, "application/json", mark, before)
        if kind is not None:
            return {"outcome": "refused", "kind": kind, "reason": row["error"]}
        return {"outcome": "answered", "prediction": row["prediction"], "confidence": row["confidence"]}


def _content(opened: OpenedObject) -> bytes:
    if opened.size > MAX_BYTES:
        raise PhotoTooLargeError(f"the file is larger than {MAX_BYTES >> 20} MiB; scale the photo down")
    return opened.read()
