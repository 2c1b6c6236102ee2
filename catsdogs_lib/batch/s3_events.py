"""Photos that arrive in a bucket: each gets one row in the results, and a dead letter if it has no answer.

Messages arrive more than once and in any order, and a function may die between any two steps. Processing is therefore
idempotent: a row's metadata names the object and the model it was made from, a row only replaces the row that was seen
before (conditional write), and a dead letter is sent before its row is written.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any
from urllib.parse import unquote_plus

from botocore.session import Session

from catsdogs_lib.batch.rows import Row, score_photo
from catsdogs_lib.common.errors import CatsdogsError
from catsdogs_lib.common.s3 import Address, ChangedError, MissingError, ObjectHead, OpenedObject, Storage
from catsdogs_lib.imaging.decoding import MAX_BYTES, PhotoError, PhotoTooLargeError
from catsdogs_lib.inference.classifier import Classifier

MAX_PREFETCHED = 4
"""Photos fetched while another is scored."""
MAX_REPORTED_ERROR_CHARS = 1000


class UnreadableMessageError(CatsdogsError):
    """A message is not an S3 notification."""

    kind = "unreadable-message"


class S3ObjectGoneError(PhotoError):
    """The object that a notification names no longer exists."""

    kind = "gone"


@dataclass(frozen=True)
class S3Object:
    """A photo in a bucket, as a notification names it.

    Attributes
    ----------
    version
        "" if the bucket keeps no versions.
    sequencer
        Changes with each write to the key; the same in every copy of a notification.
    notice
        Notification of this photo alone.
    """

    bucket: str
    key: str
    etag: str
    version: str
    sequencer: str
    notice: dict[str, Any]


def read_message(body: str) -> list[S3Object]:
    """Read the photos that a message names: S3's own notification, or one that came through EventBridge.

    Test events, deletions and folder markers name none.

    Raises
    ------
    UnreadableMessageError
        The message is neither.
    """
    try:
        photos = _objects(json.loads(body))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"[:MAX_REPORTED_ERROR_CHARS]
        raise UnreadableMessageError(f"the message is no notification of S3 ({reason}); check its sender") from None
    return [photo for photo in photos if not photo.key.endswith("/")]


def _objects(notice: dict[str, Any]) -> list[S3Object]:
    if "Records" in notice:
        return [_from_record(record) for record in notice["Records"] if "ObjectCreated:" in record["eventName"]]
    if "detail" in notice:
        return [_from_event_bridge(notice)] if notice["detail-type"] == "Object Created" else []
    if notice["Event"] != "s3:TestEvent":
        raise ValueError(f"the event '{notice['Event']}'")
    return []


def _from_record(record: dict[str, Any]) -> S3Object:
    content = record["s3"]["object"]
    return S3Object(
        bucket=record["s3"]["bucket"]["name"],
        # S3 form-encodes keys in its own notifications (a space is a plus); EventBridge does not.
        key=unquote_plus(content["key"]),
        etag=content.get("eTag", ""),
        version=content.get("versionId", ""),
        sequencer=content.get("sequencer", ""),
        notice={"Records": [record]},
    )


def _from_event_bridge(notice: dict[str, Any]) -> S3Object:
    content = notice["detail"]["object"]
    return S3Object(
        bucket=notice["detail"]["bucket"]["name"],
        key=content["key"],
        etag=content.get("etag", ""),
        version=content.get("version-id", ""),
        sequencer=content.get("sequencer", ""),
        notice=notice,
    )


class DeadLetters:
    """The dead-letter queue, for photos that will never get an answer.

    Parameters
    ----------
    url
        URL of the queue.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    @cached_property
    def _client(self) -> Any:
        return Session().create_client("sqs")

    def send(self, kind: str, reason: str, notice: dict[str, Any]) -> None:
        """Send a dead letter. It includes the notification, so moving it back to the queue retries the photo."""
        printable = "".join(character if character.isprintable() else " " for character in reason)
        attributes = {"kind": kind, "reason": printable[:MAX_REPORTED_ERROR_CHARS]}
        self._client.send_message(
            QueueUrl=self._url,
            MessageBody=json.dumps({**notice, **attributes}),
            MessageAttributes={
                name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
            },
        )


