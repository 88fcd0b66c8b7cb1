"""Documents that cannot be used say where and why; what is odd is a warning."""

from __future__ import annotations

import os
from typing import Any

import pytest

from headgate.security.validation import DocumentInvalid, ValidationRules, describe
from headgate.security.validation.yaml_text import parse_yaml
from tests.security.validation_documents import (
    body_faults,
    described,
    openapi,
    operation_of,
    with_body,
    with_parameter,
    write,
)

ID = {"in": "path", "name": "id", "required": True, "schema": {}}


def _get(operation: dict[str, Any], path: str = "/x") -> dict[str, Any]:
    return openapi({path: {"get": operation}})


def _query(**parameter: Any) -> dict[str, Any]:
    return _get({"parameters": [{"in": "query", "name": "p", **parameter}]})


INVALID: dict[str, tuple[Any, str]] = {
    "path_parameter": (_get({}, "/u/{id}"), "api.json: paths./u/{id}.get: parameter id is not described"),
    "not_in_path": (_get({"parameters": [ID]}), "paths./x.get: parameter id is described, but not in the path"),
    "same_path": (
        openapi({"/u/{a}": {"parameters": [{**ID, "name": "a"}]}, "/u/{b}": {"parameters": [{**ID, "name": "b"}]}}),
        "paths./u/{b}: is the same path as /u/{a}",
    ),
    "twice_in_path": (_get({}, "/{a}/{a}"), "has the same parameter twice"),
    "brace": (_get({}, "/{a"), "has a brace without its other one"),
    "touching": (_get({}, "/{a}{b}"), "nothing between them"),
    "no_slash": (_get({}, "x"), "paths.x: a path must begin with /"),
    "ref": (with_body({"$ref": "#/components/schemas/User"}), '$ref "#/components/schemas/User" leads nowhere: there is no \'components\''),
    "ref_where": (with_body({"items": {"$ref": "#/nope"}}), "api.json: paths./x.post.requestBody.content.application/json.schema.items: $ref"),
    "ref_number": (with_body({"$ref": 5}), "a $ref must be text"),
    "ref_file": (with_body({"$ref": "gone.yaml"}), "gone.yaml: No such file or directory"),
    "ref_remote": (with_body({"$ref": "https://evil.example/x.json"}), "https://evil.example/x.json is remote, and nothing is fetched"),
    "ref_scheme": (with_body({"$ref": "file:///etc/passwd"}), "is remote"),
    "ref_host": (with_body({"$ref": "//evil.example/x"}), "is remote"),
    "ref_up": (with_body({"$ref": "../../etc/passwd"}), "leads out of the folder"),
    "ref_encoded": (with_body({"$ref": "%2e%2e/x.yaml"}), "leads out of the folder"),
    "ref_absolute": (with_body({"$ref": "/etc/passwd"}), "leads out of the folder"),
    "ref_circle": (_get({"parameters": [{"$ref": "#/paths/~1x/get/parameters/0"}]}), "leads in a circle"),
    "type": (with_body({"properties": {"a": {"type": "strin"}}}), "schema.properties.a.type: is no valid schema"),
    "required": (with_body({"required": True}), "schema.required: must be a list of names"),
    "properties": (with_body({"properties": []}), "schema.properties: must be a mapping of schemas"),
    "schema": (with_body("string"), "must be a schema, which is a mapping"),
    "items": (with_body({"items": [{}]}), "is called prefixItems"),
    "look_ahead": (with_body({"pattern": "^(?=.*[A-Z])"}), "schema.pattern: the pattern '^(?=.*[A-Z])' looks ahead, which takes unbounded time; rewrite it, or say `patterns: bounded`"),
    "look_behind": (with_body({"pattern": "(?<!a)b"}), "looks behind"),
    "back": (with_body({"pattern": r"(a)\1"}), "refers back to a group"),
    "pattern_key": (with_body({"patternProperties": {"(?=a)": {}}}), "looks ahead"),
    "pattern_bad": (with_body({"pattern": "["}), "'[' is no regular expression"),
    "pattern_huge": (with_body({"pattern": "(a{1000}){1000}"}), "too large"),
    "style": (_query(style="matrix", schema={}), "paths./x.get.parameters[0]: style matrix is not one of query: form"),
    "no_schema": (_query(), "parameter p has neither `schema` nor `content`"),
    "two_contents": (_query(content={"a/b": {}, "c/d": {}}), "`content` must have one media type"),
    "place": (_get({"parameters": [{"in": "body", "name": "p"}]}), "`in` one of path, query, header, cookie"),
    "twice": (_get({"parameters": [{"in": "query", "name": "p", "schema": {}}] * 2}), "parameter p is described twice"),
    "media": (with_body({}, kind="json"), "content.json: is not a media type"),
    "body": (openapi({"/x": {"post": {"requestBody": {}}}}), "a body must be a mapping with `content`"),
    "discriminator": (with_body({"oneOf": [], "discriminator": "kind"}), "must be a mapping with propertyName"),
    "swagger": ({"swagger": "2.0"}, "is Swagger 2.0; convert it to OpenAPI 3 first"),
    "version": (openapi({}, "4.0.0"), "openapi 4.0.0 is not known"),
    "number": ("openapi: 3.1\npaths: {}", 'must say `openapi` in quotes, such as "3.1.0"'),
    "none": ({"paths": {}}, "is no OpenAPI document"),
    "list": ([1], "must be a mapping"),
    "dialect": (openapi({}, jsonSchemaDialect="https://x.example/d"), "https://x.example/d is not known"),
    "json": ("{\n\n]", "api.json:3: "),
    "json_twice": ('{"openapi": "3.1.0", "openapi": "3.1.0"}', 'the key "openapi" stands twice'),
    "deep": (with_body(eval("{'not':" * 90 + "{}" + "}" * 90)), ""),
}  # fmt: skip


