"""Requests that are made to cost much, or to be read in another way than the service does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.security.validation import Found, Refusal
from tests.security.validation_documents import (
    body_faults,
    described,
    faults_of,
    openapi,
    operation_of,
    with_body,
    with_parameter,
)

REF = "#/components/schemas/"


def _tree(**more: Any) -> dict[str, Any]:
    """Expressions as many interfaces have them: `and` and `or` of expressions, and leaves."""

    def branch(name: str) -> dict[str, Any]:
        return {
            "type": "object",
            "required": ["op", "args"],
            "properties": {
                "args": {"type": "array", "items": {"$ref": REF + "Expr"}},
                "op": {"const": name},
            },
        }

    leaf = {"type": "object", "required": ["leaf"], "properties": {"leaf": {"type": "integer"}}}
    return {"Expr": {"oneOf": [branch("and"), branch("or"), leaf], **more}}


def _nested(value: Any, levels: int) -> Any:
    for _ in range(levels):
        value = {"op": "or", "args": [value]}
    return value


@pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])
def test_alternatives_within_alternatives_cost_no_more_with_each_level(version, tmp_path):
    # Gathering faults of each alternative doubles at each level; 30 of them would take hours.
    schema = {
        "type": "object",
        "required": ["name"],
        "properties": {"where": {"$ref": REF + "Expr"}, "name": {"type": "string"}},
    }
    document = with_body(schema, version=version, components={"schemas": _tree()})
    operation = operation_of(described(tmp_path, document))
    assert body_faults(operation, {"name": "n", "where": _nested({"leaf": 1}, 30)}) == []
    assert body_faults(operation, {"where": _nested({"leaf": "x"}, 30)}) == [
        ("oneOf", "/where"),
        ("required", "/name"),
    ]
    assert body_faults(operation, {"name": 1}) == [("type", "/name")]


def test_what_is_left_out_for_that_is_still_refused(tmp_path):
    document = with_body(
        {"$ref": REF + "Expr"}, components={"schemas": _tree(unevaluatedProperties=False)}
    )
    operation = operation_of(described(tmp_path, document))
    assert body_faults(operation, _nested({"leaf": 1}, 3)) == []
    # That the innermost leaf has one property too many is known, only where is not.
    assert body_faults(operation, {"leaf": 1, "more": 2}) == [("schema", "")]
    assert body_faults(operation, _nested({"leaf": 1, "more": 2}, 3)) == [("oneOf", "")]


def test_the_same_in_a_plain_schema(tmp_path):
    from headgate.security.validation import ValidationRules, describe

    tree = json.loads(json.dumps(_tree()["Expr"]).replace(REF + "Expr", "#"))
    operation = operation_of(describe(ValidationRules(body=tree)))
    assert body_faults(operation, _nested({"leaf": 1}, 30)) == []
    assert body_faults(operation, _nested({"leaf": "x"}, 30)) == [("schema", "")]


def test_a_big_body_is_told_its_first_fault_and_nothing_of_alternatives(tmp_path):
    item = {"oneOf": [{"type": "integer"}, {"type": "object", "required": ["a", "b", "c"]}]}
    schema = {"oneOf": [{"type": "array", "items": item}, {"type": "object"}]}
    operation = operation_of(described(tmp_path, with_body(schema)))
    assert ("required", "/0/a") in body_faults(operation, [{}])
    assert body_faults(operation, [{}] * 15_000) == [("oneOf", "")]


def test_a_discriminator_says_what_is_wrong_at_any_depth(tmp_path):
    schemas: dict[str, Any] = {
        name: {
            "type": "object",
            "required": ["op", "args"],
            "properties": {
                "args": {"type": "array", "items": {"$ref": REF + "Expr"}},
                "op": {"type": "string"},
            },
        }
        for name in ("And", "Or")
    }
    schemas["Leaf"] = {"type": "object", "properties": {"leaf": {"type": "integer"}}}
    schemas["Expr"] = {
        "oneOf": [{"$ref": REF + name} for name in ("And", "Or", "Leaf")],
        "discriminator": {"propertyName": "op", "mapping": {"and": "And", "or": "Or"}},
    }
    document = with_body({"$ref": REF + "Expr"}, components={"schemas": schemas})
    operation = operation_of(described(tmp_path, document))
    value = _nested({"op": "Leaf", "leaf": "x"}, 25)
    assert body_faults(operation, value) == [("type", "/args/0" * 25 + "/leaf")]


def test_a_list_with_null_in_it_is_told_of_without_its_whole_chain(tmp_path):
    node = {
        "type": "object",
        "properties": {"next": {"nullable": True, "allOf": [{"$ref": REF + "N"}]},
                       "v": {"type": "integer"}},
    }  # fmt: skip
    document = with_body({"$ref": REF + "N"}, version="3.0.3", components={"schemas": {"N": node}})
    operation = operation_of(described(tmp_path, document))
    value: Any = None
    for _ in range(60):
        value = {"next": value, "v": 1}
    assert body_faults(operation, value) == []
    assert body_faults(operation, {"v": "x", "next": value["next"]}) == [("type", "/v")]


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"^(a+)+$", "a" * 100_000 + "!"),
        (r"^(a|a)*$", "a" * 100_000 + "!"),
        (r"^(.*)*x$", "y" * 100_000),
        (r"^([a-zA-Z0-9]+\s?)*$", "a" * 100_000 + "!"),
        (r"(x+x+)+y", "x" * 100_000),
    ],
)
def test_patterns_take_time_in_proportion(pattern, text, tmp_path):
    schema = {"type": "string", "pattern": pattern}
    operation = operation_of(described(tmp_path, with_body(schema)))
    assert body_faults(operation, text) == [("pattern", "")]


def test_patterns_that_look_around_give_up(tmp_path):
    schema = {"type": "string", "pattern": r"^(?=(a+)+$)(a+)+\2$"}
    operation = operation_of(described(tmp_path, with_body(schema), patterns="bounded"))
    assert body_faults(operation, "a" * 5000 + "!") == [("pattern", "")]


BODIES = {
    "brackets": b"[" * 100_000,
    "closed": b"[" * 100_000 + b"]" * 100_000,
    "objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "1e400": b'{"n":1e400}',
    "1e999999999": b'{"n":1e999999999}',
    "digits": b'{"n":' + b"9" * 100_000 + b"}",
    "nan": b'{"n":NaN}',
    "duplicate": b'{"n":1,"n":2}',
    "utf8": b'{"n":"\xff"}',
    "utf16": '{"n":1}'.encode("utf-16-le"),
    "nul": b'{"n":1}\0',
    "items": b"[" + b"1," * 60_000 + b"1]",
    "commas": b"," * 100_000,
}


@pytest.mark.parametrize("case", BODIES)
def test_bodies_that_are_not_what_they_seem_are_unreadable(case, tmp_path):
    operation = operation_of(described(tmp_path, with_body({})))
    refusal = operation.body_refusal("application/json", BODIES[case])
    assert refusal is not None
    assert (refusal.status, refusal.kind) == (400, "unreadable")


def test_big_and_fine_numbers_are_held_to_exactly(tmp_path):
    schema = {"properties": {"n": {"type": "integer", "maximum": 10**30, "multipleOf": 3},
                             "f": {"multipleOf": 0.01}}}  # fmt: skip
    operation = operation_of(described(tmp_path, with_body(schema)))
    assert body_faults(operation, {"n": 3 * 10**29, "f": 19.99}) == []
    assert body_faults(operation, {"n": 10**30 + 2}) == [("maximum", "/n")]
    assert body_faults(operation, {"n": 10**29 + 1}) == [("multipleOf", "/n")]
    assert body_faults(operation, b'{"n": ' + b"3" * 4000 + b"}") == [("maximum", "/n")]
    assert body_faults(operation, b'{"f": 1e308}') == []
    for text in (b'{"n":1e30}', b'{"n":3.0}', b'{"n":-0}'):
        assert body_faults(operation, text) in ([], [("multipleOf", "/n")])


def test_true_is_no_number_and_text_is_no_number(tmp_path):
    operation = operation_of(described(tmp_path, with_body({"type": "integer"})))
    for value in (True, "1", None, [1], 1.5):
        assert body_faults(operation, value) == [("type", "")]


@pytest.mark.parametrize(
    "query",
    [
        "p=1&p=2",
        "%70=1&p=2",
        "p=1&p=1",
        "p=",
        "p=1%00",
        "p=%ff",
        "p=1%0a",
        "p=1;q=2",
        "p[]=1&p=x",
        "p=%31%",
        "&".join(f"a{i}=1" for i in range(5000)),
    ],
    ids=["twice", "encoded", "same", "empty", "nul", "bytes", "newline", "semicolon", "brackets",
         "percent", "many"],
)  # fmt: skip
def test_a_query_that_services_read_differently_is_refused(query, tmp_path):
    parameter = {"in": "query", "name": "p", "required": True, "schema": {"type": "integer"}}
    operation = operation_of(described(tmp_path, with_parameter(parameter)), "GET")
    assert operation.head_faults(query, ()) != ()


@pytest.mark.parametrize(
    "path", ["/x/%00", "/x/%ff", "/x/1%00", "/x/%2e%2e", "/x/1%2F2", "/x/\u0661"]
)
def test_a_path_parameter_is_decoded_once_and_strictly(path, tmp_path):
    parameter = {"in": "path", "name": "p", "schema": {"type": "integer"}}
    found = described(tmp_path, with_parameter(parameter)).find("GET", path)
    assert isinstance(found, Found)
    assert found.path_faults != ()


def test_a_mixed_segment_is_matched_without_going_back(tmp_path):
    names = "abcdefgh"
    template = "/" + "-".join(f"{{{n}}}" for n in names) + "!"
    parameters = [{"in": "path", "name": n, "required": True, "schema": {}} for n in names]
    document = openapi({template: {"parameters": parameters, "get": {}}})
    description = described(tmp_path, document, unknown="refuse")
    assert isinstance(description.find("GET", "/" + "-" * 8000), Refusal)
    assert isinstance(description.find("GET", "/" + "a-" * 4000 + "!"), Found)


def test_many_templates_that_begin_alike_are_searched_once_each(tmp_path):
    parameters = [
        {"in": "path", "name": f"p{i}", "required": True, "schema": {}} for i in range(12)
    ]
    paths: dict[str, Any] = {}
    for mask in range(0, 4096, 17):
        chosen = [i for i in range(12) if mask >> i & 1]
        template = "".join(f"/{{p{i}}}" if i in chosen else "/a" for i in range(12))
        paths[template] = {"parameters": [parameters[i] for i in chosen], "get": {}}
    description = described(tmp_path, openapi(paths), unknown="refuse")
    assert isinstance(description.find("GET", "/a" * 11 + "/b"), Found | Refusal)
    assert isinstance(description.find("GET", "/a" * 13), Refusal)


def test_deep_objects_in_a_query_are_one_level_deep(tmp_path):
    parameter = {"in": "query", "name": "p", "style": "deepObject", "schema": {
        "type": "object", "additionalProperties": False,
        "properties": {"a": {"type": "integer"}}}}  # fmt: skip
    operation = operation_of(
        described(tmp_path, with_parameter(parameter), strict_query=True), "GET"
    )
    assert operation.head_faults("p[a]=1", ()) == ()
    assert faults_of(operation.head_faults("p[a][b]=1", ())) == [("unknown", "/p[a][b]")]
    assert faults_of(operation.head_faults("p[__proto__]=1", ())) == [
        ("additionalProperties", "/p/__proto__")
    ]
    assert faults_of(operation.head_faults("p[a]=1&p[a]=2", ())) == [("duplicate", "/p")]
    assert faults_of(operation.head_faults("p[" * 2000, ()))[0][0] == "unknown"


SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "integer", "minimum": 0},
        "b": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+$"}},
        "c": {"oneOf": [{"type": "boolean"}, {"enum": ["x", None]}]},
        "d": {"type": "string", "format": "date"},
    },
    "additionalProperties": {"type": "number"},
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from("abcde") | TEXT, inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@settings(max_examples=200)
@given(VALUES)
def test_any_json_gets_an_answer_without_what_it_holds(tmp_path_factory, value):
    operation = _shared(tmp_path_factory)
    refusal = operation.body_refusal("application/json", json.dumps(value).encode())
    if refusal is None:
        assert isinstance(value, dict)
        return
    assert 0 < len(refusal.faults) <= 20
    for fault in refusal.faults:
        assert len(fault.pointer) < 400
        assert len(fault.detail) < 300


_kept: list[Any] = []


def _shared(tmp_path_factory):
    if not _kept:
        folder = tmp_path_factory.mktemp("schema")
        _kept.append(operation_of(described(folder, with_body(SCHEMA))))
    return _kept[0]


@settings(max_examples=200)
@given(TEXT)
def test_any_query_gets_an_answer(tmp_path_factory, query):
    if len(_kept) < 2:
        _shared(tmp_path_factory)
        parameters = [
            {"in": "query", "name": "a", "schema": {"type": "array", "items": {"type": "integer"}}},
            {"in": "query", "name": "b", "style": "deepObject", "schema": {"type": "object"}},
            {"in": "query", "name": "c", "schema": {"type": ["integer", "string"], "maxLength": 3}},
        ]
        folder = tmp_path_factory.mktemp("query")
        document = openapi({"/x": {"get": {"parameters": parameters}}})
        _kept.append(operation_of(described(folder, document), "GET"))
    for text in (query, f"a={query}", f"b[{query}]={query}", f"c={query}"):
        assert len(_kept[1].head_faults(text, ())) <= 20