class S3Batch:
    """Scores photos in buckets.

    Parameters
    ----------
    classifier
        Model that scores.
    storage
        Client of S3.
    """

    def __init__(self, classifier: Classifier, storage: Storage) -> None:
        self._classifier = classifier
        self._storage = storage

    def rows(self, bucket: str, keys: Iterable[str]) -> list[Row]:
        """Score photos, in order; the next ones are fetched while one is scored.

        Raises
        ------
        StorageError
            S3 does not answer; the photos may be fine.
        """
        return [score_photo(self._classifier, key, fetched.result)[0] for key, fetched in self._fetched(bucket, keys)]

    def _fetched(self, bucket: str, keys: Iterable[str]) -> Iterator[tuple[str, "Future[bytes]"]]:
        with ThreadPoolExecutor(MAX_PREFETCHED) as pool:
            queue: deque[tuple[str, Future[bytes]]] = deque()
            for key in keys:
                queue.append((key, pool.submit(self._fetch, bucket, key)))
                if len(queue) > MAX_PREFETCHED:
                    yield queue.popleft()
            yield from queue

    def _fetch(self, bucket: str, key: str) -> bytes:
        try:
            with self._storage.open(bucket, key) as opened:
                return _content(opened)
        except MissingError:
            raise S3ObjectGoneError("the photo is not there any more; upload it again") from None


class S3PhotoProcessor(S3Batch):
    """Writes a row for each photo that a queue of notifications names.

    Parameters
    ----------
    classifier, storage
        See `S3Batch`.
    results
        Folder for the rows; each is named after its photo's key, plus ``.json``.
    letters
        Queue for photos without an answer, besides their row.
    """

    def __init__(self, classifier: Classifier, storage: Storage, results: Address, letters: DeadLetters) -> None:
        super().__init__(classifier, storage)
        self._results = results
        self._letters = letters

    def process_message(
        self, body: str, process: Callable[..., dict[str, Any]] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Process all photos of a message.

        Parameters
        ----------
        body
            Body of the message.
        process
            `process`, perhaps wrapped for idempotency; called with the keyword `photo`.

        Yields
        ------
        dict
            Outcome of each photo.

        Raises
        ------
        Exception
            Error of the first photo that has to be retried, after the others were processed.
        """
        first: Exception | None = None
        try:
            photos = read_message(body)
        except UnreadableMessageError as error:
            self._letters.send(error.kind, str(error), {"message": body})
            yield {"outcome": "refused", "kind": error.kind, "reason": str(error)}
            return
        for photo in photos:
            try:
                yield {"key": photo.key, **(process or self.process)(photo=photo)}
            except Exception as error:  # one photo must not block the others of its message
                first = first or error
        if first is not None:
            raise first

    def process(self, photo: S3Object) -> dict[str, Any]:
        """Write the row of a photo.

        Returns
        -------
        dict
            `outcome`, with fields of the row: ``answered``; ``refused``, a dead letter was sent; ``known``, the row
            existed; ``replaced`` by another photo, which has its own message; ``result``, the object is itself a row.

        Raises
        ------
        StorageError
            S3 does not answer, or another function wrote the row first; the message has to be retried.
        """
        if photo.bucket == self._results.bucket and photo.key.startswith(f"{self._results.prefix}/"):
            return {"outcome": "result"}
        # Read before the photo is opened, so that a row written from here on is not overwritten.
        before = self._storage.head(self._results.bucket, self._row_key(photo))
        try:
            opened = self._storage.open(photo.bucket, photo.key, photo.etag)
        except ChangedError:
            return {"outcome": "replaced"}
        except MissingError:
            reason = "the photo was deleted before it was scored; upload it again"
            self._letters.send(S3ObjectGoneError.kind, reason, photo.notice)
            return {"outcome": "refused", "kind": S3ObjectGoneError.kind, "reason": reason}
        with opened:
            return self._write_row(photo, opened, before)

    def _row_key(self, photo: S3Object) -> str:
        return self._results.key(f"{photo.key}.json")

    def _write_row(self, photo: S3Object, opened: OpenedObject, before: ObjectHead | None) -> dict[str, Any]:
        version = self._classifier.bundle.version
        provenance = {"etag": opened.etag, "version": opened.version, "model-version": version}
        if before is not None and before.metadata == provenance:
            return {"outcome": "known"}
        row, kind = score_photo(self._classifier, photo.key, partial(_content, opened))
        if kind is not None:
            self._letters.send(kind, row["error"] or "", photo.notice)
        origin = {"bucket": photo.bucket, "etag": opened.etag, "version": opened.version or None}
        content = {**row, **origin, "scored_at": datetime.now(UTC).isoformat(timespec="seconds")}
        data, bucket = json.dumps(content, allow_nan=False).encode(), self._results.bucket
        self._storage.write(bucket, self._row_key(photo), data, "application/json", provenance, before)
        if kind is not None:
            return {"outcome": "refused", "kind": kind, "reason": row["error"]}
        return {"outcome": "answered", "prediction": row["prediction"], "confidence": row["confidence"]}


def _content(opened: OpenedObject) -> bytes:
    if opened.size > MAX_BYTES:
        raise PhotoTooLargeError(f"the file is larger than {MAX_BYTES >> 20} MiB; scale the photo down")
    return opened.read()
