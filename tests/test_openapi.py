"""The OpenAPI document."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from streamlimit.routes import OPERATIONS, Operation
from tests.documented import DOCUMENT, resolved


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


each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=_names)


def test_the_document_is_openapi_3_1() -> None:
    assert re.fullmatch(r"3\.1\.\d+", DOCUMENT["openapi"])
    assert DOCUMENT["info"]["version"] == "1.2.3"


def test_the_document_has_the_operations_and_no_others() -> None:
    documented = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item}
    assert documented == {(operation.method, operation.path) for operation in OPERATIONS}


@each_operation
def test_every_status_of_an_operation_is_documented(operation: Operation) -> None:
    statuses = {*operation.answers, *(kind.status for kind in operation.problems), 500}
    statuses |= {503} if operation.path != "/livez" else set()
    statuses |= {422} if "{" in operation.path else set()
    statuses |= {413, 415, 422} if operation.body else set()

    assert {str(status) for status in statuses} <= set(_documented(operation)["responses"])


@each_operation
def test_every_path_parameter_is_declared(operation: Operation) -> None:
    declared = [one["name"] for one in _documented(operation).get("parameters", []) if one["in"] == "path"]
    assert declared == re.findall(r"\{(\w+)\}", operation.path)


@each_operation
def test_a_body_is_documented_where_there_is_one(operation: Operation) -> None:
    assert ("requestBody" in _documented(operation)) == (operation.body is not None)


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
