"""What people see: the page, Swagger UI, the kinds of problems. Files of this project alone, no CDN."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from catsdogs_lib.serving import problems
from catsdogs_lib.serving.model import Model
from catsdogs_lib.serving.operations import Operation
from catsdogs_lib.serving.problems import ProblemError
from catsdogs_lib.serving.schemas import Information

STATIC = Path(__file__).parent / "static"


def operations(model: Model) -> list[Operation]:
    """Give the operations for people."""

    async def information(request: Request) -> Response:
        if wants_page(request.headers.get("accept", "")):
            return _page("page.html")
        bundle = model.classifier.bundle if model.classifier else None
        return JSONResponse(Information.of(bundle).model_dump(), headers={"vary": "accept"})

    async def docs(_: Request) -> Response:
        return _page("docs.html")

    async def problem(request: Request) -> Response:
        name = request.path_params["name"]
        if (kind := problems.KINDS.get(name)) is None:
            known = ", ".join(problems.KINDS)
            raise ProblemError(problems.NOT_FOUND, f"there is no kind of problem of this name; there are {known}")
        return JSONResponse({"type": f"/problems/{name}", "title": kind.title, "meaning": kind.meaning})

    return [
        Operation("GET", "/", information, _documentation),
        Operation("GET", "/docs", docs),
        Operation("GET", "/problems/{name}", problem),
    ]


def _documentation() -> dict[str, Any]:
    return {
        "summary": "What this endpoint is; a page for browsers",
        "response_model": Information,
        "tags": ["About"],
        "responses": {200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
    }


def mounts() -> list[Mount]:
    """Give the files that the pages need."""
    return [Mount("/static/swagger", _Files(directory=_swagger())), Mount("/static", _Files(directory=STATIC))]


class _Files(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        # A browser asks each time whether its copy is still right: the page's parts must be of one release.
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        return response


def wants_page(accept: str) -> bool:
    """Whether a request's Accept header prefers HTML to JSON, as browsers' do."""
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


def _page(name: str) -> Response:
    return FileResponse(STATIC / name, media_type="text/html", headers={"vary": "accept", "cache-control": "no-cache"})


def _swagger() -> Path:
    # The package is found, not imported: only its files are wanted.
    spec = find_spec("fastapi_offline")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "static"
