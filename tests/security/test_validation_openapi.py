"""OpenAPI documents: what their schemas come to, and which operation a request is for."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.security.validation import Found, Refusal
from tests.security.validation_documents import (
    body_faults,
    described,
    faults_of,
    openapi,
    operation_of,
    with_body,
    with_parameter,
    write,
)

PET = {"type": "object", "required": ["kind"], "properties": {"kind": {"type": "string"}}}
CAT = {"allOf": [{"$ref": "#/components/schemas/Pet"}], "required": ["lives"],
       "properties": {"lives": {"type": "integer"}}}  # fmt: skip
DOG = {"allOf": [{"$ref": "#/components/schemas/Pet"}], "required": ["bark"],
       "properties": {"bark": {"type": "string"}}}  # fmt: skip
ZOO = {"schemas": {"Pet": PET, "Cat": CAT, "Dog": DOG, "My.Fish": {"required": ["fins"]}}}
REF = "#/components/schemas/"


def test_all_faults_are_listed_with_pointers_and_no_values(tmp_path):
    schema = {
        "type": "object",
        "required": ["id"],
        "additionalProperties": False,
        "properties": {
            "id": {"type": "integer"},
            "a/b~c": {"maximum": 3},
            "list": {"type": "array", "items": {"enum": ["x", "y"]}},
        },
    }
    operation = operation_of(described(tmp_path, with_body(schema)))
    secret = "s3cret" * 20
    value = {"a/b~c": 4, "list": ["x", secret], secret: 1}
    assert body_faults(operation, value) == [
        ("additionalProperties", "/" + secret[:40] + "..."),
        ("enum", "/list/1"),
        ("maximum", "/a~1b~0c"),
        ("required", "/id"),
    ]
    refusal = operation.body_refusal("application/json", b'{"id": "s3cret"}')
    assert refusal is not None
    assert "s3cret" not in repr(refusal)


def test_no_more_than_twenty_faults_are_told(tmp_path):
    schema = {"type": "array", "items": {"type": "integer"}}
    operation = operation_of(described(tmp_path, with_body(schema)))
    assert len(body_faults(operation, ["x"] * 500)) == 20


def test_of_a_big_body_the_first_fault_alone_is_told(tmp_path):
    schema = {"type": "array", "items": {"type": "integer"}}
    operation = operation_of(described(tmp_path, with_body(schema)))
    assert body_faults(operation, [1] * 20_000 + ["x"] * 20_000) == [("type", "/20000")]


NULLABLE: list[tuple[Any, Any, bool]] = [
    ({"type": "string", "nullable": True}, None, True),
    ({"type": "string", "nullable": True}, 1, False),
    ({"type": "string", "nullable": False}, None, False),
    ({"type": "string", "nullable": True, "enum": ["a", None]}, None, True),
    ({"type": "string", "nullable": True, "enum": ["a"]}, None, False),
    ({"nullable": True, "allOf": [{"$ref": REF + "Pet"}]}, None, True),
    ({"nullable": True, "allOf": [{"$ref": REF + "Pet"}]}, {}, False),
    ({"type": "object", "nullable": True, "oneOf": [{"$ref": REF + "Pet"}]}, None, True),
    ({"type": "object", "nullable": True, "oneOf": [{"$ref": REF + "Pet"}]}, {}, False),
    ({"nullable": True}, None, True),
    ({"$ref": REF + "Pet", "nullable": True}, None, False),  # beside a $ref nothing counts
]


@pytest.mark.parametrize("at", range(len(NULLABLE)))
def test_nullable_of_3_0_takes_null(at, tmp_path):
    schema, value, is_good = NULLABLE[at]
    document = with_body(
        {"properties": {"p": schema}}, version="3.0.3", components={"schemas": {"Pet": PET}}
    )
    operation = operation_of(described(tmp_path, document))
    assert (not body_faults(operation, {"p": value})) is is_good


OLD = [
    ({"minimum": 3, "exclusiveMinimum": True}, 3, False),
    ({"minimum": 3, "exclusiveMinimum": False}, 3, True),
    ({"maximum": 3, "exclusiveMaximum": True}, 3, False),
    ({"items": [{"type": "integer"}], "additionalItems": False}, [1], True),
    ({"items": [{"type": "integer"}], "additionalItems": False}, [1, 2], False),
    ({"items": [{"type": "integer"}]}, ["x"], False),
    ({"dependencies": {"a": ["b"]}}, {"a": 1}, False),
    ({"dependencies": {"a": {"required": ["b"]}}}, {"a": 1, "b": 1}, True),
    ({"dependencies": {"a": {"required": ["b"]}}}, {"a": 1}, False),
    ({"format": "int32", "type": "integer", "maximum": 5}, 6, False),
]


@pytest.mark.parametrize("at", range(len(OLD)))
def test_what_older_drafts_write_another_way_means_the_same(at, tmp_path):
    schema, value, is_good = OLD[at]
    operation = operation_of(described(tmp_path, with_body(schema, version="3.0.1")))
    assert (not body_faults(operation, value)) is is_good


NEW = [
    ({"type": ["string", "null"]}, None, True),
    ({"exclusiveMinimum": 3}, 3, False),
    ({"prefixItems": [{"type": "integer"}], "items": False}, [1, 2], False),
    ({"allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": False}, {"a": 1}, True),
    ({"allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": False}, {"b": 1}, False),
    ({"$ref": REF + "Pet", "unevaluatedProperties": False}, {"kind": "x", "y": 1}, False),
    ({"$ref": REF + "Pet", "unevaluatedProperties": False}, {"kind": "x"}, True),
    ({"if": {"required": ["a"]}, "then": {"required": ["b"]}}, {"a": 1}, False),
    ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, False),
    ({"contains": {"const": 1}, "maxContains": 1}, [1, 1], False),
    ({"patternProperties": {"^x": {"type": "integer"}}}, {"xa": "s"}, False),
    ({"propertyNames": {"maxLength": 2}}, {"abc": 1}, False),
    ({"$ref": "#/$anchors/nothing"}, {}, None),
    (True, {"any": 1}, True),
    (False, 1, False),
]


@pytest.mark.parametrize("at", range(len(NEW)))
def test_what_2020_12_says_holds_in_3_1(at, tmp_path):
    schema, value, is_good = NEW[at]
    document = with_body(schema, components={"schemas": {"Pet": PET}})
    if is_good is None:
        with pytest.raises(ValueError, match="leads nowhere"):
            described(tmp_path, document)
        return
    assert (not body_faults(operation_of(described(tmp_path, document)), value)) is is_good


def test_anchors_and_identifiers_are_found(tmp_path):
    schemas = {
        "A": {"$anchor": "number", "type": "integer"},
        "B": {"$id": "https://shop.example/b", "$defs": {"in": {"type": "string"}},
              "properties": {"s": {"$ref": "#/$defs/in"}}},
    }  # fmt: skip
    schema = {"properties": {"a": {"$ref": "#number"}, "b": {"$ref": "https://shop.example/b"}}}
    operation = operation_of(
        described(tmp_path, with_body(schema, components={"schemas": schemas}))
    )
    assert body_faults(operation, {"a": 1, "b": {"s": "x"}}) == []
    assert body_faults(operation, {"a": "x", "b": {"s": 1}}) == [("type", "/a"), ("type", "/b/s")]


def test_dynamic_references_are_bound_to_the_outermost_anchor(tmp_path):
    tree = {
        "$id": "https://shop.example/tree",
        "$dynamicAnchor": "node",
        "type": "object",
        "properties": {"data": True, "children": {"items": {"$dynamicRef": "#node"}}},
    }
    strict = {
        "$id": "https://shop.example/strict",
        "$dynamicAnchor": "node",
        "$ref": "https://shop.example/tree",
        "unevaluatedProperties": False,
    }
    document = with_body({"$ref": REF + "Strict"},
                         components={"schemas": {"Tree": tree, "Strict": strict}})  # fmt: skip
    operation = operation_of(described(tmp_path, document))
    assert body_faults(operation, {"children": [{"data": 1}]}) == []
    assert body_faults(operation, {"children": [{"daat": 1}]}) != []


MAPPED = {
    "propertyName": "kind",
    "mapping": {"cat": REF + "Cat", "kitty": "Cat", "fish": "My.Fish"},
}


@pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])
@pytest.mark.parametrize("word", ["oneOf", "anyOf"])
def test_a_discriminator_chooses_the_alternative(version, word, tmp_path):
    schema = {
        word: [{"$ref": REF + "Cat"}, {"$ref": REF + "Dog"}, {"$ref": REF + "My.Fish"}],
        "discriminator": MAPPED,
    }
    operation = operation_of(
        described(tmp_path, with_body(schema, version=version, components=ZOO))
    )
    for value in (
        {"kind": "cat", "lives": 9},
        {"kind": "kitty", "lives": 9},
        {"kind": "Dog", "bark": "w", "lives": 1},
        {"kind": "fish", "fins": 2},
    ):
        assert body_faults(operation, value) == []
    assert body_faults(operation, {"kind": "cat"}) == [("required", "/lives")]
    assert body_faults(operation, {"kind": "Dog", "lives": 9}) == [("required", "/bark")]
    assert body_faults(operation, {"kind": "cow"}) == [("enum", "/kind")]
    assert body_faults(operation, {"lives": 9}) == [("required", "/kind")]
    assert body_faults(operation, 5) == [("type", "")]


def test_without_a_discriminator_the_best_alternative_is_told_of(tmp_path):
    schema = {"oneOf": [{"$ref": REF + "Cat"}, {"type": "string"}]}
    operation = operation_of(described(tmp_path, with_body(schema, components=ZOO)))
    assert body_faults(operation, {"kind": "c", "lives": "many"}) == [
        ("oneOf", ""),
        ("type", "/lives"),
    ]
    two = {"oneOf": [{"type": "integer"}, {"minimum": 0}]}
    operation = operation_of(described(tmp_path, with_body(two)))
    assert body_faults(operation, 3) == [("oneOf", "")]


HIDDEN = {
    "type": "object",
    "required": ["id", "name", "secret"],
    "properties": {
        "id": {"type": "integer", "readOnly": True},
        "stamp": {"$ref": REF + "Stamp"},
        "name": {"type": "string"},
        "secret": {"type": "string", "writeOnly": True},
    },
}
STAMP = {"type": "string", "readOnly": True}


@pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])
def test_read_only_properties_are_neither_required_nor_taken(version, tmp_path):
    components = {"schemas": {"Stamp": STAMP, "Base": HIDDEN}}
    for schema in (HIDDEN, {"allOf": [{"$ref": REF + "Base"}, {"required": ["id"]}]}):
        document = with_body(schema, version=version, components=components)
        strict = operation_of(described(tmp_path, document))
        assert body_faults(strict, {"name": "n", "secret": "s"}) == []
        assert body_faults(strict, {"name": "n", "secret": "s", "id": 1, "stamp": "x"}) == [
            ("readOnly", "/id"),
            ("readOnly", "/stamp"),
        ]
        loose = operation_of(described(tmp_path, document, read_only="pass"))
        assert body_faults(loose, {"name": "n", "secret": "s", "id": 1}) == []
        assert body_faults(loose, {"name": "n", "secret": "s", "id": "x"}) == [("type", "/id")]


def test_write_only_properties_are_missing_from_responses(tmp_path):
    content = {"application/json": {"schema": HIDDEN}}
    responses: dict[str, Any] = {
        "200": {"content": content},
        "4XX": {"content": {"application/problem+json": {"schema": {"required": ["title"]}}}},
        "204": {},
    }
    document = openapi(
        {"/x": {"get": {"responses": responses}}}, components={"schemas": {"Stamp": STAMP}}
    )
    operation = operation_of(described(tmp_path, document, responses="report"), "GET")

    def faults(status, text, kind="application/json"):
        return faults_of(operation.response_faults(status, kind, text))

    assert faults(200, b'{"id":1,"name":"n"}') == []
    assert faults(200, b'{"id":1,"name":"n","secret":"s"}') == [("writeOnly", "/secret")]
    assert faults(200, b'{"name":"n"}') == [("required", "/id")]
    assert faults(200, b"{") == [("json", "")]
    assert faults(200, b"<x/>", "text/html") == [("contentType", "")]
    assert faults(404, b"{}", "application/problem+json") == [("required", "/title")]
    assert faults(204, None) == []
    assert faults(500, b"{}") == [("unknown", "")]


PATHS = {
    "/users/{id}": ["get", "put"],
    "/users/me": ["get"],
    "/users/{id}.json": ["get"],
    "/files/{name}-v{version}": ["get"],
    "/a b": ["get"],
    "/": ["get"],
    "/users/{id}/items/{item}": ["delete"],
    "/users/me/items/all": ["get"],
}


def _matching() -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for template, methods in PATHS.items():
        names = [part.split("}")[0] for part in template.split("{")[1:]]
        parameters = [
            {"in": "path", "name": n, "required": True, "schema": {"type": "string"}} for n in names
        ]
        paths[template] = {"parameters": parameters} | {
            m: {"operationId": f"{m} {template}", "responses": {}} for m in methods
        }
    return openapi(paths, servers=[{"url": "https://{host}/v1/", "variables": {}}])


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", "/v1/users/7", "get /users/{id}"),
        ("GET", "/v1/users/me", "get /users/me"),
        ("GET", "/v1/users/m%65", "get /users/me"),
        ("GET", "/v1/users/me.json", "get /users/{id}.json"),
        ("GET", "/v1/users/.json", "get /users/{id}"),
        ("PUT", "/v1/users/me", "put /users/{id}"),
        ("HEAD", "/v1/users/me", "get /users/me"),
        ("GET", "/v1/users/a%2Fb", "get /users/{id}"),
        ("GET", "/v1/files/a-b-v3", "get /files/{name}-v{version}"),
        ("GET", "/v1/a%20b", "get /a b"),
        ("GET", "/v1/", "get /"),
        ("GET", "/v1", "get /"),
        ("DELETE", "/v1/users/me/items/all", "delete /users/{id}/items/{item}"),
        ("GET", "/v1/users/", 404),
        ("GET", "/v1/users/7/", 404),
        ("GET", "/v1/users//items/3", 404),
        ("GET", "/v1x/users/7", 404),
        ("GET", "/users/7", 404),
        ("GET", "/v1/files/-v3", 404),
        ("GET", "/v1/files/a-v", 404),
        ("GET", "*", 404),
        ("POST", "/v1/users/me", 405),
        ("OPTIONS", "/v1/a%20b", 405),
    ],
)
def test_a_request_is_for_the_best_path_that_has_its_method(method, path, found, tmp_path):
    got = described(tmp_path, _matching(), unknown="refuse").find(method, path)
    if isinstance(found, int):
        assert isinstance(got, Refusal)
        assert got.status == found
    else:
        assert isinstance(got, Found)
        assert got.operation.name == found
    passing = described(tmp_path, _matching()).find(method, path)
    assert isinstance(passing, Found) is not isinstance(found, int)


def test_allow_names_the_methods_of_every_path_that_fits(tmp_path):
    got = described(tmp_path, _matching(), unknown="refuse").find("POST", "/v1/users/me")
    assert isinstance(got, Refusal)
    assert got.headers == (("allow", "GET, HEAD, PUT"),)


def test_base_takes_the_place_of_the_server(tmp_path):
    description = described(tmp_path, _matching(), base="/api/", unknown="refuse")
    assert isinstance(description.find("GET", "/api/users/me"), Found)
    assert isinstance(description.find("GET", "/v1/users/me"), Refusal)


def test_what_paths_and_queries_came_to_is_kept_within_a_bound(tmp_path):
    parameter = {"in": "query", "name": "p", "schema": {"type": "integer"}}
    description = described(tmp_path, with_parameter(parameter), unknown="refuse")
    for i in range(5000):
        assert description.find("GET", f"/{i}") is not None
    operation = operation_of(description, "GET")
    for i in range(1000):
        assert operation.head_faults(f"p={i}", ()) == ()
        assert operation.head_faults(f"p=x{i}", ()) != ()
    assert len(description._kept) <= 1024
    assert len(operation._queries) <= 256


def test_parameters_of_an_operation_override_those_of_its_path(tmp_path):
    shared = {"in": "query", "name": "p", "schema": {"type": "integer"}}
    own = {"in": "query", "name": "p", "required": True, "schema": {"type": "boolean"}}
    document = openapi(
        {"/x": {"parameters": [shared], "get": {"parameters": [own]}, "post": {"responses": {}}}}
    )
    description = described(tmp_path, document)
    assert operation_of(description, "GET").head_faults("p=true", ()) == ()
    assert faults_of(operation_of(description, "GET").head_faults("", ())) == [("required", "/p")]
    assert operation_of(description, "POST").head_faults("p=1", ()) == ()


def test_an_unknown_query_parameter_passes_unless_told(tmp_path):
    document = with_parameter({"in": "query", "name": "p", "schema": {"type": "integer"}})
    document["components"] = {
        "securitySchemes": {"k": {"type": "apiKey", "in": "query", "name": "key"}}
    }
    assert operation_of(described(tmp_path, document), "GET").head_faults("q=1", ()) == ()
    strict = operation_of(described(tmp_path, document, strict_query=True), "GET")
    assert faults_of(strict.head_faults("p=1&q=1&key=k", ())) == [("unknown", "/q")]


@pytest.mark.parametrize("query", ["p=1&p=2", "p=1&%70=2", "p=1&p="])
def test_a_parameter_given_twice_is_refused_unless_it_is_a_list(query, tmp_path):
    parameter: dict[str, Any] = {"in": "query", "name": "p", "schema": {"type": "integer"}}
    operation = operation_of(described(tmp_path, with_parameter(parameter)), "GET")
    assert faults_of(operation.head_faults(query, ())) == [("duplicate", "/p")]


def test_headers_and_cookies_given_twice_are_refused(tmp_path):
    for place in ("header", "cookie"):
        document = with_parameter({"in": place, "name": "p", "schema": {"type": "string"}})
        operation = operation_of(described(tmp_path, document), "GET")
        twice = [(b"p", b"1"), (b"p", b"2")] if place == "header" else [(b"cookie", b"p=1; p=2")]
        assert faults_of(operation.head_faults("", twice)) == [("duplicate", "/p")]


def test_an_empty_value_passes_where_it_may_be_empty(tmp_path):
    for may, faults in ((True, []), (False, [("type", "/p")])):
        parameter = {"in": "query", "name": "p", "required": True, "allowEmptyValue": may,
                     "schema": {"type": "integer"}}  # fmt: skip
        operation = operation_of(described(tmp_path, with_parameter(parameter)), "GET")
        assert faults_of(operation.head_faults("p=", ())) == faults


def test_a_parameter_may_be_written_as_json(tmp_path):
    schema = {"type": "object", "required": ["a"]}
    parameter = {"in": "query", "name": "p", "content": {"application/json": {"schema": schema}}}
    operation = operation_of(described(tmp_path, with_parameter(parameter)), "GET")
    assert operation.head_faults("p=%7B%22a%22:1%7D", ()) == ()
    assert faults_of(operation.head_faults("p=%7B%7D", ())) == [("required", "/p/a")]
    assert faults_of(operation.head_faults("p=%7B", ())) == [("json", "/p")]


def test_a_free_form_object_takes_what_no_other_parameter_is(tmp_path):
    document = with_parameter({"in": "query", "name": "p", "schema": {"type": "integer"}})
    filters = {"in": "query", "name": "f", "schema": {
        "type": "object", "additionalProperties": {"type": "integer"}}}  # fmt: skip
    document["paths"]["/x"]["get"]["parameters"].append(filters)
    operation = operation_of(described(tmp_path, document, strict_query=True), "GET")
    assert operation.head_faults("p=1&a=2&b=3", ()) == ()
    assert faults_of(operation.head_faults("p=1&a=x", ())) == [("type", "/f/a")]


def _announced(operation, kind, *, encoding="", is_there=True):
    kinds = [] if kind is None else [kind] if isinstance(kind, str) else kind
    refusal = operation.body_announced(kinds, encoding, is_there=is_there)
    return refusal.status if refusal is not None else None


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", None),
        ("Application/JSON; charset=UTF-8", None),
        ('application/json;charset="utf-8"', None),
        ("application/json; charset=utf-16", 415),
        ("application/json; charset=utf-8; charset=utf-7", 415),
        ("application/json; charset=", 415),
        ("application/merge-patch+json", None),
        ("application/xml", 415),
        ("image/png", None),
        ("text/plain", 415),
        ("application", 415),
        ("application/json, text/plain", 415),
        (None, 415),
        (["application/json", "application/json"], 415),
    ],
)
def test_a_body_must_be_of_a_described_type(kind, status, tmp_path):
    content: dict[str, Any] = {
        "application/json": {"schema": {}},
        "application/*+json": {"schema": {}},
        "image/*": {},
    }
    document = openapi({"/x": {"post": {"requestBody": {"content": content}}}})
    operation = operation_of(described(tmp_path, document))
    assert _announced(operation, kind) == status


def test_a_compressed_body_is_refused_only_where_it_would_be_read(tmp_path):
    content: dict[str, Any] = {"application/json": {"schema": {}}, "image/png": {}}
    document = openapi({"/x": {"post": {"requestBody": {"content": content}}}})
    operation = operation_of(described(tmp_path, document))
    assert _announced(operation, "application/json", encoding="gzip") == 415
    assert _announced(operation, "application/json", encoding="identity") is None
    assert _announced(operation, "image/png", encoding="gzip") is None


def test_a_required_body_must_come_and_another_may_be_refused(tmp_path):
    document = with_body({})
    document["paths"]["/x"]["post"]["requestBody"]["required"] = True
    document["paths"]["/x"]["get"] = {"responses": {}}
    description = described(tmp_path, document, unknown="refuse")
    assert _announced(operation_of(description), None, is_there=False) == 400
    refusal = operation_of(description).body_refusal("application/json", b"")
    assert refusal is not None
    assert refusal.faults[0].keyword == "required"
    assert _announced(operation_of(description, "GET"), "application/json") == 400
    assert _announced(operation_of(described(tmp_path, document), "GET"), "a/b") is None


def test_formats_are_held_to_only_where_told(tmp_path):
    schema = {"type": "string", "format": "email"}
    assert body_faults(operation_of(described(tmp_path, with_body(schema))), "x") != []
    loose = operation_of(described(tmp_path, with_body(schema), formats=False))
    assert body_faults(loose, "x") == []


def test_the_status_may_be_422_but_what_is_unreadable_is_a_400(tmp_path):
    operation = operation_of(described(tmp_path, with_body({"type": "integer"}), status=422))
    for text, status in ((b'"x"', 422), (b"{", 400)):
        refusal = operation.body_refusal("application/json", text)
        assert refusal is not None
        assert refusal.status == status


def test_files_beneath_the_folder_are_followed(tmp_path):
    write(
        tmp_path, "type: object\nproperties: {up: {$ref: '../top.yaml#/Id'}}", "schemas/user.yaml"
    )
    write(tmp_path, {"Id": {"type": "integer"}}, "top.yaml")
    write(tmp_path, {"get": {"responses": {}}}, "paths/thing.json")
    document = with_body({"$ref": "schemas/user.yaml"})
    document["paths"]["/thing"] = {"$ref": "./paths/thing.json"}
    description = described(tmp_path, document)
    assert body_faults(operation_of(description), {"up": "x"}) == [("type", "/up")]
    assert isinstance(description.find("GET", "/thing"), Found)
    assert description.is_unchanged()
    write(tmp_path, {"Id": {"type": "string"}, "more": 1}, "top.yaml")
    assert not description.is_unchanged()


def test_schemas_that_refer_to_themselves_are_fine(tmp_path):
    node = {"type": "object", "properties": {"next": {"$ref": REF + "N"}, "v": {"type": "integer"}}}
    loops = {"N": node, "A": {"$ref": REF + "B"}, "B": {"allOf": [{"$ref": REF + "A"}]}}
    document = with_body({"$ref": REF + "N"}, components={"schemas": loops})
    operation = operation_of(described(tmp_path, document))
    assert body_faults(operation, {"next": {"next": {"v": "x"}}}) == [("type", "/next/next/v")]
    endless = with_body({"$ref": REF + "A"}, components={"schemas": loops})
    assert body_faults(operation_of(described(tmp_path, endless)), {}) == []


def test_validators_are_let_go_and_made_again(tmp_path):
    from headgate.security.validation.checker import Shelf

    document = openapi(
        {f"/{i}": {"post": {"requestBody": {"content": {"application/json": {
            "schema": {"const": i}}}}}} for i in range(5)}
    )  # fmt: skip
    description = described(tmp_path, document)
    operations: list[Any] = [operation_of(description, "POST", f"/{i}") for i in range(5)]
    shelf = Shelf(2)
    for operation in operations:
        operation.body.content["application/json"].checker._shelf = shelf
    for _ in range(3):
        for i, operation in enumerate(operations):
            assert body_faults(operation, i) == []
            assert body_faults(operation, i + 1) == [("const", "")]
    assert len(shelf._kept) == 2


def test_a_nullable_parameter_may_be_empty(tmp_path):
    schema = {"nullable": True, "allOf": [{"type": "integer"}]}
    document = with_parameter({"in": "query", "name": "p", "schema": schema}, "3.0.3")
    operation = operation_of(described(tmp_path, document), "GET")
    assert operation.head_faults("p=", ()) == ()
    assert operation.head_faults("p=5", ()) == ()
    assert faults_of(operation.head_faults("p=x", ())) == [("type", "/p")]
