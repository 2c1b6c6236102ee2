"""``GET /health``, ``/ready``, ``/version`` and ``/metrics``: the state of the service, for operators."""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from catsdogs_lib.serving import problems
from catsdogs_lib.serving.schemas import Health, Ready, Version
from catsdogs_lib.serving.settings import ServiceSettings
from catsdogs_lib.serving.state import state_of


async def health(_: Request) -> Response:
    """Answer that the process is alive."""
    return JSONResponse(Health().model_dump())


async def ready(request: Request) -> Response:
    """Answer that a model is loaded."""
    return JSONResponse(Ready(model_version=state_of(request).classifier.bundle.version).model_dump())


async def version(request: Request) -> Response:
    """Describe the bundle and its origin."""
    return JSONResponse(Version.of(state_of(request).classifier.bundle).model_dump())


async def metrics(request: Request) -> Response:
    """Expose the metrics to Prometheus."""
    text, media_type = state_of(request).telemetry.exposition()
    return Response(text, media_type=media_type)


ROUTES = (Route("/health", health), Route("/ready", ready), Route("/version", version), Route("/metrics", metrics))


def documentation(_: ServiceSettings) -> dict[Callable[..., Any], dict[str, Any]]:
    """Describe the endpoints for OpenAPI."""
    return {
        health: {
            "summary": "Whether the process is alive",
            "tags": ["Operation"],
            "responses": problems.openapi_responses(),
            "response_model": Health,
        },
        ready: {
            "summary": "Whether a model is loaded",
            "tags": ["Operation"],
            "responses": problems.openapi_responses(503),
            "response_model": Ready,
        },
        version: {
            "summary": "What answers, and where it comes from",
            "tags": ["About"],
            "responses": problems.openapi_responses(503),
            "response_model": Version,
        },
        metrics: {
            "summary": "Figures for Prometheus",
            "tags": ["Operation"],
            "responses": problems.openapi_responses(),
            "response_class": PlainTextResponse,
        },
    }
