"""The check that every answer which a test gets is one that the OpenAPI document tells of."""

import re
from typing import Any, Final

import httpx2

from streamlimit.openapi import document

DOCUMENT: Final = document("1.2.3")
UNDOCUMENTED_PATHS: Final = ("/openapi.json",)


async def check_documented(response: httpx2.Response) -> None:
    """Fail where an answer has a status, media type or members that the document does not tell of: a response hook."""
    request = response.request
    path = request.url.raw_path.decode().partition("?")[0]
    if path in UNDOCUMENTED_PATHS:
        return
    (item,) = [item for template, item in DOCUMENT["paths"].items() if _matches(template, path)] or [None]
    if item is None:
        assert response.status_code == 404, f"{path} answers {response.status_code} and is not documented"
        return
    operation = item.get({"HEAD": "GET"}.get(request.method, request.method).lower())
    if operation is None:
        assert response.status_code == 405, f"{request.method} {path} is not documented"
        return
    documented = operation["responses"].get(str(response.status_code))
    assert documented is not None, f"{response.status_code} is not documented for {request.method} {path}"
    if "content" not in documented:
        assert await response.aread() == b""
    elif request.method != "HEAD":
        schema = resolved(documented["content"][response.headers["content-type"]]["schema"]["$ref"])
        await response.aread()
        assert set(schema.get("required", ())) <= set(response.json())
        if response.headers["content-type"] == "application/json":
            assert set(response.json()) <= set(schema["properties"])


def resolved(ref: str) -> Any:
    """What a `$ref` names, or KeyError."""
    found: Any = DOCUMENT
    for step in ref.removeprefix("#/").split("/"):
        found = found[step]
    return found


def _matches(template: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) is not None
