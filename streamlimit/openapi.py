"""The OpenAPI 3.1 document, made from the operations, their models and the examples."""

from collections.abc import Mapping, Sequence
from functools import cache
from http import HTTPStatus
from inspect import cleandoc
from typing import Any, Final

from pydantic import BaseModel, Field, create_model
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from streamlimit import examples, problems, wire
from streamlimit.callers import Role
from streamlimit.handlers import delete_user, end_all, is_legacy, put_user
from streamlimit.problems import ProblemType
from streamlimit.routes import OPERATIONS, TAGS, Operation

API_VERSION: Final = "1"
"""That of the paths. That of the service is nothing for strangers, who would look up what is wrong with it."""

_DESCRIPTION: Final = """\
Lets one account watch at most N streams at once. A stream starts with an admission, stays live by heartbeats, and ends
with a release, or by itself when the heartbeats stop.

- A **`stream_id`** is a capability: whoever has it may keep that stream live and end it, so it is for its player only.
  Everybody else sees the `stream_ref`.
- **Who may**: players send a token, back ends and operators an API key, each as `Authorization: Bearer`. An operation
  that shows no lock asks for none. Where the service has no keys, nobody is asked; then only requests to loopback
  hosts are answered, and none of web pages whose origin is not listed (CORS_ORIGINS).
- **Times** are RFC 3339 in UTC with milliseconds, by the store's clock.
- **Bodies** are JSON of at most 16 KiB, 512 KiB for a batch of heartbeats.
- Where there is GET there is HEAD. Any other method is answered 405 with `Allow`, any other path 404.
- **Errors** are problem details (RFC 9457, `application/problem+json`). Their `type` says what is wrong, their `detail`
  what to do:

| `type` | status | meaning |
| --- | --- | --- |
"""
_ALL_PROBLEMS: Final = tuple(kind for kind in vars(problems).values() if isinstance(kind, ProblemType))
_CHALLENGES: Final = (problems.UNAUTHENTICATED, problems.FORBIDDEN)
_REPAIRS: Final = (end_all, put_user, delete_user)
"""What repairs damaged keys, and meets none that it does not own."""
_JSON: Final = "application/json"
_SCHEMA: Final = "#/components/schemas/{model}"

_URL: Final = {"type": "string", "format": "uri-reference"}
_SECONDS: Final = {"type": "integer", "minimum": 1}
_HEADERS: Final = {
    "NoStore": {
        "description": "Nobody may keep the answer.",
        "required": True,
        "schema": {"type": "string", "const": "no-store"},
    },
    "MaxAge": {
        "description": "An edge need not ask again for so many seconds.",
        "required": True,
        "schema": {"type": "string", "pattern": "^max-age=[1-9][0-9]*$"},
    },
    "Challenge": {
        "description": "That a key is wanted, and whether one was sent.",
        "required": True,
        "schema": {"type": "string", "pattern": '^Bearer realm="streamlimit"'},
    },
    "ChallengeIfAny": {"description": "The same, where a key would help.", "schema": {"type": "string"}},
    "Location": {"description": "The stream.", "required": True, "schema": _URL},
    "RetryAfter": {"description": "Try again after so many seconds.", "required": True, "schema": _SECONDS},
    "RetryAfterIfAny": {
        "description": "The seconds until the first of the streams would expire; not there where there is none.",
        "schema": _SECONDS,
    },
}
_SECURITY_SCHEMES: Final = {
    Role.PLAYER: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token whose `sub` is the user, for which alone it is good. It may have `streams_limit`.",
    },
    Role.SERVICE: {"type": "http", "scheme": "bearer", "description": "The API key of a back end, for every user."},
    Role.OPERATOR: {"type": "http", "scheme": "bearer", "description": "The API key of an operator, for everything."},
}

_STREAM_ID: Final = {"user_id": "$request.path.user_id", "stream_id": "$response.body#/stream_id"}
_LINKS: Final = {
    operation.handler.__name__: {"operationId": operation.handler.__name__, "parameters": _STREAM_ID}
    for operation in OPERATIONS
    if "{stream_id}" in operation.path
}
"""From an answer with a stream id to what can be done with that stream."""


