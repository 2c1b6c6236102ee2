"""The ASGI application, the same under uvicorn and on Lambda: routes, middleware, error handlers and shared state.

Starlette answers; FastAPI, which takes 0.12 s to import, builds the OpenAPI document once somebody asks for it.
"""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from catsdogs_lib.serving import auth, problems
from catsdogs_lib.serving.middleware import RequestMiddleware, record_of
from catsdogs_lib.serving.model import Model
from catsdogs_lib.serving.photo_queue import PhotoQueue
from catsdogs_lib.serving.request_body import BodyReader
from catsdogs_lib.serving.routes import docs, feedback, pages, prediction, status, uploads
from catsdogs_lib.serving.settings import ServiceSettings
from catsdogs_lib.serving.state import AppState, state_of
from catsdogs_lib.serving.telemetry import Telemetry
from catsdogs_lib.serving.upload_store import UploadStore


def create_app(model: Model, telemetry: Telemetry, settings: ServiceSettings | None = None) -> Starlette:
    """Build the application.

    Parameters
    ----------
    model
        Answers the requests. If it has no classifier, requests that need one end with 503 and the model's reason.
    telemetry
        Records every request.
    settings
        Limits, key and uploads; None takes the defaults.
    """
    settings = settings or ServiceSettings()
    store = UploadStore(settings) if settings.accepts_uploads else None
    app = Starlette(
        routes=[
            *prediction.ROUTES,
            *status.ROUTES,
            *(feedback.ROUTES if settings.key_sha256 else ()),
            *(uploads.ROUTES if store else ()),
            *pages.ROUTES,
            *docs.ROUTES,
            *pages.mounts(),
        ],
        middleware=[*_cors(settings), Middleware(RequestMiddleware, telemetry=telemetry)],
        exception_handlers={problems.ProblemError: _answer_problem, HTTPException: _answer_http_exception},
    )
    app.router.redirect_slashes = False
    body_reader = BodyReader(settings, store.read if store else None)
    app.state.catsdogs = AppState(settings, model, telemetry, body_reader, PhotoQueue(settings), store)
    return app


def _cors(settings: ServiceSettings) -> list[Middleware]:
    """Build the CORS middleware; it is outermost, so that other origins can read error responses too."""
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["content-type", auth.HEADER, "x-request-id"],
            expose_headers=["x-request-id", "retry-after"],
            max_age=3600,
        )
    ]


async def _answer_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, problems.ProblemError)
    record = record_of(request)
    record.problem, record.detail, record.cause = error.kind.name, error.detail, error.cause
    return problems.document(error, record.request_id)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, method = request.url.path[:200], request.method[:20]
    if not request.scope["path"] and method == "GET":
        # The base path alone, e.g. /prod. The page's links are below /prod/.
        return RedirectResponse(f"{state_of(request).settings.base_path}/", 308)
    if error.status_code == 404:
        problem = problems.ProblemError(problems.NOT_FOUND, f"there is nothing at {path}; see /docs for what there is")
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "GET")
        problem = problems.ProblemError(
            problems.METHOD_NOT_ALLOWED, f"{method} is not possible at {path}; use {allowed}", {"allow": allowed}
        )
    else:
        problem = problems.ProblemError(
            problems.MALFORMED, f"the request cannot be read ({error.detail}); send it again whole"
        )
    return await _answer_problem(request, problem)
