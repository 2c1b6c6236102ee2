"""``GET /openapi.json``, and Swagger UI at ``GET /docs``."""

import asyncio
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from catsdogs_lib.serving.routes.pages import html_page


async def docs(_: Request) -> Response:
    """Answer with Swagger UI."""
    return html_page("docs.html")


async def openapi_document(request: Request) -> Response:
    """Answer with the OpenAPI document."""
    # In a thread: other requests are answered while FastAPI is imported.
    return JSONResponse(await asyncio.to_thread(_document, request.app))


def _document(app: Starlette) -> dict[str, Any]:
    if not hasattr(app.state, "openapi"):
        # Importing FastAPI takes 0.12 s, which a cold start need not pay.
        from catsdogs_lib.serving.openapi import openapi  # noqa: PLC0415

        app.state.openapi = openapi(app.routes, app.state.catsdogs.settings)
    document: dict[str, Any] = app.state.openapi
    return document


ROUTES = (Route("/docs", docs), Route("/openapi.json", openapi_document))