@pytest.mark.parametrize("case", [name for name in INVALID if name != "deep"])
def test_what_is_wrong_is_said_with_its_place(case, tmp_path):
    document, said = INVALID[case]
    with pytest.raises(DocumentInvalid) as caught:
        described(tmp_path, document)
    assert said in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_schemas_nested_without_end_are_refused_and_others_are_not(tmp_path):
    described(tmp_path, INVALID["deep"][0])
    schema: dict[str, Any] = {}
    for _ in range(400):
        schema = {"not": schema}
    with pytest.raises(DocumentInvalid, match="nested too deeply"):
        described(tmp_path, with_body(schema))


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    folder = tmp_path / "api"
    write(tmp_path, {"type": "string"}, "secret.json")
    document = with_body({"$ref": "link.json"})
    write(folder, document)
    os.symlink(tmp_path / "secret.json", folder / "link.json")
    with pytest.raises(DocumentInvalid, match="leads out of the folder"):
        described(folder, document)


def test_a_document_may_itself_be_a_link(tmp_path):
    write(tmp_path / "real", with_body({"type": "string"}))
    os.symlink(tmp_path / "real" / "api.json", tmp_path / "api.json")
    describe(ValidationRules(openapi=str(tmp_path / "api.json")))


def test_patterns_that_look_around_pass_within_bounds_where_told(tmp_path):
    document = with_body({"type": "string", "pattern": "^(?=.*[A-Z])(?=.*[0-9]).{3,}$"})
    operation = operation_of(described(tmp_path, document, patterns="bounded"))
    assert body_faults(operation, "xA1") == []
    assert body_faults(operation, "xa1") == [("pattern", "")]


WARNED: dict[str, tuple[Any, str]] = {
    "unknown": (with_body({"requred": ["a"]}), "'requred' is no keyword of JSON Schema"),
    "nullable": (with_body({"nullable": True}), "nullable means nothing in OpenAPI 3.1"),
    "enum": (
        with_body({"type": "string", "nullable": True, "enum": ["a"]}, version="3.0.0"),
        "null is not among the enum",
    ),
    "path_required": (
        with_parameter({"in": "path", "name": "p", "schema": {}, "required": False}),
        "must say required: true",
    ),
    "deep": (
        _query(style="deepObject", schema={"type": "string"}),
        "deepObject is for objects",
    ),
    "inline": (
        with_body({"oneOf": [{}], "discriminator": {"propertyName": "a"}}),
        "has no name, so the discriminator does not choose",
    ),
    "servers": (
        openapi({}, servers=[{"url": "/a"}, {"url": "https://x.example/b"}]),
        "only the first is looked at: paths begin with /a",
    ),
    "relative": (openapi({}, servers=[{"url": "v1"}]), "its URL is relative"),
    "variable": (openapi({}, servers=[{"url": "/{v}"}]), "a variable without a default"),
}


@pytest.mark.parametrize("case", WARNED)
def test_what_is_odd_is_a_warning(case, tmp_path):
    document, said = WARNED[case]
    warnings = described(tmp_path, document).warnings
    assert any(said in warning for warning in warnings), warnings


