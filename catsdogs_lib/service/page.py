"""What people see: the page, Swagger UI, the kinds of problems. Files of this project alone, no CDN."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from catsdogs_lib.service import problems
from catsdogs_lib.service.answers import Information
from catsdogs_lib.service.model import Model
from catsdogs_lib.service.problems import ProblemError

_PAGE: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {"schema": {"type": "string"}}}}}
STATIC = Path(__file__).parent / "static"


def add(app: FastAPI, model: Model) -> None:
    """Add the routes for people to an application."""

    @app.get(
        "/",
        summary="What this endpoint is; a page for browsers",
        response_model=Information,
        tags=["About"],
        responses=_PAGE,
    )
    async def information(request: Request) -> Response:
        if wants_page(request.headers.get("accept", "")):
            return _page("page.html")
        bundle = model.classifier.bundle if model.classifier else None
        return JSONResponse(Information.of(bundle).model_dump(), headers={"vary": "accept"})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return _page("docs.html")

    @app.get("/problems/{name}", include_in_schema=False)
    async def problem(name: str) -> Response:
        if (kind := problems.KINDS.get(name)) is None:
            known = ", ".join(problems.KINDS)
            raise ProblemError(problems.NOT_FOUND, f"there is no kind of problem of this name; there are {known}")
        return JSONResponse({"type": f"/problems/{name}", "title": kind.title, "meaning": kind.meaning})

    app.router.routes.append(Mount("/static/swagger", _Files(directory=_swagger())))
    app.router.routes.append(Mount("/static", _Files(directory=STATIC)))


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
