"""Problem documents (RFC 9457), and the kinds of problems that the service reports."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from catsdogs_lib.common.errors import CatsdogsError

MEDIA_TYPE = "application/problem+json"


class Kind(NamedTuple):
    """A kind of problem; its `name` ends the type URI ``/problems/<name>``."""

    name: str
    status: int
    title: str
    meaning: str


NO_PHOTO = Kind("no-photo", 400, "No photo in the request", "The body is empty, or has no file in the field 'file'.")
MALFORMED = Kind("malformed-request", 400, "The request cannot be read", "The body or the head breaks its format.")
BROKEN_EVENT = Kind(
    "broken-event", 400, "The event is broken", "A field of the Lambda event is missing or of another type."
)
BROKEN_BASE64 = Kind(
    "broken-base64", 400, "The body's base64 is broken", "The Lambda event's body cannot be decoded as base64."
)
FORM_CUT_OFF = Kind("form-cut-off", 400, "The form is cut off", "Its final boundary is missing; send it again.")
KEY_NEEDED = Kind("key-needed", 401, "A key is needed", "Send the key in the header x-api-key.")
NOT_FOUND = Kind("not-found", 404, "Nothing at this path", "See /docs for the paths that there are.")
NO_UPLOAD = Kind("no-upload", 404, "No such upload", "Ask /uploads for a form, upload the photo, name its key.")
METHOD_NOT_ALLOWED = Kind("method-not-allowed", 405, "Method not allowed", "The header Allow names the right ones.")
SLOW_BODY = Kind("slow-body", 408, "The body did not arrive in time", "Send it again over a better connection.")
TOO_LARGE = Kind("too-large", 413, "The photo is too large", "More bytes or pixels than are read; scale it down.")
NOT_A_PHOTO = Kind("not-a-photo", 415, "Not a photo that can be read", "The content is in no format that is read.")
CONTENT_ENCODING = Kind(
    "content-encoding", 415, "The body is compressed", "Send it without Content-Encoding, as Accept-Encoding says."
)
TEXT_ENCODED = Kind("text-encoded", 415, "The photo is encoded as text", "Send its bytes, not base64 or other text.")
BODY_AS_TEXT = Kind("body-as-text", 415, "The photo was treated as text", "Set binary media types on the gateway.")
UNSUPPORTED_VARIANT = Kind(
    "unsupported-variant", 415, "Variant of a format not supported", "Save the photo as an 8-bit JPEG or PNG."
)
UNDECODABLE = Kind("undecodable", 422, "The photo is damaged", "Its head can be read, but its pixels cannot.")
INTERNAL = Kind("internal-error", 500, "Unexpected error", "A mistake of ours. It was logged under the request id.")
NOT_READY = Kind("not-ready", 503, "No model loaded", "Whoever runs the service has to mend that.")
NO_ANSWER = Kind("no-answer", 503, "The model gives no answer", "The operator of the service must replace the model.")
BUSY = Kind("busy", 503, "Too many requests at once", "Come again after the seconds that Retry-After names.")
STORE_FAILED = Kind(
    "store-failed", 503, "The store of uploads fails", "Come again after the seconds that Retry-After names."
)

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        NO_PHOTO,
        MALFORMED,
        BROKEN_EVENT,
        BROKEN_BASE64,
        FORM_CUT_OFF,
        KEY_NEEDED,
        NOT_FOUND,
        NO_UPLOAD,
        METHOD_NOT_ALLOWED,
        SLOW_BODY,
        TOO_LARGE,
        NOT_A_PHOTO,
        CONTENT_ENCODING,
        TEXT_ENCODED,
        BODY_AS_TEXT,
        UNSUPPORTED_VARIANT,
        UNDECODABLE,
        INTERNAL,
        NOT_READY,
        NO_ANSWER,
        BUSY,
        STORE_FAILED,
    )
}


class Problem(BaseModel):
    """A problem document."""

    model_config = ConfigDict(defer_build=True)

    type: str = Field(description="URI reference of the kind of problem", examples=["/problems/not-a-photo"])
    title: str
    status: int = Field(description="the HTTP status, again")
    detail: str = Field(description="what is wrong here and what to do about it")
    request_id: str = Field(description="name it when you report the problem")


@dataclass
class ProblemError(CatsdogsError):
    """An error that ends a request with a problem document.

    Attributes
    ----------
    kind
        The kind of problem.
    detail
        One or two sentences: what is wrong with this request, and what to do about it.
    headers
        Headers of the response, e.g. ``Retry-After``.
    cause
        What the sender need not know; it is only logged.
    """

    kind: Kind
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)
    cause: str | None = None

    def __str__(self) -> str:
        return self.detail


def busy() -> ProblemError:
    """Build the error of a service at its limits; the client may retry in a second."""
    return ProblemError(
        BUSY,
        "too many photos are waiting; send it again in a second",
        {"retry-after": "1", "connection": "close"},
    )


def document(problem: ProblemError, request_id: str) -> JSONResponse:
    """Build the response that reports a problem."""
    kind = problem.kind
    content = Problem(
        type=f"/problems/{kind.name}",
        title=kind.title,
        status=kind.status,
        detail=problem.detail,
        request_id=request_id,
    )
    return JSONResponse(content.model_dump(), kind.status, dict(problem.headers), MEDIA_TYPE)


def openapi_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the problems that an endpoint may report, as OpenAPI responses; 500 is always among them."""
    kinds: dict[int, list[Kind]] = {}
    for kind in KINDS.values():
        kinds.setdefault(kind.status, []).append(kind)
    return {
        status: {
            "description": " ".join(f"{kind.title}: {kind.meaning}" for kind in kinds[status]),
            "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
        }
        for status in (*statuses, 500)
    }
