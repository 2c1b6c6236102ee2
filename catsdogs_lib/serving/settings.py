"""Settings of the service: limits, key, uploads."""

import math
import os
import re
from dataclasses import dataclass
from typing import Self

from catsdogs_lib.common.errors import SettingsError
from catsdogs_lib.common.s3 import Address
from catsdogs_lib.imaging import heic
from catsdogs_lib.imaging.decoding import FORMATS

KEY_COVERAGES = ("all", "writes")
_DIGEST = "[0-9a-f]{64}"
_DIGESTS = re.compile(rf"{_DIGEST}((\s*,\s*|\s+){_DIGEST})?")


@dataclass(frozen=True)
class ServiceSettings:
    """Settings of the service.

    Parameters
    ----------
    max_body_bytes
        Largest request body; a larger one gets 413.
    body_seconds
        Time limit for a request body; a slower one gets 408.
    min_body_rate
        Minimum rate of a request body, in bytes per second over 5 seconds; a slower one gets 408.
    max_held_bytes
        Memory that the bodies of all requests may hold together while they arrive, wait or are processed; beyond it
        a request gets 503. One body at a time is briefly copied when it is complete.
    max_client_bytes
        Maximum share of `max_held_bytes` for one client, identified by its address. Where all clients share one
        address, as behind a proxy that does not forward theirs, set it to `max_held_bytes`.
    small_body_bytes
        Size up to which a body is small.
    small_bodies_bytes
        Part of `max_held_bytes`, and of `max_client_bytes`, that only small bodies may use.
    max_waiting
        Photos that may wait in the queue; beyond it a request gets 503. Clients take turns.
    queue_seconds
        Time limit for the wait in the queue, from the arrival of the whole photo; beyond it a request gets 503.
    concurrency
        Photos that are processed at once. Each may briefly need 250 MB.
    alone
        True if requests come one at a time, as on Lambda: photos are then processed on the event loop's thread,
        since waking another takes milliseconds.
    key_sha256
        SHA-256 of the key that callers must send, in hexadecimal digits; or two, separated by a comma or a space:
        both keys are accepted while callers change from one to the other. "" lets everybody in, and turns off every
        route that writes. The keys themselves are not kept.
    key_covers
        ``all``: every POST requires the key. ``writes``: a photo in the body of ``/predict`` does not.
    uploads
        Folder for photos that are too large for a request; None turns uploads off. They also require a key.
    upload_seconds
        Lifetime of an upload form, in seconds.
    cors_origins
        Origins of web pages that may call the API, e.g. ``https://example.org``, or ``*`` for any. None by default.
        On Lambda they are ignored: there the Function URL alone handles CORS.
    base_path
        Path prefix added by an API Gateway stage or a custom domain, e.g. ``/prod``; "" without one. Lambda only.
    formats
        Formats of photos to accept; any other gets 415.

    Raises
    ------
    SettingsError
        A value is invalid.
    """

    max_body_bytes: int = 24 * 2**20
    body_seconds: float = 30.0
    min_body_rate: int = 8 * 2**10
    max_held_bytes: int = 96 * 2**20
    max_client_bytes: int = 48 * 2**20
    small_body_bytes: int = 4 * 2**20
    small_bodies_bytes: int = 16 * 2**20
    max_waiting: int = 64
    queue_seconds: float = 10.0
    concurrency: int = 1
    alone: bool = False
    key_sha256: str = ""
    key_covers: str = "all"
    uploads: Address | None = None
    upload_seconds: int = 300
    cors_origins: tuple[str, ...] = ()
    base_path: str = ""
    formats: tuple[str, ...] = FORMATS

    def __post_init__(self) -> None:
        if self.key_sha256 and not _DIGESTS.fullmatch(self.key_sha256):
            # The value may be the key itself, by mistake: do not repeat it.
            raise SettingsError(
                "CATSDOGS_KEY_SHA256",
                "this is no SHA-256 in 64 hexadecimal digits, nor two separated by a comma; 'catsdogs key' prints one",
            )
        if self.key_covers not in KEY_COVERAGES:
            raise SettingsError("CATSDOGS_KEY_COVERS", f"'{self.key_covers}' is none of {', '.join(KEY_COVERAGES)}")
        for origin in self.cors_origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/?#@\s]+", origin):
                raise SettingsError(
                    "CATSDOGS_CORS_ORIGINS", f"'{origin}' is not an origin; write https://host, without a path, or *"
                )
        if not re.fullmatch("(/[A-Za-z0-9._~$-]+)*", self.base_path):
            raise SettingsError("CATSDOGS_BASE_PATH", f"'{self.base_path}' is not a path; write it as /prod")
        for name in self.formats:
            if name not in FORMATS:
                raise SettingsError("CATSDOGS_FORMATS", f"'{name[:40]}' is not read; use some of {', '.join(FORMATS)}")
        if "HEIC" in self.formats and self.formats != FORMATS and not heic.is_installed():
            raise SettingsError("CATSDOGS_FORMATS", "HEIC needs more tools: pip install 'catsdogs[heic]'")

    @property
    def key_digests(self) -> tuple[str, ...]:
        """The digests in `key_sha256`: none, one, or two."""
        return tuple(re.findall(_DIGEST, self.key_sha256))

    @property
    def accepts_uploads(self) -> bool:
        """True if callers may upload: uploads also require a key, since they could fill the bucket."""
        return bool(self.key_sha256 and self.uploads)

    @classmethod
    def from_environment(cls) -> Self:
        """Read the ``CATSDOGS_`` variables for key, uploads, CORS, base path, formats, queue and body memory."""
        uploads = os.environ.get(name := "CATSDOGS_UPLOADS", "")
        origins = (origin.strip().rstrip("/") for origin in os.environ.get("CATSDOGS_CORS_ORIGINS", "").split(","))
        base_path = os.environ.get("CATSDOGS_BASE_PATH", "").strip().strip("/")
        formats = (name.strip().upper() for name in os.environ.get("CATSDOGS_FORMATS", "").split(","))
        return cls(
            key_sha256=os.environ.get("CATSDOGS_KEY_SHA256", "").strip().lower(),
            key_covers=os.environ.get("CATSDOGS_KEY_COVERS", "") or KEY_COVERAGES[0],
            uploads=Address.parse(name, uploads) if uploads else None,
            cors_origins=tuple(origin for origin in origins if origin),
            base_path=f"/{base_path}" if base_path else "",
            queue_seconds=_positive_number("CATSDOGS_QUEUE_SECONDS", cls.queue_seconds),
            max_client_bytes=int(_positive_number("CATSDOGS_CLIENT_MIB", cls.max_client_bytes / 2**20) * 2**20),
            formats=tuple(dict.fromkeys(name for name in formats if name)) or FORMATS,
        )


def _positive_number(name: str, default: float) -> float:
    """Read a positive number from the environment."""
    text = os.environ.get(name, "")
    try:
        number = float(text or default)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise SettingsError(name, f"'{text[:40]}' is not a positive number")
    return number
