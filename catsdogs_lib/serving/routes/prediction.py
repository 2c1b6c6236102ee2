"""``POST /predict`` and ``POST /explain``: the class of a photo, and where in the photo the model found it."""

import base64
import io
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.inference.explanation import Explanation
from catsdogs_lib.inference.explanation import explain as explain_photo
from catsdogs_lib.serving import auth, problems
from catsdogs_lib.serving.middleware import record_of
from catsdogs_lib.serving.request_body import JSON_MEDIA_TYPE, media_type
from catsdogs_lib.serving.schemas import ExplanationAnswer, PredictionAnswer, photo_body
from catsdogs_lib.serving.settings import ServiceSettings
from catsdogs_lib.serving.state import state_of
from catsdogs_lib.serving.telemetry import PREDICT_ROUTE

T = TypeVar("T")


async def predict(request: Request) -> Response:
    """Classify a photo."""
    settings = state_of(request).settings
    if settings.key_covers == "all" or media_type(request) == JSON_MEDIA_TYPE:
        auth.require_key(request, settings)
    (prediction, statistics), seconds, version = await _run(request, Classifier.predict_with_statistics)
    record = record_of(request)
    record.prediction, record.statistics, record.prediction_id = prediction, statistics, uuid.uuid4().hex
    return JSONResponse(PredictionAnswer.of(prediction, seconds, version, record.prediction_id).model_dump())


async def explain(request: Request) -> Response:
    """Classify a photo, and show what each place in it contributed."""
    auth.require_key(request, state_of(request).settings)
    (explanation, png), seconds, version = await _run(request, _explain)
    if _accepts_only_png(request):
        return Response(png, media_type="image/png")
    answer = ExplanationAnswer(
        **explanation.prediction._asdict(),
        method=state_of(request).classifier.bundle.description.explanation,
        map=explanation.heat.round(4).tolist(),
        overlay=f"data:image/png;base64,{base64.b64encode(png).decode()}",
        latency_seconds=seconds,
        model_version=version,
    )
    return JSONResponse(answer.model_dump())


def _accepts_only_png(request: Request) -> bool:
    ranges = ",".join(request.headers.getlist("accept")).split(",")
    return {accepted.partition(";")[0].strip().lower() for accepted in ranges} == {"image/png"}


async def _run(request: Request, function: Callable[[Classifier, bytes], T]) -> tuple[T, float, str]:
    """Run a function on the photo in a request; return its result, its seconds and the model's version."""
    state, record = state_of(request), record_of(request)
    classifier = state.classifier
    async with state.body_reader.photo(request) as photo:
        record.filename, record.photo_bytes = photo.filename, len(photo.data)
        record.model_version = version = classifier.bundle.version
        result, seconds = await state.queue.run(partial(function, classifier), photo.data, request)
    record.prediction_seconds = round(seconds, 6)
    return result, record.prediction_seconds, version


def _explain(classifier: Classifier, photo: bytes) -> tuple[Explanation, bytes]:
    explanation, png = explain_photo(classifier, photo), io.BytesIO()
    # The least compression: half a size more, for a third of the time.
    explanation.overlay().save(png, "PNG", compress_level=1)
    return explanation, png.getvalue()


ROUTES = (Route(PREDICT_ROUTE, predict, methods=["POST"]), Route("/explain", explain, methods=["POST"]))


def documentation(settings: ServiceSettings) -> dict[Callable[..., Any], dict[str, Any]]:
    """Describe the endpoints for OpenAPI."""
    with_key, with_uploads = bool(settings.key_sha256), settings.accepts_uploads
    statuses = 400, *([401] if with_key else ()), *([404] if with_uploads else ()), 408, 413, 415, 422, 503
    optional_key: dict[str, Any] = {"security": [{}]} if with_key and settings.key_covers == "writes" else {}
    shared = {
        "tags": ["Prediction"],
        "responses": problems.openapi_responses(*statuses),
    }
    body = photo_body(with_uploads)
    return {
        predict: {
            "summary": "Say what is on a photo",
            "response_model": PredictionAnswer,
            "openapi_extra": body | optional_key,
            **shared,
        },
        explain: {
            "summary": "Show where the model looked",
            "description": "As /predict, with a map of what each place of the photo added. Whoever accepts image/png "
            "alone gets the picture alone. It is not counted as a prediction and leaves no record.",
            "response_model": ExplanationAnswer,
            "openapi_extra": body,
            **shared,
        },
    }
