"""The app's HTML pages, made of templates, and the files that they load. No torch."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from sincut.app.choices import groups, main_choices
from sincut.app.library import MODEL_FILE, Library, NotThere
from sincut.app.texts import LANGUAGES, chosen, words_of
from sincut.pages.shell import HERE as PAGES
from sincut.pages.viewer import HERE as VIEWER
from sincut.pages.viewer import inside_script
from sincut.runs.folder import CARD_FILE, REPORT_FILE

HERE = Path(__file__).parent
_OURS = ("app.css", "app.js", "drop.js", "library.js", "mask.js", "new.js", "result.js", "run.js")
_SHARED = ("shared.css", "curves.js", "uplot.iife.min.js", "uplot.min.css")
STATIC = {
    **{name: HERE / "static" / name for name in _OURS},
    **{name: PAGES / name for name in _SHARED},
    "openseadragon.min.js": VIEWER / "openseadragon.min.js",
}
# A report is a page of its own, with scripts inside; it may run them and reach nothing.
_OF_REPORTS = (
    "sandbox allow-scripts; default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'"
)


class Pages:
    """The pages of a library."""

    def __init__(self, library: Library) -> None:
        self.library = library

    def routes(self) -> list[Route]:
        """What is where."""
        return [
            Route("/", self.runs),
            Route("/new", self.new),
            Route("/new/example", self.new),
            Route("/runs/{name}", self.run),
            Route("/runs/{name}/result", self.result),
            Route("/runs/{name}/report", self.report),
            Route("/runs/{name}/card", self.card),
            Route("/runs/{name}/model", self.model),
            Route("/static/{name}", self.static),
        ]

    def runs(self, request: Request) -> Response:
        """The library."""
        return _page(request, "runs.html", folder=str(self.library.folder))

    def new(self, request: Request) -> Response:
        """Two images, how long, and what it is to look like."""
        return _page(
            request,
            "new.html",
            main=main_choices(),
            groups=groups(),
            example=request.url.path.endswith("example"),
        )

    def run(self, request: Request) -> Response:
        """A training, as it goes on."""
        project = self.library.project(request.path_params["name"])
        return _page(request, "run.html", name=project.name)

    def result(self, request: Request) -> Response:
        """What a run makes of images."""
        project = self.library.project(request.path_params["name"])
        return _page(request, "result.html", name=project.name)

    def report(self, request: Request) -> Response:
        """The run's own report."""
        path = self.library.project(request.path_params["name"]).run / REPORT_FILE
        if not path.is_file():
            raise NotThere("the run has no report yet; it is written when the run is finished")
        return FileResponse(
            path, media_type="text/html", headers={"content-security-policy": _OF_REPORTS}
        )

    def card(self, request: Request) -> Response:
        """The model card, as text."""
        path = self.library.project(request.path_params["name"]).run / CARD_FILE
        if not path.is_file():
            raise NotThere("the run has no model card yet; it is written at its end")
        return PlainTextResponse(path.read_text(encoding="utf-8", errors="replace"))

    def model(self, request: Request) -> Response:
        """The model file, to be kept or passed on."""
        project = self.library.project(request.path_params["name"])
        path = project.run / MODEL_FILE
        if not path.is_file() or path.is_symlink():
            raise NotThere("the run has no model yet; it is saved as the training goes")
        return FileResponse(
            path, filename=f"{project.name}.safetensors", media_type="application/octet-stream"
        )

    def static(self, request: Request) -> Response:
        """A style or a script."""
        path = STATIC.get(request.path_params["name"])
        if path is None:
            raise NotThere("there is no such file")
        return FileResponse(path, headers={"cache-control": "no-cache"})

    @staticmethod
    def error(request: Request, text: str, status: int) -> Response:
        """One line on a page of its own."""
        return _page(request, "error.html", status=status, text=text)


@functools.lru_cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    language = chosen(
        request.cookies.get("sincut-language", ""), request.headers.get("accept-language", "")
    )
    words = words_of(language)
    page = _templates().get_template(template)
    text = page.render(
        t=words,
        language=language,
        languages=LANGUAGES,
        here=request.url.path,
        data=_script_data,
        status=status,
        **values,
    )
    return HTMLResponse(text, status)


def _script_data(value: Mapping[str, Any]) -> Any:
    """Plain values as JSON that may stand in a page, where it is no script."""
    from markupsafe import Markup

    return Markup(inside_script(dict(value)))
