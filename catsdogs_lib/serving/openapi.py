"""The OpenAPI document, built by FastAPI. Import this module only when the document is asked for: it takes 0.12 s."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Security
from fastapi.security import APIKeyHeader
from starlette.routing import BaseRoute, Route

from catsdogs_lib import __version__
from catsdogs_lib.serving import auth, problems
from catsdogs_lib.serving.routes import feedback, pages, prediction, status, uploads
from catsdogs_lib.serving.settings import ServiceSettings

_KEY = APIKeyHeader(
    name=auth.HEADER, scheme_name="key", auto_error=False, description="Whoever runs the service has the key."
)


def openapi(routes: Sequence[BaseRoute], settings: ServiceSettings) -> dict[str, Any]:
    """Build the OpenAPI document of those routes that have documentation.

    The arguments of FastAPI's ``add_api_route`` come from the `documentation` of each group of routes. An endpoint
    that documents a 401 needs the key.
    """
    documentation = {
        endpoint: arguments
        for group in (prediction, status, feedback, uploads, pages)
        for endpoint, arguments in group.documentation(settings).items()
    }
    app = FastAPI(
        title="Catsdogs",
        version=__version__,
        summary="Says which of a model's classes is on a photo.",
        separate_input_output_schemas=False,
        responses=problems.openapi_responses(),
    )
    for route in routes:
        if isinstance(route, Route) and (arguments := documentation.get(route.endpoint)):
            app.add_api_route(
                route.path,
                _endpoint,
                name=route.name,
                methods=sorted((route.methods or set()) - {"HEAD"}),
                dependencies=[Security(_KEY)] if 401 in arguments["responses"] else [],
                **arguments,
            )
    return app.openapi()


async def _endpoint() -> None:
    # In place of the real one, whose docstring FastAPI would publish as the description.
    pass
