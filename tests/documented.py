"""The check that every answer which a test gets is one that the OpenAPI document tells of, down to its last member."""

import json
import re
from functools import cache
from typing import Any, Final

import httpx2
from openapi_schema_validator import OAS31Validator, oas31_format_checker

from streamlimit.openapi import document

DOCUMENT: Final = document("1.2.3", max_limit=10)
UNDOCUMENTED_PATHS: Final = re.compile("/openapi.json|/docs.*")
REFUSED: Final = (403, 421)
"""Whatever the path and method, where there are no keys."""


async def check_documented(response: httpx2.Response) -> None:
    """Fail where an answer is not as the document says: status, headers, media type and body. A response hook."""
    request = response.request
    path = request.url.raw_path.decode().partition("?")[0]
    # Preflights belong to browsers, and OpenAPI does not tell of them.
    is_preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in response.headers.get("vary", "")
    if UNDOCUMENTED_PATHS.fullmatch(path) or is_preflight:
        return
    (item,) = [item for template, item in DOCUMENT["paths"].items() if _matches(template, path)] or [None]
    if item is None:
        assert response.status_code in (404, *REFUSED), f"{path} answers {response.status_code} and is not documented"
        return
    operation = item.get({"HEAD": "GET"}.get(request.method, request.method).lower())
    if operation is None:
        assert response.status_code in (405, *REFUSED), f"{request.method} {path} is not documented"
        return
    documented = operation["responses"].get(str(response.status_code))
    assert documented is not None, f"{response.status_code} is not documented for {request.method} {path}"
    _check_headers(documented["headers"], response)
    await response.aread()
    if "content" not in documented:
        assert response.content == b""
    elif request.method != "HEAD":
        content_type = response.headers["content-type"]
        value = response.json() if "json" in content_type else response.text
        check(documented["content"][content_type]["schema"], value)


def check(schema: Any, value: Any) -> None:
    """Fail where the value is not as a schema of the document says, or has a member that it does not tell of."""
    for error in _validator(json.dumps(schema)).iter_errors(value):
        raise AssertionError(f"{error.json_path}: {error.message}") from error


def resolved(ref: str) -> Any:
    """What a `$ref` names, or KeyError."""
    found: Any = DOCUMENT
    for step in ref.removeprefix("#/").split("/"):
        found = found[step]
    return found


def _check_headers(documented: Any, response: httpx2.Response) -> None:
    for name, ref in documented.items():
        header, value = resolved(ref["$ref"]), response.headers.get(name)
        if value is None:
            assert not header.get("required"), f"{name} is missing"
        else:
            check(header["schema"], int(value) if header["schema"]["type"] == "integer" else value)
    telling = {"location", "retry-after", "allow", "www-authenticate"} & set(response.headers)
    undocumented = telling - {name.lower() for name in documented}
    assert not undocumented, f"{undocumented} are not documented"


@cache
def _validator(schema: str) -> OAS31Validator:
    root = json.loads(schema) | {"components": _closed(DOCUMENT["components"])}
    return OAS31Validator(root, format_checker=oas31_format_checker)


def _closed(schema: Any) -> Any:
    """The schema without what later versions may add."""
    match schema:
        case list():
            return [_closed(part) for part in schema]
        case dict():
            closed = {name: _closed(part) for name, part in schema.items()}
            return {"additionalProperties": False} | closed if "properties" in closed else closed
    return schema


def _matches(template: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) is not None
