"""``POST /feedback``: the true class of a photo, reported by callers with the key."""

import asyncio
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from catsdogs_lib.serving import auth, problems
from catsdogs_lib.serving.middleware import record_of
from catsdogs_lib.serving.schemas import Feedback, Kept
from catsdogs_lib.serving.settings import ServiceSettings
from catsdogs_lib.serving.state import state_of
from catsdogs_lib.serving.telemetry import FEEDBACK_ROUTE

MAX_BYTES = 4096


async def feedback(request: Request) -> Response:
    """Log the true class beside the record of its prediction; monitoring joins them, and the last one counts."""
    state = state_of(request)
    auth.require_key(request, state.settings)
    classes = state.classifier.classes
    report = _parse(await _read(request, state.settings.body_seconds))
    if report.truth not in classes:
        raise problems.ProblemError(
            problems.MALFORMED, f"the truth is none of the classes {', '.join(classes)}; name one"
        )
    record = record_of(request)
    record.prediction_id, record.truth = report.prediction_id, report.truth
    return JSONResponse(Kept().model_dump(), 202)


async def _read(request: Request, seconds: float) -> bytes:
    body = b""
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise problems.ProblemError(
                        problems.TOO_LARGE,
                        f"feedback has at most {MAX_BYTES} bytes; send an id and a class",
                        {"connection": "close"},
                    )
    except TimeoutError:
        raise problems.ProblemError(
            problems.SLOW_BODY,
            f"the body did not arrive within {seconds:g} seconds; send it again",
            {"connection": "close"},
        ) from None
    return body


def _parse(body: bytes) -> Feedback:
    try:
        return Feedback.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the body"
        raise problems.ProblemError(
            problems.MALFORMED, f'{field}: {first["msg"][:200]}; send {{"prediction_id": ..., "truth": ...}} as JSON'
        ) from None


ROUTES = (Route(FEEDBACK_ROUTE, feedback, methods=["POST"]),)


def documentation(_: ServiceSettings) -> dict[Callable[..., Any], dict[str, Any]]:
    """Describe the endpoint for OpenAPI."""
    body = {"required": True, "content": {"application/json": {"schema": Feedback.model_json_schema()}}}
    return {
        feedback: {
            "status_code": 202,
            "summary": "Tell what really was on a photo",
            "tags": ["Operation"],
            "response_model": Kept,
            "responses": problems.openapi_responses(400, 401, 408, 413, 503),
            "openapi_extra": {"requestBody": body},
        }
    }
