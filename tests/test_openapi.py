"""The OpenAPI document: valid, complete, and true in each of its examples."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from streamlimit import examples
from streamlimit.openapi import document
from streamlimit.routes import OPERATIONS, TAGS, Operation
from streamlimit.stream_id import parse_stream_id, parse_stream_ref
from streamlimit.wire import timestamp
from tests.documented import DOCUMENT, check, resolved


def _refs(part: Any) -> Iterator[str]:
    match part:
        case dict():
            for name, value in part.items():
                yield from [value] if name == "$ref" else _refs(value)
        case list():
            for value in part:
                yield from _refs(value)


def _documented(operation: Operation) -> Any:
    return DOCUMENT["paths"][operation.path][operation.method.lower()]


def _names(operation: Operation) -> str:
    return f"{operation.method} {operation.path}"


def _contents(operation: Operation) -> Iterator[Any]:
    documented = _documented(operation)
    for part in (*documented["responses"].values(), documented.get("requestBody", {})):
        yield from part.get("content", {}).values()


each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=_names)


def test_the_document_is_valid_openapi_3_1() -> None:
    validate(json.loads(json.dumps(DOCUMENT)), cls=OpenAPIV31SpecValidator)
    assert re.fullmatch(r"3\.1\.\d+", DOCUMENT["openapi"])
    assert DOCUMENT["info"]["version"] == "1.2.3"


def test_the_document_has_the_operations_and_no_others() -> None:
    documented = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item}
    assert documented == {(operation.method, operation.path) for operation in OPERATIONS}


@each_operation
def test_every_status_of_an_operation_is_documented(operation: Operation) -> None:
    statuses = {*operation.answers, *(kind.status for kind in operation.problems), 403, 413, 421, 500}
    statuses |= {503} if operation.path != "/livez" else set()  # the store, or the keys
    statuses |= {401, 429} if operation.roles else set()
    statuses |= {422} if "{" in operation.path else set()
    statuses |= {415, 422} if operation.body else set()

    assert {str(status) for status in statuses} == set(_documented(operation)["responses"])


@each_operation
def test_every_path_parameter_is_declared(operation: Operation) -> None:
    declared = [one["name"] for one in _documented(operation).get("parameters", []) if one["in"] == "path"]
    assert declared == re.findall(r"\{(\w+)\}", operation.path)


@each_operation
def test_an_operation_has_a_tag_and_a_summary(operation: Operation) -> None:
    assert TAGS[operation.tag]
    assert operation.summary


@each_operation
def test_a_body_is_documented_where_there_is_one(operation: Operation) -> None:
    assert ("requestBody" in _documented(operation)) == (operation.body is not None)


@each_operation
def test_every_body_has_examples_that_its_schema_allows(operation: Operation) -> None:
    for content in _contents(operation):
        assert content["examples"]
        for example in content["examples"].values():
            check(content["schema"], json.loads(json.dumps(example["value"])))


@each_operation
def test_every_example_of_a_parameter_is_one_that_its_schema_allows(operation: Operation) -> None:
    for parameter in _documented(operation).get("parameters", []):
        if parameter["in"] == "path":
            assert "example" in parameter
        if "example" in parameter:
            check(parameter["schema"], parameter["example"])


@each_operation
def test_each_type_of_problem_has_a_schema_and_an_example(operation: Operation) -> None:
    for status, answer in _documented(operation)["responses"].items():
        for content in answer.get("content", {}).values() if int(status) >= 400 else ():
            types = [resolved(ref)["properties"].get("type", {}).get("const") for ref in set(_refs(content["schema"]))]
            if "can_add_stream" not in str(content):
                assert sorted(types) == sorted(f"urn:streamlimit:{name}" for name in content["examples"])


@each_operation
def test_errors_are_problems_but_for_the_callers_of_the_old_service(operation: Operation) -> None:
    legacy = operation.path.startswith("/add-stream/")
    types = {
        media_type
        for status, answer in _documented(operation)["responses"].items()
        if int(status) >= 400
        for media_type in answer["content"]
    }
    assert types == {"application/json" if legacy else "application/problem+json"}


@pytest.mark.parametrize(("status", "header"), [("201", "Location"), ("409", "Retry-After"), ("503", "Retry-After")])
def test_headers_are_documented(status: str, header: str) -> None:
    answers = [_documented(operation)["responses"] for operation in OPERATIONS]
    assert all(header in of_operation[status]["headers"] for of_operation in answers if status in of_operation)


def test_every_reference_resolves() -> None:
    refs = set(_refs(DOCUMENT))
    assert refs
    assert all(resolved(ref) for ref in refs)


def test_operation_ids_are_unique() -> None:
    ids = [_documented(operation)["operationId"] for operation in OPERATIONS]
    assert len(set(ids)) == len(ids)


def test_a_started_stream_links_to_what_can_be_done_with_it() -> None:
    admission = DOCUMENT["paths"]["/v1/users/{user_id}/streams"]["post"]["responses"]["201"]

    assert set(admission["links"]) == {"heartbeat", "release", "get_stream", "end"}


def test_the_highest_limit_is_that_of_the_deployment() -> None:
    schemas = document("1.2.3", max_limit=20)["components"]["schemas"]

    assert schemas["UserRequest"]["properties"]["limit"]["maximum"] == 20
    assert schemas["AdmissionRequest"]["properties"]["limit"]["anyOf"][0]["maximum"] == 20


def test_the_stream_ids_of_the_examples_tell_when_their_streams_started() -> None:
    shown = re.findall(r'"stream_ref": "([^"]*)"[^{}]*?"started_at": "([^"]*)"', json.dumps(DOCUMENT["paths"]))
    assert len(set(shown)) == 4
    for ref, started_at in shown:
        parsed = parse_stream_ref(ref)
        assert parsed
        assert (timestamp(parsed.minted_ms), parsed.limit) == (started_at, 3)
    assert parse_stream_id(examples.STREAM_ID)