def test_a_clean_document_warns_of_nothing(tmp_path):
    schema = {
        "type": "object", "title": "t", "description": "d", "example": {}, "x-own": 1,
        "externalDocs": {}, "xml": {}, "deprecated": True, "default": {}, "$comment": "c",
        "properties": {"format": {"type": "string", "format": "password"}},
    }  # fmt: skip
    assert described(tmp_path, with_body(schema)).warnings == ()


YAML: list[tuple[str, Any]] = [
    ("d: 2026-01-01", {"d": "2026-01-01"}),
    ("d: 2026-01-01T10:00:00Z", {"d": "2026-01-01T10:00:00Z"}),
    ("e: [on, off, yes, no, y, n]", {"e": ["on", "off", "yes", "no", "y", "n"]}),
    ("e: [true, False, null, ~, NULL]", {"e": [True, False, None, None, None]}),
    ("t: 12:30:45", {"t": "12:30:45"}),
    ("n: [1, -2, 1.5, 1e3, 0x1F, 0600, 1_000, .5, 1., +3]",
     {"n": [1, -2, 1.5, 1000.0, 31, "0600", "1_000", 0.5, 1.0, 3]}),
    ("200: ok\nnull: x\ntrue: y", {"200": "ok", "null": "x", "true": "y"}),
    ("a: '1'\nb: \"true\"\nc: !!str 5", {"a": "1", "b": "true", "c": "5"}),
    ("a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}", {"a": {"b": 1}, "c": {"b": 1}, "d": {"e": 2, "b": 1}}),
    ("v: 1.10.1\nw: =\nx: 1e400x", {"v": "1.10.1", "w": "=", "x": "1e400x"}),
    ("a: |\n  text\n", {"a": "text\n"}),
    ("", None),
    ("[]", []),
]  # fmt: skip


@pytest.mark.parametrize("at", range(len(YAML)))
def test_yaml_is_read_as_json_would_hold_it(at):
    text, value = YAML[at]
    assert parse_yaml(text, "a.yaml") == value


LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "counting aliases"),
        ("a: &a [*a]", "alias *a is not defined before"),
        ("[" * 300 + "]" * 300, "nested deeper than 200"),
        ("a: 1\na: 2", 'a.yaml:2: the key "a" stands twice'),
        ("a: 1\n---\nb: 2", "a second document"),
        ("? [a]\n: 1", "a key must be text"),
        ("a: [", "a.yaml:2: did not find"),
        ("a: \x01", "is not YAML"),
        ("a: {<<: 5}", "<< takes a mapping"),
    ],
    ids=["laughs", "circle", "deep", "twice", "two", "key", "open", "control", "merge"],
)
def test_yaml_that_is_out_of_bounds_is_refused_with_its_line(text, said):
    with pytest.raises(DocumentInvalid) as caught:
        parse_yaml(text, "a.yaml")
    assert said in str(caught.value)


def test_yaml_makes_no_objects(tmp_path):
    assert parse_yaml("a: !!python/object/apply:os.system ['exit 1']", "a.yaml") == {
        "a": ["exit 1"]
    }


def test_a_document_in_yaml_with_an_unquoted_date_is_usable(tmp_path):
    text = """\
openapi: 3.0.3
paths:
  /x:
    post:
      requestBody: {content: {application/json: {schema: {$ref: '#/components/schemas/D'}}}}
      responses: {200: {description: ok}}
components:
  schemas:
    D: {type: string, format: date, example: 2026-01-01, enum: [2026-01-01, 2026-01-02]}
"""
    operation = operation_of(described(tmp_path, text))
    assert body_faults(operation, "2026-01-01") == []
    assert body_faults(operation, "2026-01-03") == [("enum", "")]


def test_a_big_document_is_read_whole_and_compiled_only_where_asked(tmp_path):
    schemas = {
        f"M{i}": {"properties": {f"p{k}": {"type": "string", "description": "d" * 50} for k in range(20)}}
        for i in range(500)
    }  # fmt: skip
    paths = {
        f"/x{i}": {"post": {"requestBody": {"content": {"application/json": {
            "schema": {"$ref": f"#/components/schemas/M{i}"}}}}}} for i in range(500)
    }  # fmt: skip
    description = described(tmp_path, openapi(paths, components={"schemas": schemas}))
    operations = [operation_of(description, "POST", f"/x{i}") for i in range(500)]
    assert body_faults(operations[7], {"p3": 1}) == [("type", "/p3")]
    checkers = [o.body.content["application/json"].checker for o in operations if o.body]
    assert sum(c is not None and c._compiled is not None for c in checkers) == 1
