"""The application. One for uvicorn and Lambda; what differs between them comes in as arguments.

Starlette, which FastAPI is made of, answers; FastAPI itself describes the operations (`document`) once somebody asks.
Importing it took a fifth of a second of every first answer.
"""

import asyncio
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from catsdogs_lib.imaging.decoding import PhotoError
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.serving import auth, explanations, feedback, page, problems, uploads
from catsdogs_lib.serving.middleware import RequestMiddleware, record_of
from catsdogs_lib.serving.model import Model
from catsdogs_lib.serving.operations import Operation
from catsdogs_lib.serving.problems import ProblemError
from catsdogs_lib.serving.request_body import JSON, BodyReader, busy, kind_of
from catsdogs_lib.serving.schemas import ExplanationAnswer, Health, PredictionAnswer, Ready, Version, photo_body
from catsdogs_lib.serving.settings import ServiceSettings
from catsdogs_lib.serving.telemetry import Telemetry
from catsdogs_lib.serving.uploads import Uploads

Found = TypeVar("Found")


def create_app(model: Model, telemetry: Telemetry, settings: ServiceSettings | None = None) -> Starlette:
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
    store = Uploads(settings, settings.uploads) if settings.key_sha256 and settings.uploads else None
    operations = [
        *_of_a_photo(model, settings, store),
        *_of_the_service(model, telemetry),
        *([feedback.operation(model, settings)] if settings.key_sha256 else ()),
        *([uploads.operation(store, settings)] if store else ()),
        *page.operations(model),
    ]

    @cache
    def written() -> dict[str, Any]:
        from catsdogs_lib.serving.openapi import openapi  # noqa: PLC0415

        return openapi(operations)

    async def document(_: Request) -> Response:
        # In a thread: others are answered while FastAPI is imported.
        return JSONResponse(await asyncio.to_thread(written))

    routes = [one.route for one in (*operations, Operation("GET", "/openapi.json", document))]
    app = Starlette(
        routes=[*routes, *page.mounts()],
        middleware=[Middleware(RequestMiddleware, telemetry=telemetry)],
        exception_handlers={ProblemError: _answer_problem, HTTPException: _answer_http_exception},
    )
    app.router.redirect_slashes = False
    return app


def _of_a_photo(model: Model, settings: ServiceSettings, store: Uploads | None) -> list[Operation]:
    bodies = BodyReader(settings, store.photo if store else None)
    queue = _Queue(settings)
    open_to_all = bool(settings.key_sha256) and settings.key_covers == "writes"
    guard = auth.guard(settings, lambda request: open_to_all and kind_of(request) != JSON)

    async def looked_at(request: Request, look: Callable[[Classifier, bytes], Found]) -> Found:
        outcome = record_of(request)
        classifier = _classifier(model)
        async with bodies.photo(request) as photo:
            outcome.filename, outcome.photo_bytes = photo.filename, len(photo.data)
            outcome.model_version = classifier.bundle.version
            began, found = await queue.run(partial(look, classifier), photo.data)
            outcome.prediction_seconds = round(time.perf_counter() - began, 6)
        return found

    async def predict(request: Request) -> Response:
        answer, measures = await looked_at(request, Classifier.observe)
        outcome = record_of(request)
        outcome.measures = measures
        outcome.prediction, outcome.prediction_id = answer, uuid.uuid4().hex
        content = PredictionAnswer.of(
            answer, outcome.prediction_seconds or 0.0, outcome.model_version or "", outcome.prediction_id
        )
        return JSONResponse(content.model_dump())

    async def explain(request: Request) -> Response:
        found = await looked_at(request, explanations.make)
        if request.headers.get("accept", "").startswith("image/png"):
            return Response(found.png, media_type="image/png")
        outcome = record_of(request)
        return JSONResponse(found.answer(outcome.prediction_seconds or 0.0, outcome.model_version or "").model_dump())

    def documented(**more: Any) -> dict[str, Any]:
        statuses = 400, *([401] if settings.key_sha256 else ()), *([404] if store else ()), 408, 413, 415, 422, 503
        return {
            "tags": ["Prediction"],
            "responses": problems.documented(*statuses),
            "openapi_extra": photo_body(store is not None) | ({"security": [{}]} if open_to_all else {}),
            **more,
        }

    of_predict = partial(documented, summary="Say what is on a photo", response_model=PredictionAnswer)
    of_explain = partial(
        documented,
        summary="Show where the model looked",
        description="As /predict, with a map of what each place of the photo added. Whoever accepts image/png alone "
        "gets the picture alone. It is not counted as a prediction and leaves no record.",
        response_model=ExplanationAnswer,
    )
    return [
        Operation("POST", "/predict", predict, of_predict, guard),
        Operation("POST", "/explain", explain, of_explain, guard),
    ]


def _of_the_service(model: Model, telemetry: Telemetry) -> list[Operation]:
    async def health(_: Request) -> Response:
        return JSONResponse(Health().model_dump())

    async def ready(_: Request) -> Response:
        return JSONResponse(Ready(model_version=_classifier(model).bundle.version).model_dump())

    async def version(_: Request) -> Response:
        return JSONResponse(Version.of(_classifier(model).bundle).model_dump())

    async def metrics(_: Request) -> Response:
        text, media_type = telemetry.exposition()
        return Response(text, media_type=media_type)

    def documented(summary: str, tag: str, *statuses: int, **more: Any) -> Callable[[], dict[str, Any]]:
        return lambda: {"summary": summary, "tags": [tag], "responses": problems.documented(*statuses), **more}

    return [
        Operation(
            "GET", "/health", health, documented("Whether the process is alive", "Operation", response_model=Health)
        ),
        Operation(
            "GET", "/ready", ready, documented("Whether a model is loaded", "Operation", 503, response_model=Ready)
        ),
        Operation(
            "GET",
            "/version",
            version,
            documented("What answers, and where it comes from", "About", 503, response_model=Version),
        ),
        Operation(
            "GET",
            "/metrics",
            metrics,
            documented("Figures for Prometheus", "Operation", response_class=PlainTextResponse),
        ),
    ]


class _Queue:
    """Photos wait here for their turn; so many at once are looked at, so many may wait."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._most = settings.concurrency + settings.max_waiting
        self._now = 0
        self._pool = None if settings.alone else ThreadPoolExecutor(settings.concurrency, thread_name_prefix="photo")

    async def run(self, predict: Callable[[bytes], Found], data: bytes) -> tuple[float, Found]:
        """Run in its turn; also says when the turn began."""
        if self._now >= self._most:
            raise busy()
        self._now += 1
        try:
            if self._pool is None:
                return _timed(predict, data)
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
    outcome = record_of(request)
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
