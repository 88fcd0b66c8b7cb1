"""Plain JSON Schemas for bodies, queries and headers; the answer that a client gets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.security.validation import (
    DocumentInvalid,
    Fault,
    Found,
    Refusal,
    ValidationRules,
    describe,
    problem_of,
)
from tests.security.validation_documents import body_faults, faults_of, operation_of, write

DRAFT = "http://json-schema.org/draft-0{}/schema#"
DRAFTS = [
    ({"$schema": DRAFT.format(4), "minimum": 3, "exclusiveMinimum": True}, 4, 3),
    ({"$schema": DRAFT.format(6), "exclusiveMinimum": 3}, 4, 3),
    ({"$schema": DRAFT.format(7), "items": [{"type": "integer"}]}, [1, "x"], ["x"]),
    ({"$schema": DRAFT.format(7), "if": {"const": 1}, "then": False}, 2, 1),
    ({"$schema": "https://json-schema.org/draft/2019-09/schema", "$recursiveAnchor": True,
      "properties": {"a": {"$recursiveRef": "#"}}, "unevaluatedProperties": False},
     {"a": {"a": {}}}, {"a": {"b": 1}}),
    ({"prefixItems": [{"type": "integer"}]}, [1, "x"], ["x"]),
]  # fmt: skip


@pytest.mark.parametrize("at", range(len(DRAFTS)))
def test_a_schema_is_of_the_draft_it_says(at):
    schema, good, bad = DRAFTS[at]
    operation = operation_of(describe(ValidationRules(body=schema)))
    assert body_faults(operation, good) == []
    assert body_faults(operation, bad) != []


def test_files_may_refer_to_files_beneath_their_folder(tmp_path):
    write(tmp_path, "type: integer", "parts/id.yaml")
    name = write(tmp_path, {"properties": {"id": {"$ref": "parts/id.yaml"}}}, "body.json")
    description = describe(ValidationRules(body=name))
    assert body_faults(operation_of(description), {"id": "x"}) == [("type", "/id")]
    write(tmp_path, "type: string # longer", "parts/id.yaml")
    assert not description.is_unchanged()


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"$ref": "../../x.json"}, "x.json: No such file"),  # the folder is the root of all
        ({"$ref": "https://evil.example/x"}, "is remote, and nothing is fetched"),
        ({"$ref": "file:///etc/passwd"}, "nothing is fetched"),
        ({"$ref": "gone.json"}, "No such file"),
        ({"$ref": "#/$defs/x"}, "does not exist"),
        ({"properties": {"a": {"type": "strin"}}}, "body.json: properties.a.type: is no schema"),
        ({"properties": {"a": {"pattern": "(?=a)"}}}, "properties.a.pattern: the pattern '(?=a)' looks ahead"),
        ({"$schema": "https://x.example/own"}, "x.example/own"),
        ([1], "is no schema that holds"),
    ],
    ids=["up", "remote", "scheme", "gone", "pointer", "type", "pattern", "draft", "list"],
)  # fmt: skip
def test_a_schema_that_cannot_be_used_is_said_at_load(schema, said, tmp_path):
    name = write(tmp_path, schema, "body.json")
    with pytest.raises(DocumentInvalid) as caught:
        describe(ValidationRules(body=name))
    assert said in str(caught.value)


def test_a_schema_in_the_configuration_refers_to_no_file():
    with pytest.raises(DocumentInvalid, match="cannot refer to files"):
        describe(ValidationRules(body={"$ref": "x.json"}))


def test_methods_that_bring_a_body_must_bring_one_in_json():
    description = describe(ValidationRules(body={"type": "object"}))
    for method, needs in (("POST", True), ("PUT", True), ("PATCH", True), ("GET", False)):
        operation = operation_of(description, method, "/any/where")
        refusal = operation.body_announced((), "", is_there=False)
        assert (refusal is not None) is needs
    operation = operation_of(description)
    for kind, is_good in (
        ("application/json", True), ("application/problem+json", True),
        ("application/x-www-form-urlencoded", False), ("text/plain", False),
    ):  # fmt: skip
        assert (operation.body_announced([kind], "", is_there=True) is None) is is_good


def test_the_query_and_headers_are_read_by_their_schemas():
    query = {
        "required": ["page"],
        "properties": {
            "page": {"type": "integer", "minimum": 1},
            "tag": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
            "since": {"$ref": "#/$defs/day"},
        },
        "$defs": {"day": {"type": "string", "format": "date"}},
    }
    headers = {"required": ["X-Shop"], "properties": {"X-Shop": {"enum": ["a", "b"]}}}
    description = describe(ValidationRules(query=query, headers=headers))
    operation = operation_of(description, "GET")
    shop = [(b"x-shop", b"a")]
    assert operation.head_faults("page=2&tag=x&tag=y&other=1&since=2026-01-01", shop) == ()
    assert faults_of(operation.head_faults("page=0&tag=1&tag=2&tag=3&since=x", ())) == [
        ("format", "/since"),
        ("maxItems", "/tag"),
        ("minimum", "/page"),
        ("required", "/X-Shop"),
    ]
    assert faults_of(operation.head_faults("", shop)) == [("required", "/page")]
    assert operation.body_announced(["a/b"], "", is_there=True) is None


@pytest.mark.parametrize("rules", [{"strict_query": True}, {}])
def test_a_closed_query_refuses_what_it_does_not_know(rules):
    query: dict[str, Any] = {"properties": {"a": {}}}
    if not rules:
        query["additionalProperties"] = False
    operation = operation_of(describe(ValidationRules(query=query, **rules)), "GET")
    assert faults_of(operation.head_faults("a=1&b=2", ())) == [("unknown", "/b")]


def test_strict_query_alone_takes_no_parameters():
    operation = operation_of(describe(ValidationRules(strict_query=True)), "GET")
    assert operation.head_faults("", ()) == ()
    assert faults_of(operation.head_faults("a=1", ())) == [("unknown", "/a")]


def test_a_query_without_properties_says_so():
    with pytest.raises(DocumentInvalid, match="the schema of the query must have `properties`"):
        describe(ValidationRules(query={"type": "object"}))


def test_a_problem_says_everything_that_is_wrong():
    faults = (Fault("body", "/items/0/price", "must be at least 0", "minimum"),)
    problem = json.loads(problem_of(Refusal(422, "does not fit", faults), "5f0c"))
    assert problem == {
        "type": "about:blank",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "does not fit",
        "source": "client",
        "request_id": "5f0c",
        "errors": [
            {"in": "body", "pointer": "/items/0/price", "detail": "must be at least 0",
             "keyword": "minimum"}
        ],
    }  # fmt: skip
    assert "errors" not in json.loads(problem_of(Refusal(404, "no such path is described")))


def test_every_path_has_the_same_operation():
    description = describe(ValidationRules(body={}))
    for path in ("/", "/a/b", "*"):
        assert isinstance(description.find("POST", path), Found)


WORDS = [
    ({"type": ["integer", "null"]}, "x", "must be integer or null"),
    ({"enum": ["a", 1, None, True]}, "x", "must be one of a, 1, null, true"),
    ({"const": "a"}, "x", "must be a"),
    ({"maximum": 3}, 4, "must be at most 3"),
    ({"exclusiveMinimum": 3}, 3, "must be more than 3"),
    ({"exclusiveMaximum": 3}, 3, "must be less than 3"),
    ({"multipleOf": 2}, 3, "must be a multiple of 2"),
    ({"minLength": 1}, "", "must have at least 1 character"),
    ({"maxLength": 2}, "abc", "must have at most 2 characters"),
    ({"minItems": 2}, [], "must have at least 2 items"),
    ({"maxItems": 1}, [1, 2], "must have at most 1 item"),
    ({"minProperties": 1}, {}, "must have at least 1 property"),
    ({"maxProperties": 2}, {"a": 1, "b": 1, "c": 1}, "must have at most 2 properties"),
    ({"pattern": "^a$"}, "b", "must match ^a$"),
    ({"format": "email"}, "b", "is not a valid email"),
    ({"propertyNames": {"maxLength": 1}}, {"ab": 1}, "has a property whose name is not allowed"),
    ({"contains": {"const": 1}}, [2], "has none of the items it must have"),
    ({"not": {}}, 1, "has a form that is not allowed"),
    ({"not": {"$comment": "own words"}}, 1, "has a form that is not allowed"),
    ({"uniqueItems": True}, [1, 1], "has the same item twice"),
    ({"properties": {"a": False}}, {"a": 1}, "may not be sent"),
    ({"oneOf": [{"type": "integer"}, {"minimum": 0}]}, 1, "fits more than one of the alternatives, of which exactly one may hold"),
    ({"prefixItems": [{}], "items": False}, [1, 2], "may not be sent"),
    ({"prefixItems": [{}], "unevaluatedItems": False}, [1, 2], "has items that are not known here"),
    ({"enum": ["x" * 300]}, 1, "must be one of " + "x" * 40 + "..."),
]  # fmt: skip


@pytest.mark.parametrize("at", range(len(WORDS)))
def test_faults_are_told_in_plain_words(at):
    schema, value, words = WORDS[at]
    operation = operation_of(describe(ValidationRules(body=schema)))
    refusal = operation.body_refusal("application/json", json.dumps(value).encode())
    assert refusal is not None
    assert words in [fault.detail for fault in refusal.faults]
