"""``POST /feedback``: what really was on a photo, told by whoever has the key, so that strangers cannot poison it."""

import asyncio
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from catsdogs_lib.serving import auth, problems
from catsdogs_lib.serving.middleware import record_of
from catsdogs_lib.serving.model import Model
from catsdogs_lib.serving.operations import Operation
from catsdogs_lib.serving.problems import ProblemError
from catsdogs_lib.serving.schemas import Feedback, Kept
from catsdogs_lib.serving.settings import ServiceSettings

MAX_BYTES = 4096
"""A truth is short."""


def operation(model: Model, settings: ServiceSettings) -> Operation:
    """Give the operation; for settings that hold a key.

    The truth becomes a line of the log, beside the records of answers; monitoring brings them together, the last word
    for an answer counts.
    """

    async def feedback(request: Request) -> Response:
        if model.classifier is None:
            raise ProblemError(problems.NOT_READY, model.reason, {"retry-after": "5"})
        given = _read(await _body(request, settings.body_seconds))
        classes = model.classifier.classes
        if given.truth not in classes:
            raise ProblemError(problems.MALFORMED, f"the truth is none of the classes {', '.join(classes)}; name one")
        outcome = record_of(request)
        outcome.prediction_id, outcome.truth = given.prediction_id, given.truth
        return JSONResponse(Kept().model_dump(), 202)

    return Operation("POST", "/feedback", feedback, _documentation, auth.guard(settings))


def _documentation() -> dict[str, Any]:
    body = {"required": True, "content": {"application/json": {"schema": Feedback.model_json_schema()}}}
    return {
        "status_code": 202,
        "summary": "Tell what really was on a photo",
        "tags": ["Operation"],
        "response_model": Kept,
        "responses": problems.documented(400, 401, 408, 413, 503),
        "openapi_extra": {"requestBody": body},
    }


async def _body(request: Request, seconds: float) -> bytes:
    body = b""
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BYTES:
                    detail = f"feedback has at most {MAX_BYTES} bytes; send an id and a class"
                    raise ProblemError(problems.TOO_LARGE, detail, {"connection": "close"})
    except TimeoutError:
        detail = f"the body did not arrive within {seconds:g} seconds; send it again"
        raise ProblemError(problems.SLOW_BODY, detail, {"connection": "close"}) from None
    return body


def _read(body: bytes) -> Feedback:
    try:
        return Feedback.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the body"
        detail = f'{field}: {first["msg"][:200]}; send {{"prediction_id": ..., "truth": ...}} as JSON'
        raise ProblemError(problems.MALFORMED, detail) from None
