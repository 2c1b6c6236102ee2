"""Settings of the service: limits, key, uploads."""

import os
import re
from dataclasses import dataclass
from typing import Self

from catsdogs_lib.common.errors import SettingsError
from catsdogs_lib.common.s3 import Address

KEY_COVERAGES = ("all", "writes")


@dataclass(frozen=True)
class ServiceSettings:
    """Settings of the service.

    Parameters
    ----------
    max_body_bytes
        Largest request body; a larger one gets 413.
    body_seconds
        Time limit for a request body; a slower one gets 408.
    max_held_bytes
        Memory that the bodies of all requests may hold together while they arrive, wait or are processed; beyond it
        a request gets 503. Parsing a form briefly holds a second copy.
    max_waiting
        Photos that may wait in the queue; beyond it a request gets 503.
    concurrency
        Photos that are processed at once. Each may briefly need 250 MB.
    alone
        True if requests come one at a time, as on Lambda: photos are then processed on the event loop's thread,
        since waking another takes milliseconds.
    key_sha256
        SHA-256 of the key that callers must send, in hexadecimal digits. "" lets everybody in, and turns off every
        route that writes. The key itself is not kept.
    key_covers
        ``all``: every POST requires the key. ``writes``: a photo in the body of ``/predict`` does not.
    uploads
        Folder for photos that are too large for a request; None turns uploads off. They also require a key.
    upload_seconds
        Lifetime of an upload form, in seconds.
    cors_origins
        Origins of web pages elsewhere that may call, e.g. ``https://example.org``, or ``*`` for any. None by default.
        On Lambda they are ignored: there the Function URL alone answers for CORS.
    base_path
        Path that an API Gateway stage or a custom domain puts before ours, e.g. ``/prod``; "" without one. Lambda only.

    Raises
    ------
    SettingsError
        A value is invalid.
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
    cors_origins: tuple[str, ...] = ()
    base_path: str = ""

    def __post_init__(self) -> None:
        if self.key_sha256 and not re.fullmatch("[0-9a-f]{64}", self.key_sha256):
            # The value may be the key itself, by mistake: do not repeat it.
            raise SettingsError(
                "CATSDOGS_KEY_SHA256", "this is no SHA-256 in 64 hexadecimal digits; 'catsdogs key' prints one"
            )
        if self.key_covers not in KEY_COVERAGES:
            raise SettingsError("CATSDOGS_KEY_COVERS", f"'{self.key_covers}' is none of {', '.join(KEY_COVERAGES)}")
        for origin in self.cors_origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/?#@\s]+", origin):
                raise SettingsError(
                    "CATSDOGS_CORS_ORIGINS", f"'{origin}' is no origin; write https://host, without a path, or *"
                )
        if not re.fullmatch("(/[A-Za-z0-9._~$-]+)*", self.base_path):
            raise SettingsError("CATSDOGS_BASE_PATH", f"'{self.base_path}' is no path; write it as /prod")

    @property
    def accepts_uploads(self) -> bool:
        """True if callers may upload: uploads also require a key, since they could fill the bucket."""
        return bool(self.key_sha256 and self.uploads)

    @classmethod
    def from_environment(cls) -> Self:
        """Read the ``CATSDOGS_`` variables of key, uploads, CORS and base path; the rest are defaults."""
        uploads = os.environ.get(name := "CATSDOGS_UPLOADS", "")
        origins = (origin.strip().rstrip("/") for origin in os.environ.get("CATSDOGS_CORS_ORIGINS", "").split(","))
        base_path = os.environ.get("CATSDOGS_BASE_PATH", "").strip().strip("/")
        return cls(
            key_sha256=os.environ.get("CATSDOGS_KEY_SHA256", "").strip().lower(),
            key_covers=os.environ.get("CATSDOGS_KEY_COVERS", "") or KEY_COVERAGES[0],
            uploads=Address.parse(name, uploads) if uploads else None,
            cors_origins=tuple(origin for origin in origins if origin),
            base_path=f"/{base_path}" if base_path else "",
        )
