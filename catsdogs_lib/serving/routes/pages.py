"""``GET /``, the kinds of problems, and the files of the web page. Everything is served from here, nothing by a CDN."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from catsdogs_lib.serving import problems
from catsdogs_lib.serving.schemas import Information
from catsdogs_lib.serving.settings import ServiceSettings
from catsdogs_lib.serving.state import state_of

STATIC = Path(__file__).parents[1] / "static"


async def information(request: Request) -> Response:
    """Answer browsers with the page, programs with a description of the service."""
    if prefers_html(request.headers.get("accept", "")):
        return html_page("page.html")
    classifier = state_of(request).model.classifier
    content = Information.of(classifier.bundle if classifier else None)
    return JSONResponse(content.model_dump(), headers={"vary": "accept"})


async def problem(request: Request) -> Response:
    """Describe a kind of problem; problem documents link to it."""
    name = request.path_params["name"]
    if (kind := problems.KINDS.get(name)) is None:
        known = ", ".join(problems.KINDS)
        raise problems.ProblemError(problems.NOT_FOUND, f"there is no kind of problem of this name; there are {known}")
    return JSONResponse({"type": f"/problems/{name}", "title": kind.title, "meaning": kind.meaning})


def html_page(name: str) -> Response:
    """Respond with an HTML file of `STATIC`."""
    return FileResponse(STATIC / name, media_type="text/html", headers={"vary": "accept", "cache-control": "no-cache"})


def prefers_html(accept: str) -> bool:
    """Check whether an Accept header prefers HTML to JSON, as those of browsers do."""
    quality = {"text/html": 0.0, "application/json": 0.0}
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        q = next((value[2:] for value in parameters if value.startswith("q=")), "1")
        if name in quality:
            try:
                quality[name] = float(q)
            except ValueError:
                quality[name] = 0.0
    return quality["text/html"] > quality["application/json"]


class RevalidatedFiles(StaticFiles):
    """Static files that browsers revalidate each time: all parts of the page must be of the same release."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Respond with a file, or with 304 where the browser's copy is current."""
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        return response


ROUTES = (Route("/", information), Route("/problems/{name}", problem))


def mounts() -> list[Mount]:
    """Mount the files of the pages, and those of Swagger UI, which come with fastapi_offline."""
    # Located, not imported: only its files are used.
    spec = find_spec("fastapi_offline")
    assert spec is not None
    assert spec.origin is not None
    swagger = Path(spec.origin).parent / "static"
    return [
        Mount("/static/swagger", RevalidatedFiles(directory=swagger)),
        Mount("/static", RevalidatedFiles(directory=STATIC)),
    ]


def documentation(_: ServiceSettings) -> dict[Callable[..., Any], dict[str, Any]]:
    """Describe the endpoints for OpenAPI."""
    return {
        information: {
            "summary": "What this endpoint is; a page for browsers",
            "response_model": Information,
            "tags": ["About"],
            "responses": {200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
        }
    }
