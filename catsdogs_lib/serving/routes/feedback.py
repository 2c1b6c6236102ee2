"""``POST /feedback``: the true class of a photo, reported by callers with the key."""

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from catsdogs_lib.serving import auth, problems
from catsdogs_lib.serving.middleware import record_of
from catsdogs_lib.serving.request_body import MAX_JSON_BYTES
from catsdogs_lib.serving.schemas import Feedback, Kept
from catsdogs_lib.serving.settings import ServiceSettings
from catsdogs_lib.serving.state import state_of
from catsdogs_lib.serving.telemetry import FEEDBACK_ROUTE


async def feedback(request: Request) -> Response:
    """Log the true class beside the record of its prediction; monitoring joins them, and the last one counts."""
    state = state_of(request)
    auth.require_key(request, state.settings)
    classes = state.classifier.classes
    too_large = problems.ProblemError(
        problems.TOO_LARGE,
        f"feedback has at most {MAX_JSON_BYTES} bytes; send an id and a class",
        {"connection": "close"},
    )
    report = _parse(await state.body_reader.json(request, too_large))
    if report.truth not in classes:
        raise problems.ProblemError(
            problems.MALFORMED, f"the truth is none of the classes {', '.join(classes)}; name one"
        )
    record = record_of(request)
    record.prediction_id, record.truth = report.prediction_id, report.truth
    return JSONResponse(Kept().model_dump(), 202)


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
            "responses": problems.openapi_responses(400, 401, 408, 413, 415, 503),
            "openapi_extra": {"requestBody": body},
        }
    }
