"""``POST /uploads``: a form to upload a photo that is too large for a request."""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from catsdogs_lib.serving import auth, problems
from catsdogs_lib.serving.schemas import Upload
from catsdogs_lib.serving.settings import ServiceSettings
from catsdogs_lib.serving.state import state_of


async def upload(request: Request) -> Response:
    """Create the form of one upload."""
    state = state_of(request)
    auth.require_key(request, state.settings)
    assert state.upload_store is not None
    return JSONResponse((await state.upload_store.form()).model_dump(), 201, {"cache-control": "no-store"})


ROUTES = (Route("/uploads", upload, methods=["POST"]),)


def documentation(_: ServiceSettings) -> dict[Callable[..., Any], dict[str, Any]]:
    """Describe the endpoint for OpenAPI."""
    return {
        upload: {
            "status_code": 201,
            "summary": "Get a form for a photo too large for a request",
            "description": "Post the fields and then the photo, as the field 'file', to the url as "
            "multipart/form-data. Then name the key to /predict.",
            "tags": ["Prediction"],
            "response_model": Upload,
            "responses": problems.openapi_responses(401, 503),
        }
    }
