"""The OpenAPI document, written by FastAPI. Imported once somebody asks for it: that takes longer than an answer."""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI, Security
from fastapi.security import APIKeyHeader

from catsdogs_lib import __version__
from catsdogs_lib.serving import auth, problems
from catsdogs_lib.serving.operations import Operation

_KEY = APIKeyHeader(
    name=auth.HEADER, scheme_name="key", auto_error=False, description="Whoever runs the service has the key."
)


def openapi(operations: Iterable[Operation]) -> dict[str, Any]:
    """Describe operations as an OpenAPI document."""
    app = FastAPI(
        title="Catsdogs",
        version=__version__,
        summary="Says which of a model's classes is on a photo.",
        separate_input_output_schemas=False,
        responses=problems.documented(),
    )
    for operation in operations:
        if operation.documentation is not None:
            app.add_api_route(
                operation.path,
                operation.endpoint,
                methods=[operation.method],
                dependencies=[Security(_KEY)] if operation.guard else [],
                **operation.documentation(),
            )
    return app.openapi()
