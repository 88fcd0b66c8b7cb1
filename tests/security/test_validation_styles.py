"""Every style of a parameter with every type, as OpenAPI 3.1 writes them in its table."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.security.validation import Found
from headgate.security.validation.shapes import ANY, Shape
from headgate.security.validation.styles import Unreadable, decode, read_joined, read_path
from tests.security.validation_documents import described, faults_of, operation_of, with_parameter

TEXT = Shape(frozenset({"string"}))
INT = Shape(frozenset({"integer"}))
ARRAY = Shape(frozenset({"array"}), item=TEXT)
OBJECT = Shape(frozenset({"object"}), properties=dict.fromkeys("RGB", INT))

COLORS = ["blue", "black", "brown"]
RGB = {"R": 100, "G": 200, "B": 150}

PATHS: list[tuple[str, bool, Shape, str, Any]] = [
    ("simple", False, TEXT, "blue", "blue"),
    ("simple", False, ARRAY, "blue,black,brown", COLORS),
    ("simple", False, OBJECT, "R,100,G,200,B,150", RGB),
    ("simple", True, TEXT, "blue", "blue"),
    ("simple", True, ARRAY, "blue,black,brown", COLORS),
    ("simple", True, OBJECT, "R=100,G=200,B=150", RGB),
    ("label", False, TEXT, ".", ""),
    ("label", False, TEXT, ".blue", "blue"),
    ("label", False, ARRAY, ".blue,black,brown", COLORS),
    ("label", False, OBJECT, ".R,100,G,200,B,150", RGB),
    ("label", True, TEXT, ".blue", "blue"),
    ("label", True, ARRAY, ".blue.black.brown", COLORS),
    ("label", True, OBJECT, ".R=100.G=200.B=150", RGB),
    ("matrix", False, TEXT, ";color", ""),
    ("matrix", False, TEXT, ";color=blue", "blue"),
    ("matrix", False, ARRAY, ";color=blue,black,brown", COLORS),
    ("matrix", False, OBJECT, ";color=R,100,G,200,B,150", RGB),
    ("matrix", True, TEXT, ";color=blue", "blue"),
    ("matrix", True, ARRAY, ";color=blue;color=black;color=brown", COLORS),
    ("matrix", True, OBJECT, ";R=100;G=200;B=150", RGB),
]


def _id(case) -> str:
    kind = next(iter(case[2].types))
    return f"{case[0]}-{'explode' if case[1] else 'plain'}-{kind}-{len(case[3])}"


@pytest.mark.parametrize("case", PATHS, ids=_id)
def test_a_path_parameter_is_read_in_its_style(case):
    style, explode, shape, raw, value = case
    assert read_path(raw, "color", shape, style, explode=explode) == value


@pytest.mark.parametrize("case", PATHS, ids=_id)
def test_every_style_passes_through_a_whole_document(case, tmp_path):
    style, explode, shape, raw, _ = case
    kind = next(iter(shape.types))
    schema: dict[str, Any] = {"type": kind}
    if kind == "array":
        schema |= {"items": {"enum": COLORS}, "minItems": 3}
    if kind == "object":
        numbers = {name: {"type": "integer", "minimum": 100} for name in "RGB"}
        schema |= {"properties": numbers, "additionalProperties": False, "required": ["R"]}
    parameter = {"in": "path", "name": "p", "style": style, "explode": explode, "schema": schema}
    description = described(tmp_path, with_parameter(parameter))
    good = description.find("GET", f"/x/{raw.replace('color', 'p')}")
    assert isinstance(good, Found)
    assert good.path_faults == ()
    if kind != "string":
        bad = description.find("GET", f"/x/{raw.replace('color', 'p').replace('b', 'y')}x")
        assert isinstance(bad, Found)
        assert bad.path_faults != ()


QUERIES: list[tuple[str, bool, str, str]] = [
    ("form", True, "string", "p=blue"),
    ("form", True, "array", "p=blue&p=black&p=brown"),
    ("form", True, "object", "R=100&G=200&B=150"),
    ("form", False, "string", "p=blue"),
    ("form", False, "array", "p=blue,black,brown"),
    ("form", False, "object", "p=R,100,G,200,B,150"),
    ("spaceDelimited", False, "array", "p=blue%20black%20brown"),
    ("spaceDelimited", False, "array", "p=blue+black+brown"),
    ("spaceDelimited", False, "object", "p=R%20100%20G%20200%20B%20150"),
    ("spaceDelimited", True, "array", "p=blue&p=black&p=brown"),
    ("pipeDelimited", False, "array", "p=blue|black|brown"),
    ("pipeDelimited", False, "array", "p=blue%7Cblack%7cbrown"),
    ("pipeDelimited", False, "object", "p=R%7C100%7CG%7C200%7CB%7C150"),
    ("pipeDelimited", True, "array", "p=blue&p=black&p=brown"),
    ("deepObject", True, "object", "p[R]=100&p[G]=200&p[B]=150"),
    ("deepObject", True, "object", "p%5BR%5D=100&p%5BG%5D=200&p%5BB%5D=150"),
]
SCHEMAS: dict[str, Any] = {
    "string": {"const": "blue", "type": "string"},
    "array": {"const": COLORS, "type": "array", "items": {"type": "string"}},
    "object": {
        "const": RGB,
        "type": "object",
        "properties": {name: {"type": "integer"} for name in "RGB"},
    },
}


@pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])
@pytest.mark.parametrize("at", range(len(QUERIES)))
def test_a_query_parameter_is_read_in_its_style(at, version, tmp_path):
    style, explode, kind, query = QUERIES[at]
    schema = SCHEMAS[kind]
    parameter = {"in": "query", "name": "p", "style": style, "explode": explode, "schema": schema}
    description = described(tmp_path, with_parameter(parameter, version))
    operation = operation_of(description, "GET")
    assert operation.head_faults(query, ()) == ()
    assert operation.head_faults(f"other=1&{query}", ()) == ()
    wrong = query.replace("blue", "b").replace("100", "101")
    assert [k for k, _ in faults_of(operation.head_faults(wrong, ()))] == ["const"]


HEADERS = [
    (False, "string", ["blue"]),
    (False, "array", ["blue,black,brown"]),
    (False, "array", ["blue, black ,brown"]),
    (False, "array", ["blue", "black, brown"]),
    (False, "object", ["R,100,G,200,B,150"]),
    (True, "object", ["R=100, G=200, B=150"]),
]


@pytest.mark.parametrize("at", range(len(HEADERS)))
def test_a_header_is_read_in_style_simple(at, tmp_path):
    explode, kind, values = HEADERS[at]
    parameter = {"in": "header", "name": "X-P", "explode": explode, "schema": SCHEMAS[kind]}
    operation = operation_of(described(tmp_path, with_parameter(parameter)), "GET")
    fields = [(b"x-p", value.encode()) for value in values]
    assert operation.head_faults("", fields) == ()
    assert operation.head_faults("", [(b"x-p", b"zzz"), (b"host", b"h")]) != ()


COOKIES = [
    (True, "string", b"p=blue"),
    (False, "array", b"p=blue,black,brown"),
    (False, "object", b"p=R,100,G,200,B,150"),
    (True, "array", b"p=blue; p=black; p=brown"),
    (True, "object", b"R=100; G=200; B=150"),
]


@pytest.mark.parametrize("at", range(len(COOKIES)))
def test_a_cookie_is_read_in_style_form(at, tmp_path):
    explode, kind, text = COOKIES[at]
    parameter = {"in": "cookie", "name": "p", "explode": explode, "schema": SCHEMAS[kind]}
    operation = operation_of(described(tmp_path, with_parameter(parameter)), "GET")
    assert operation.head_faults("", [(b"cookie", b"a=b; " + text)]) == ()
    assert operation.head_faults("", [(b"cookie", b"p=zzz; R=7")]) != ()


COERCIONS = [
    ({"type": "integer"}, "5", True),
    ({"type": "integer"}, "-0", True),
    ({"type": "integer"}, "05", False),
    ({"type": "integer"}, "+5", False),
    ({"type": "integer"}, "5.0", False),
    ({"type": "integer"}, "5e0", False),
    ({"type": "integer"}, "%20 5", False),
    ({"type": "integer"}, "%D9%A5", False),  # an Arabic digit, which int() would take
    ({"type": "integer"}, "1_000", False),
    ({"type": "integer"}, "", False),
    ({"type": "integer"}, "9" * 5000, False),
    ({"type": "integer", "format": "int32"}, "2147483647", True),
    ({"type": "integer", "format": "int32"}, "2147483648", False),
    ({"type": "integer", "format": "int64"}, "-9223372036854775808", True),
    ({"type": "integer", "format": "int64"}, "9223372036854775808", False),
    ({"type": "integer"}, "9" * 30, True),
    ({"type": "number"}, "1.5e3", True),
    ({"type": "number"}, "1e400", False),
    ({"type": "number"}, "NaN", False),
    ({"type": "number"}, "inf", False),
    ({"type": "number"}, ".5", False),
    ({"type": "boolean"}, "true", True),
    ({"type": "boolean"}, "True", False),
    ({"type": "boolean"}, "1", False),
    ({"type": ["integer", "null"]}, "", True),
    ({"type": ["integer", "string"], "maxLength": 1, "maximum": 3}, "7", True),
    (
        {"anyOf": [{"type": "integer", "maximum": 3}, {"pattern": "^0", "type": "string"}]},
        "5",
        False,
    ),
    (
        {"anyOf": [{"type": "integer", "maximum": 3}, {"pattern": "^0", "type": "string"}]},
        "05",
        True,
    ),
    ({"type": "string", "pattern": "^[0-9]+$"}, "5", True),
    ({"enum": [1, 2]}, "2", True),
    ({"enum": ["1", "2"]}, "2", True),
    ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, "2", False),
    ({"type": "string", "format": "uuid"}, "6fa459ea-ee8a-3ca4-894e-db77e160355e", True),
    ({"type": "string", "format": "date"}, "2026-02-30", False),
    ({"type": "string", "format": "date-time"}, "2026-02-28T10:00:00%2B01:00", True),
    ({"type": "string", "format": "ipv4"}, "010.1.1.1", False),
    ({"type": "string", "format": "byte"}, "YQ==", True),
    ({"type": "string", "format": "byte"}, "Y", False),
    ({"type": "string"}, "%00", False),
    ({"type": "string"}, "a%00b", False),
    ({"type": "string"}, "%ff", False),
    ({"type": "string"}, "100%", True),
    ({}, "anything", True),
]


@pytest.mark.parametrize("at", range(len(COERCIONS)))
def test_text_stands_for_what_its_schema_says(at, tmp_path):
    schema, text, is_good = COERCIONS[at]
    parameter = {"in": "query", "name": "p", "schema": schema}
    operation = operation_of(described(tmp_path, with_parameter(parameter)), "GET")
    assert (operation.head_faults(f"p={text}", ()) == ()) is is_good


def test_an_encoded_delimiter_is_part_of_a_text_and_divides_numbers():
    assert read_joined("a%2Cb,c", ARRAY, (",",), decode) == ["a,b", "c"]
    numbers = Shape(frozenset({"array"}), item=INT)
    assert read_joined("1%2C2,3", numbers, (",",), decode) == [1, 2, 3]


@pytest.mark.parametrize(
    ("style", "explode", "shape", "raw"),
    [
        ("simple", False, OBJECT, "R,100,G"),
        ("simple", True, OBJECT, "R"),
        ("simple", True, OBJECT, "R=1,R=2"),
        ("label", False, TEXT, "blue"),
        ("matrix", False, TEXT, "color=blue"),
        ("matrix", False, TEXT, ";colour=blue"),
        ("matrix", False, TEXT, ";color=a;color=b"),
    ],
)
def test_what_is_not_in_its_style_is_refused(style, explode, shape, raw):
    with pytest.raises(Unreadable):
        read_path(raw, "color", shape, style, explode=explode)


@given(
    st.sampled_from(["simple", "label", "matrix"]),
    st.booleans(),
    st.sampled_from([TEXT, INT, ARRAY, OBJECT, ANY]),
    st.text(),
)
def test_any_text_is_read_or_refused(style, explode, shape, raw):
    try:
        read_path(raw, "p", shape, style, explode=explode)
    except Unreadable:
        pass
