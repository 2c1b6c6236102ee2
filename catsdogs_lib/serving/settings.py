"""What the application allows a sender, and who may send."""

import os
import re
from dataclasses import dataclass
from typing import Self

from catsdogs_lib.common.errors import SettingsError
from catsdogs_lib.common.s3 import Address

COVERS = ("all", "writes")


@dataclass(frozen=True)
class ServiceSettings:
    """Limits of the application, its key and its store of uploads.

    Parameters
    ----------
    max_body_bytes
        A larger request body is refused.
    body_seconds
        A body that has not arrived whole by then is ended.
    max_held_bytes
        What the bodies of all requests that are arriving, waiting or being looked at may hold in memory; beyond it
        a request is told to come again. Parsing a form holds a second copy for a moment.
    max_waiting
        Photos that may wait for their turn; beyond it a request is told to come again.
    concurrency
        Photos that are decoded and looked at at once. Each may need 250 MB for a moment.
    alone
        Requests come one at a time, as on Lambda: a photo is looked at where its request is read, since waking a
        thread costs milliseconds.
    key_sha256
        Digest of the key that senders must name, in hexadecimal digits; "" lets everybody in, and turns off whatever
        writes. Only the digest is kept, so there is no secret to lose here.
    key_covers
        ``all``: every POST needs the key. ``writes``: a photo in the body of ``/predict`` needs none.
    uploads
        Where photos too large for a request go; None turns uploads off, as no key does.
    upload_seconds
        So long an upload may begin after it was asked for.

    Raises
    ------
    SettingsError
        A value that cannot be used.
    """

    max_body_bytes: int = 24 * 2**20
    body_seconds: float = 30.0
    max_held_bytes: int = 96 * 2**20
    max_waiting: int = 64
    concurrency: int = 1
    alone: bool = False
    key_sha256: str = ""
    key_covers: str = "all"
    uploads: Address | None = None
    upload_seconds: int = 300

    def __post_init__(self) -> None:
        if self.key_sha256 and not re.fullmatch("[0-9a-f]{64}", self.key_sha256):
            # What stands there may be the key itself, by mistake: it is not repeated.
            raise SettingsError(
                "CATSDOGS_KEY_SHA256", "this is no SHA-256 in 64 hexadecimal digits; 'catsdogs key' prints one"
            )
        if self.key_covers not in COVERS:
            raise SettingsError("CATSDOGS_KEY_COVERS", f"'{self.key_covers}' is none of {', '.join(COVERS)}")

    @property
    def accepts_uploads(self) -> bool:
        """Uploads need a key: whoever may upload can fill the bucket."""
        return bool(self.key_sha256 and self.uploads)

    @classmethod
    def from_environment(cls) -> Self:
        """Read what ``CATSDOGS_KEY_SHA256``, ``CATSDOGS_KEY_COVERS`` and ``CATSDOGS_UPLOADS`` say."""
        uploads = os.environ.get(name := "CATSDOGS_UPLOADS", "")
        return cls(
            key_sha256=os.environ.get("CATSDOGS_KEY_SHA256", "").strip().lower(),
            key_covers=os.environ.get("CATSDOGS_KEY_COVERS", "") or COVERS[0],
            uploads=Address.parse(name, uploads) if uploads else None,
        )
