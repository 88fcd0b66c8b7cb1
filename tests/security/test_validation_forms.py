"""Bodies of forms: what is read, and what a parser could read another way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.security.validation.forms import FormRefused, split_multipart
from tests.security.validation_documents import described, faults_of, openapi, operation_of

FORM = "application/x-www-form-urlencoded"
SCHEMA = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "maxLength": 10},
        "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "ids": {"type": "array", "items": {"type": "integer"}},
        "meta": {"type": "object", "required": ["a"]},
        "file": {"type": "string", "format": "binary"},
        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "blob": {},
    },
}
ENCODING = {
    "ids": {"style": "form", "explode": False},
    "meta": {"contentType": "application/json"},
    "file": {"contentType": "image/png, image/jpeg"},
}


@pytest.fixture
def ask(tmp_path):
    content = {
        kind: {"schema": SCHEMA, "encoding": ENCODING} for kind in (FORM, "multipart/form-data")
    }
    document = openapi({"/x": {"post": {"requestBody": {"content": content}}}}, "3.0.3")
    operation = operation_of(described(tmp_path, document))

    def ask(body, kind=FORM):
        refusal = operation.body_refusal(kind, body)
        return faults_of(refusal.faults) if refusal is not None else []

    return ask


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        (b"name=a+b%21&age=5&tags=x&tags=y&ids=1,2&meta=%7B%22a%22:1%7D", []),
        (b"name=", []),
        (b"name=a&age=x", [("type", "/age")]),
        (b"name=a&age=", [("type", "/age")]),
        (b"name=a&name=b", [("duplicate", "/name")]),
        (b"n%61me=a&name=b", [("duplicate", "/name")]),
        (b"name=a&ids=1,x", [("type", "/ids/1")]),
        (b"name=a&ids=1&ids=2", [("duplicate", "/ids")]),
        (b"name=a&tags=1&tags=2&tags=3", [("maxItems", "/tags")]),
        (b"name=a&meta=%7B", [("json", "/meta")]),
        (b"name=a&meta=%7B%7D", [("required", "/meta/a")]),
        (b"name=a%00b", [("encoding", "/name")]),
        (b"name=%ff", [("encoding", "/name")]),
        (b"name=\xc3\xa9", [("encoding", "")]),
        (b"na%00me=a", [("encoding", "")]),
        (b"name=a&zip=1", [("additionalProperties", "/zip")]),
        (b"&".join(b"name=%d" % i for i in range(2000)), [("values", "")]),
    ],
    ids=lambda value: None if isinstance(value, list) else value[:24].decode("latin-1").replace("\xc3", "?").replace("\xa9", "?"),
)  # fmt: skip
def test_a_form_is_held_against_the_schema(ask, body, faults):
    assert ask(body) == faults


MULTIPART = 'multipart/form-data; boundary="b b"'


def part(content: bytes, head: bytes = b'Content-Disposition: form-data; name="name"') -> bytes:
    return b"--b b\r\n" + head + b"\r\n\r\n" + content + b"\r\n"


END = b"--b b--\r\n"


def field(name: str, content: bytes, *more: bytes, file: str = "") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"'
    head += f'; filename="{file}"' if file else ""
    return part(content, b"\r\n".join([head.encode(), *more]))


PNG = b"Content-Type: image/png"
NAME = field("name", b"a")

GOOD = {
    "text": field("name", "né".encode()),
    "integer": NAME + field("age", b"5"),
    "list": NAME + field("tags", b"x") + field("tags", b"y"),
    "json": NAME + field("meta", b'{"a":1}', b"Content-Type: application/json"),
    "file": NAME + field("file", b"\x89PNG\x00\xff\r\n--b", PNG, file="a.png"),
    "files": NAME + field("files", b"\0", file="a") + field("files", b"\1", file="b"),
    "untyped": NAME + field("blob", b"\xff\x00", file="x"),
    "filename_star": NAME + part(b"x", b"Content-Disposition: form-data; name=file; filename*=UTF-8''x"
                                 b"\r\nContent-Type: image/jpeg"),
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_a_multipart_form_is_read(ask, case):
    assert ask(GOOD[case] + END, MULTIPART) == []
    assert ask(GOOD[case] + END[:-2], MULTIPART) == []


BAD = {
    "type": (NAME + field("age", b"x"), [("type", "/age")]),
    "duplicate": (NAME + NAME, [("duplicate", "/name")]),
    "json": (NAME + field("meta", b"{", b"Content-Type: application/json"), [("json", "/meta")]),
    "text_for_json": (NAME + field("meta", b'{"a":1}'), [("contentType", "/meta")]),
    "wrong_type": (NAME + field("file", b"x", b"Content-Type: text/html", file="a"), [("contentType", "/file")]),
    "no_type": (NAME + field("file", b"x", file="a"), [("contentType", "/file")]),
    "bad_type": (NAME + field("age", b"5", b"Content-Type: nonsense"), [("contentType", "/age")]),
    "charset": (NAME + field("age", b"5", b"Content-Type: text/plain; charset=utf-7"), [("encoding", "/age")]),
    "file_for_text": (field("name", b"x", file="a.txt"), [("contentType", "/name")]),
    "not_utf8": (field("name", b"\xff"), [("encoding", "/name")]),
    "nul": (field("name", b"a\0"), [("encoding", "/name")]),
    "unknown": (NAME + field("zip", b"1"), [("additionalProperties", "/zip")]),
    "no_name": (part(b"x", b"Content-Disposition: form-data"), [("form", "")]),
    "no_disposition": (part(b"x", b"Content-Type: text/plain"), [("form", "")]),
    "no_headers": (b"--b b\r\n\r\nx\r\n", [("form", "")]),
    "attachment": (part(b"x", b'Content-Disposition: attachment; name="name"'), [("form", "")]),
    "two_names": (part(b"x", b'Content-Disposition: form-data; name="a"; name="name"'), [("form", "")]),
    "name_star": (part(b"x", b"Content-Disposition: form-data; name=a; name*=UTF-8''name"), [("form", "")]),
    "two_dispositions": (part(b"x", b"Content-Disposition: form-data; name=a\r\ncontent-disposition: form-data; name=b"), [("form", "")]),
    "base64": (field("name", b"YQ==", b"Content-Transfer-Encoding: base64"), [("form", "")]),
    "folded": (field("name", b"x", b"X-A: b", b" c"), [("form", "")]),
    "bare_lf": (part(b"x", b'Content-Disposition: form-data; name="name"\nX: y'), [("form", "")]),
    "header_nul": (part(b"x", b'Content-Disposition: form-data; name="na\0me"'), [("form", "")]),
    "long_head": (field("name", b"x", b"X: " + b"y" * 9000), [("form", "")]),
    "preamble": (b"hello\r\n" + NAME, [("form", "")]),
    "no_blank": (b"--b b\r\nContent-Disposition: form-data; name=name\r\n", [("form", "")]),
    "behind_boundary": (b"--b bx\r\n\r\n\r\n", [("form", "")]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_multipart_form_is_said(ask, case):
    body, faults = BAD[case]
    assert ask(body + END, MULTIPART) == faults


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 71,
        'multipart/form-data; boundary="a\tb"',
        'multipart/form-data; boundary="a "',
    ],
    ids=["none", "empty", "long", "tab", "space"],
)
def test_a_boundary_must_be_proper(ask, kind):
    assert ask(NAME + END, kind) == [("form", "")]


def test_an_unfinished_form_and_one_of_very_many_parts_are_refused(ask):
    assert ask(NAME, MULTIPART) == [("form", "")]
    assert ask(NAME + END + b"epilogue", MULTIPART) == [("form", "")]
    assert ask(NAME * 5000 + END, MULTIPART) == [("values", "")]
    assert ask(b"--b b\r\n" * 50_000, MULTIPART) == [("values", "")]
    assert ask(b"--b b" + b"\r\n--b" * 50_000, MULTIPART) == [("form", "")]


@given(
    st.lists(st.tuples(st.text("abc", min_size=1), st.binary(max_size=50)), min_size=1, max_size=5)
)
def test_what_is_written_as_multipart_is_read_back(fields):
    body = b"".join(
        b'--XyZ\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (n.encode(), c)
        for n, c in fields
    )
    if any(b"\r\n--XyZ" in b"\r\n" + c for _, c in fields):
        return
    parts = split_multipart(body + b"--XyZ--", "XyZ")
    assert [(p.name, p.content) for p in parts] == fields


@given(st.binary(max_size=300))
def test_any_bytes_are_taken_apart_or_refused(data):
    for body in (data, b"--b\r\n" + data + b"\r\n--b--", data.replace(b"\0", b"\r\n--b")):
        try:
            split_multipart(body, "b")
        except FormRefused:
            pass
