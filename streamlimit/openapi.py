"""The OpenAPI 3.1 document, made from the operations and their models."""

from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from streamlimit import problems, wire
from streamlimit.fields import DEVICE_ID_PATTERN, IDEMPOTENCY_KEY_PATTERN, USER_ID_PATTERN
from streamlimit.handlers import is_legacy
from streamlimit.problems import ProblemType
from streamlimit.routes import OPERATIONS, Operation

_PARAMETERS: Final = {
    "user_id": (
        "path",
        "1 to 128 of A-Z a-z 0-9 . _ ~ @ | : + = - and neither '.' nor '..'",
        {"type": "string", "pattern": f"^{USER_ID_PATTERN}$"},
    ),
    "stream_id": ("path", "SEAT.REF.SIG, as the last answer gave it; for DELETE also SEAT.REF", {"type": "string"}),
    "device_id": (
        "query",
        "The device that would be admitted; its own live stream would be replaced",
        {"type": "string", "pattern": f"^{DEVICE_ID_PATTERN}$"},
    ),
    "Idempotency-Key": (
        "header",
        "The same key again gives the same stream, while that is live",
        {"type": "string", "pattern": f"^{IDEMPOTENCY_KEY_PATTERN}$"},
    ),
}
_WITH_RETRY_AFTER: Final = (409, 503)


def document(version: str) -> dict[str, Any]:
    """Return the document, ready for JSON."""
    models = {model for operation in OPERATIONS for model in (operation.body, *operation.answers.values()) if model}
    models |= {wire.Problem, wire.LegacyCheck}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema(
        [(model, "validation") for model in ordered], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "streamlimit",
            "version": version,
            "description": "Lets one account watch at most N streams at once.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {"schemas": schemas["$defs"]},
    }


def _operation(operation: Operation) -> dict[str, Any]:
    in_path = [name for name in ("user_id", "stream_id") if f"{{{name}}}" in operation.path]
    found: dict[str, Any] = {
        "operationId": operation.handler.__name__ + ("_slash" if operation.path.endswith("/") else ""),
        "summary": operation.summary,
        "responses": _responses(operation),
    }
    parameters = [_parameter(name) for name in (*in_path, *operation.parameters)]
    if parameters:
        found["parameters"] = parameters
    if operation.body is not None:
        found["requestBody"] = {"required": operation.body_required, "content": _content(operation.body)}
    return found


def _responses(operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, model in operation.answers.items():
        responses[str(status)] = {"description": operation.summary} | ({"content": _content(model)} if model else {})
        if status == 201:  # noqa: PLR2004 - Created
            responses["201"]["headers"] = {"Location": {"schema": {"type": "string"}}}
    kinds: dict[int, list[ProblemType]] = {}
    for kind in (*operation.problems, *_common_problems(operation)):
        kinds.setdefault(kind.status, []).append(kind)
    legacy = is_legacy(operation.path)
    for status, of_status in sorted(kinds.items()):
        described = "; ".join(f"`{kind.urn}`: {kind.title}" for kind in of_status)
        content = _content(wire.LegacyCheck) if legacy else _content(wire.Problem, "application/problem+json")
        responses[str(status)] = {"description": described, "content": content}
        if status in _WITH_RETRY_AFTER:
            seconds = {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds"}
            responses[str(status)]["headers"] = {"Retry-After": seconds}
    return responses


def _common_problems(operation: Operation) -> list[ProblemType]:
    kinds = [problems.INTERNAL_ERROR, problems.BODY_TOO_LARGE]
    if operation.path != "/livez":
        kinds.append(problems.STORE_UNAVAILABLE)
    if "{" in operation.path or operation.body:
        kinds.append(problems.INVALID_REQUEST)
    if operation.body:
        kinds.append(problems.UNSUPPORTED_MEDIA_TYPE)
    return kinds


def _parameter(name: str) -> dict[str, Any]:
    place, description, schema = _PARAMETERS[name]
    return {"name": name, "in": place, "required": place == "path", "description": description, "schema": schema}


def _content(model: type[BaseModel], media_type: str = "application/json") -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
