"""`/docs`: the OpenAPI document to look at and to try out, in Swagger UI, whose files come from a package."""

from importlib.metadata import distribution
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from streamlimit.problems import NO_STORE

# Found without an import: that would read and keep the files of all the browsers that the package has.
_PACKAGE: Final = distribution("offapi")
_SWAGGER_UI: Final = {
    "swagger-ui.css": ("swagger_style.css", "text/css"),
    "swagger-ui-bundle.js": ("swagger_bundle.js", "text/javascript"),
}
# data: are the icons inside Swagger UI's style sheet.
_POLICY: Final = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'"
_HEADERS: Final = {
    "Content-Security-Policy": f"{_POLICY}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
_IMMUTABLE: Final = {"Cache-Control": "public, max-age=31536000, immutable"}


def routes() -> list[Route]:
    """The page and its files, with relative addresses, so that they work behind any path prefix."""
    static = files("streamlimit").joinpath("static")
    page = static.joinpath("docs.html").read_text().replace("VERSION", _PACKAGE.version)
    script = static.joinpath("start.js").read_text()
    return [
        _route("/docs", Response(page, headers=NO_STORE | _HEADERS, media_type="text/html")),
        _route("/docs/start.js", Response(script, headers=NO_STORE | _HEADERS, media_type="text/javascript")),
        *(
            _route(
                f"/docs/{_PACKAGE.version}/{name}",
                FileResponse(
                    str(_PACKAGE.locate_file(f"offapi/{file}")), headers=_IMMUTABLE | _HEADERS, media_type=media_type
                ),
            )
            for name, (file, media_type) in _SWAGGER_UI.items()
        ),
    ]


def _route(path: str, answer: Response) -> Route:
    async def endpoint(_: Request) -> Response:
        return answer

    return Route(path, endpoint)
