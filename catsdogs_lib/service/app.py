"""The application. One for uvicorn and Lambda; what differs between them comes in as arguments."""

import asyncio
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from catsdogs_lib import __version__
from catsdogs_lib.classifier import Classifier
from catsdogs_lib.images import PhotoError
from catsdogs_lib.service import explanations, feedback, keys, page, problems, uploads
from catsdogs_lib.service.answers import ExplanationAnswer, Health, PredictionAnswer, Ready, Version, photo_body
from catsdogs_lib.service.bodies import JSON, Bodies, busy, kind_of
from catsdogs_lib.service.model import Model
from catsdogs_lib.service.observed import Observed, outcome_of
from catsdogs_lib.service.problems import ProblemError
from catsdogs_lib.service.settings import ServiceSettings
from catsdogs_lib.service.telemetry import Outcome, Telemetry
from catsdogs_lib.service.uploads import Uploads

Found = TypeVar("Found")


def create_app(model: Model, telemetry: Telemetry, settings: ServiceSettings | None = None) -> FastAPI:
    """Build the application.

    Parameters
    ----------
    model
        What answers. Without a classifier every question that needs one ends with 503 and the model's reason.
    telemetry
        Is told of every request.
    settings
        What a sender is allowed, and who is one; None takes the defaults.
    """
    settings = settings or ServiceSettings()
    app = FastAPI(
        title="Catsdogs",
        version=__version__,
        summary="Says which of a model's classes is on a photo.",
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
        redirect_slashes=False,
        responses=problems.documented(),
    )
    app.add_middleware(Observed, telemetry=telemetry)
    app.add_exception_handler(ProblemError, _answer_problem)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    store = Uploads(settings, settings.uploads) if settings.key_sha256 and settings.uploads else None
    bodies = Bodies(settings, store.photo if store else None)
    queue = _Queue(settings)
    open_to_all = bool(settings.key_sha256) and settings.key_covers == "writes"

    of_a_photo: dict[str, Any] = {
        "tags": ["Prediction"],
        "responses": problems.documented(
            400, *([401] if settings.key_sha256 else ()), *([404] if store else ()), 408, 413, 415, 422, 503
        ),
        "openapi_extra": photo_body(store is not None) | ({"security": [{}]} if open_to_all else {}),
        "dependencies": keys.needed(settings, lambda request: open_to_all and kind_of(request) != JSON),
    }

    async def looked_at(request: Request, look: Callable[[Classifier, bytes], Found]) -> tuple[Outcome, Found]:
        outcome = outcome_of(request)
        classifier = _classifier(model)
        async with bodies.photo(request) as photo:
            outcome.filename, outcome.photo_bytes = photo.filename, len(photo.data)
            outcome.model_version = classifier.bundle.version
            began, found = await queue.run(partial(look, classifier), photo.data)
            outcome.prediction_seconds = round(time.perf_counter() - began, 6)
        return outcome, found

    @app.post("/predict", summary="Say what is on a photo", response_model=PredictionAnswer, **of_a_photo)
    async def predict(request: Request) -> Response:
        outcome, (answer, measures) = await looked_at(request, Classifier.observe)
        outcome.measures = measures
        outcome.prediction, outcome.prediction_id = answer, uuid.uuid4().hex
        content = PredictionAnswer.of(
            answer, outcome.prediction_seconds or 0.0, outcome.model_version or "", outcome.prediction_id
        )
        return JSONResponse(content.model_dump())

    @app.post(
        "/explain",
        summary="Show where the model looked",
        description="As /predict, with a map of what each place of the photo added. Whoever accepts image/png alone "
        "gets the picture alone. It is not counted as a prediction and leaves no record.",
        response_model=ExplanationAnswer,
        **of_a_photo,
    )
    async def explain(request: Request) -> Response:
        outcome, found = await looked_at(request, explanations.make)
        if request.headers.get("accept", "").startswith("image/png"):
            return Response(found.png, media_type="image/png")
        return JSONResponse(found.answer(outcome.prediction_seconds or 0.0, outcome.model_version or "").model_dump())

    @app.get("/health", summary="Whether the process is alive", tags=["Operation"], response_model=Health)
    async def health() -> Health:
        return Health()

    @app.get(
        "/ready",
        summary="Whether a model is loaded",
        tags=["Operation"],
        response_model=Ready,
        responses=problems.documented(503),
    )
    async def ready() -> Ready:
        return Ready(model_version=_classifier(model).bundle.version)

    @app.get(
        "/version",
        summary="What answers, and where it comes from",
        tags=["About"],
        response_model=Version,
        responses=problems.documented(503),
    )
    async def version() -> Version:
        return Version.of(_classifier(model).bundle)

    @app.get("/metrics", summary="Figures for Prometheus", tags=["Operation"], response_class=PlainTextResponse)
    async def metrics() -> Response:
        text, media_type = telemetry.exposition()
        return Response(text, media_type=media_type)

    if settings.key_sha256:
        feedback.add(app, model, settings)
    if store is not None:
        uploads.add(app, store, settings)
    page.add(app, model)
    return app


class _Queue:
    """Photos wait here for their turn; so many at once are looked at, so many may wait."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._most = settings.concurrency + settings.max_waiting
        self._now = 0
        self._pool = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="photo")

    async def run(self, predict: Callable[[bytes], Found], data: bytes) -> tuple[float, Found]:
        """Run in its turn; also says when the turn began."""
        if self._now >= self._most:
            raise busy()
        self._now += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, _timed, predict, data)
        except PhotoError as error:
            raise ProblemError(problems.KINDS[error.kind], str(error)) from None
        except MemoryError:
            raise ProblemError(problems.TOO_LARGE, "there is too little memory for this photo; scale it down") from None
        finally:
            self._now -= 1


def _timed(predict: Callable[[bytes], Found], data: bytes) -> tuple[float, Found]:
    began = time.perf_counter()
    return began, predict(data)


def _classifier(model: Model) -> Classifier:
    if model.classifier is None:
        raise ProblemError(problems.NOT_READY, model.reason, {"retry-after": "5"})
    return model.classifier


async def _answer_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    outcome = outcome_of(request)
    outcome.problem, outcome.detail, outcome.cause = error.kind.name, error.detail, error.cause
    return problems.document(error, outcome.request_id)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, method = request.url.path[:200], request.method[:20]
    if error.status_code == 404:
        found = ProblemError(problems.NOT_FOUND, f"there is nothing at {path}; see /docs for what there is")
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "GET")
        detail = f"{method} is not possible at {path}; use {allowed}"
        found = ProblemError(problems.METHOD_NOT_ALLOWED, detail, {"allow": allowed})
    else:
        found = ProblemError(problems.MALFORMED, f"the request cannot be read ({error.detail}); send it again whole")
    return await _answer_problem(request, found)