@cache
def document(version: str, max_limit: int) -> dict[str, Any]:
    """Return the document, ready for JSON; the same one again for the same arguments.

    Args:
        version: Of the API.
        max_limit: The highest limit that this deployment takes.
    """
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    table = "".join(f"| `{kind.urn}` | {kind.status} | {kind.title} |\n" for kind in _ALL_PROBLEMS)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "streamlimit",
            "version": version,
            "description": _DESCRIPTION + table,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        # Relative to this document, so that it is true behind any host name and path prefix.
        "servers": [{"url": ".", "description": "This service"}],
        "tags": [{"name": name, "description": description} for name, description in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": _schemas(max_limit),
            "headers": _HEADERS,
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


class _Schemas(GenerateJsonSchema):
    """Without titles that only repeat the names of members."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - of none
        return False


def _schemas(max_limit: int) -> dict[str, Any]:
    models: dict[type[BaseModel], JsonSchemaMode] = {}
    for operation in OPERATIONS:
        models |= dict.fromkeys(filter(None, operation.answers.values()), "serialization")
        if operation.body:
            models[operation.body] = "validation"
    models[wire.LegacyError] = "serialization"
    models |= {_problem_model(kind): "serialization" for kind in _ALL_PROBLEMS}
    in_order = sorted(models.items(), key=lambda item: item[0].__name__)
    _, found = models_json_schema(in_order, ref_template=_SCHEMA, schema_generator=_Schemas)
    schemas: dict[str, Any] = found["$defs"]
    for limit in (
        schemas[wire.UserRequest.__name__]["properties"]["limit"],
        schemas[wire.AdmissionRequest.__name__]["properties"]["limit"]["anyOf"][0],
    ):
        limit["maximum"] = max_limit
    for operation in OPERATIONS:
        if operation.item_problems:
            items = [_ref(wire.HeartbeatLease.__name__), *(_ref(_name(kind)) for kind in operation.item_problems)]
            schemas[wire.HeartbeatResults.__name__]["properties"]["streams"]["items"] = {"oneOf": items}
    return schemas


def _problem_model(kind: ProblemType) -> type[BaseModel]:
    members: dict[str, Any] = {
        "type": (str, Field(json_schema_extra={"const": kind.urn})),
        "title": (str, Field(json_schema_extra={"const": kind.title})),
        "status": (int, Field(json_schema_extra={"const": kind.status})),
    }
    return create_model(_name(kind), __base__=kind.body, __doc__=f"{kind.title}.", **members)


def _name(kind: ProblemType) -> str:
    return "".join(word.capitalize() for word in kind.name.split("-"))


def _operation(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.handler.__name__ + ("_slash" if operation.path.endswith("/") else ""),
        "tags": [operation.tag],
        "summary": operation.summary,
        "security": [{role: []} for role in Role if role in operation.roles],
        "responses": {
            **{str(status): _success(operation, status) for status in operation.answers},
            **{str(status): _error(operation, kinds) for status, kinds in sorted(_problems(operation).items())},
        },
    }
    if operation.description:
        found["description"] = operation.description
    if operation.parameters:
        found["parameters"] = [parameter.document() for parameter in operation.parameters]
    if operation.body:
        shown = _examples(examples.REQUESTS[operation.body])
        content = {_JSON: {"schema": _ref(operation.body.__name__), "examples": shown}}
        found["requestBody"] = {"required": operation.body_required, "content": content}
    return found


def _success(operation: Operation, status: int) -> dict[str, Any]:
    model = operation.answers[status]
    headers = {"Cache-Control": _header("MaxAge" if operation.cacheable else "NoStore")}
    if status == HTTPStatus.CREATED:
        headers["Location"] = _header("Location")
    answer: dict[str, Any] = {"description": cleandoc(model.__doc__ or "") if model else "Done.", "headers": headers}
    if model:
        shown = {name: answer.model_dump(mode="json") for name, answer in examples.ANSWERS[model].items()}
        answer["content"] = {operation.media_type: {"schema": _ref(model.__name__), "examples": _examples(shown)}}
        if "stream_id" in model.model_fields:
            answer["links"] = _LINKS
    return answer


def _error(operation: Operation, kinds: Sequence[ProblemType]) -> dict[str, Any]:
    headers = {"Cache-Control": _header("NoStore")}
    if kinds[0].status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers["Retry-After"] = _header("RetryAfter")
    elif kinds[0] in _CHALLENGES:
        headers["WWW-Authenticate"] = _header("Challenge" if set(kinds) <= set(_CHALLENGES) else "ChallengeIfAny")
    elif kinds[0].status == HTTPStatus.CONFLICT:
        headers["Retry-After"] = _header("RetryAfterIfAny")
    found = [examples.PROBLEMS[kind] for kind in kinds]
    if is_legacy(operation.path):
        schema = _ref(wire.LegacyError.__name__)
        shown = {problem.kind.name: wire.LegacyError(errors=problem.detail).model_dump() for problem in found}
        content = {_JSON: {"schema": schema, "examples": _examples(shown)}}
    else:
        schema = _one_of(kinds)
        shown = {problem.kind.name: problem.body for problem in found}
        content = {problems.MEDIA_TYPE: {"schema": schema, "examples": _examples(shown)}}
    described = "; ".join(kind.title for kind in kinds)
    return {"description": described, "headers": headers, "content": content}


def _problems(operation: Operation) -> dict[int, list[ProblemType]]:
    kinds = [*operation.problems, problems.BODY_TOO_LARGE, problems.INTERNAL_ERROR]
    if operation.path not in ("/livez", "/metrics"):
        kinds.append(problems.STORE_UNAVAILABLE)
    if "{user_id}" in operation.path and operation.handler not in _REPAIRS:
        kinds.append(problems.DAMAGED_KEY)
    if operation.roles:
        kinds += [*_CHALLENGES, problems.TOO_MANY_REQUESTS, problems.KEYS_UNAVAILABLE]
    if operation.parameters or operation.body:
        kinds.append(problems.INVALID_REQUEST)
    if operation.body:
        kinds.append(problems.UNSUPPORTED_MEDIA_TYPE)
    kinds += [problems.CROSS_ORIGIN, problems.HOST_NOT_ACCEPTED]
    by_status: dict[int, list[ProblemType]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append(kind)
    return by_status


def _one_of(kinds: Sequence[ProblemType]) -> dict[str, Any]:
    if len(kinds) == 1:
        return _ref(_name(kinds[0]))
    refs = {kind.urn: _ref(_name(kind)) for kind in kinds}
    mapping = {urn: ref["$ref"] for urn, ref in refs.items()}
    return {"oneOf": list(refs.values()), "discriminator": {"propertyName": "type", "mapping": mapping}}


def _examples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"value": value} for name, value in values.items()}


def _header(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/headers/{name}"}


def _ref(model: str) -> dict[str, str]:
    return {"$ref": _SCHEMA.format(model=model)}
