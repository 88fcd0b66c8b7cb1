"""What two services read in two ways is judged in both: nothing slips between two parsers."""

from __future__ import annotations

import base64
import gzip
import json
import re
import zlib
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.config.injection import InjectionSpec
from headgate.gateway.filters.base import FilterContext, Headers, Reply, Request
from headgate.gateway.filters.injection import Injection
from headgate.security.injection import InjectionRules, Inspector
from headgate.security.injection.inspector import UNSEEN
from headgate.security.injection.multipart import multipart_fields
from headgate.security.injection.texts import inflated

ATTACK = b"' or 1=1--"
FORM_DATA = "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="a"'
END = b"\r\n--b--\r\n"


def found(body: bytes, content_type: str = FORM_DATA, encoding: str = "", **rules: Any):
    return Inspector(InjectionRules(**rules)).body(body, content_type, encoding)


# -- multipart -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        PART + b"\r\n\r\nx--b" + ATTACK + END,
        PART + b"\r\n\r\nx\r\n--bx\r\n" + ATTACK + END,
        PART + b'\r\n\r\nx\n--b\r\nContent-Disposition: form-data; name="c"; filename="f"\r\n\r\n' + ATTACK + END,
        b'--b\nContent-Disposition: form-data; name="a"\n\n' + ATTACK + b"\r\n\r\n" + END,
        b'--b\rContent-Disposition: form-data; name="a"\r\r' + ATTACK + b"\r--b--\r",
        PART + b'; filename=""\r\n\r\n' + ATTACK + END,
        PART + b'\r\nContent-Disposition: form-data; name="a"; filename="f"\r\n\r\n' + ATTACK + END,
        PART + b'; filename="f"\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + ATTACK + END,
        b"--b\r\nContent-Disposition: form-data; name='a; filename=f'\r\n\r\n" + ATTACK + END,
        PART + b"\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.b64encode(ATTACK) + END,
        PART + b"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=27 or =31=3D1--" + END,
        PART + b"\r\nContent-Type: text/plain; charset=utf-16\r\n\r\n" + ATTACK.decode().encode("utf-16") + END,
        PART + b"\r\n\r\n\xef\xbc\x87 or 1=1--\r\n" + PART[2:].join((b"--", b'; filename="f"')) + b"\r\n\r\n\xff\xd8" + END,
        PART + b"\r\n\r\n" + ATTACK,
    ],
    ids=["within", "longer-mark", "lf", "lf-head", "cr", "no-name", "said-first", "said-last", "single-quotes",
         "base64", "printable", "charset", "beside-a-picture", "no-end"],
)  # fmt: skip
def test_no_form_hides_a_value_from_one_reader(body):
    hit = found(body)
    assert hit is not None and hit.findings.kind == "sql"


def test_what_all_take_for_a_file_is_one():
    for content in (b"<script>alert(1)</script>", b"\xff\xd8" + ATTACK):
        assert found(PART + b'; filename="a.html"\r\n\r\n' + content + END) is None


def test_harmless_forms_pass():
    text = b"Don't -- really; a < b & c\r\n\r\nO'Brien"
    assert found(PART + b"\r\n\r\n" + text + END) is None
    assert found(b"") is None and found(b"--b--\r\n") is None and found(b"--b") is None


@given(
    st.lists(st.tuples(st.text("ab -\r\n", max_size=12), st.booleans()), max_size=4),
    st.text("ab-=", min_size=1, max_size=4),
)
def test_what_a_form_says_is_read_back(parts, boundary):
    # A content that holds the delimiter itself is no form.
    if any(re.search(rf"(^|[\r\n])--{re.escape(boundary)}", text) for text, _ in parts):
        return
    body = b""
    for text, is_file in parts:
        file = '; filename="f"' if is_file else ""
        head = f'--{boundary}\r\ncontent-disposition: form-data; name="n"{file}\r\n\r\n'
        body += (head + text + "\r\n").encode()
    body += f"--{boundary}--\r\n".encode()
    seen = [field.text for field in multipart_fields(body, boundary) if not field.is_name]
    for text, is_file in parts:
        assert ("f" if is_file else text) in seen


@given(st.binary(max_size=80), st.sampled_from(["b", "", "--", "b\r\n"]))
def test_any_bytes_are_taken_apart(body, boundary):
    for field in multipart_fields(b"--b\r\n" + body + b"\r\n--b--", boundary):
        assert isinstance(field.text, str)


# -- what is compressed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(b'{"a": "x') + gzip.compress(ATTACK + b'"}'), "gzip"),
        (gzip.compress(b"") * 3 + gzip.compress(b'["' + ATTACK + b'"]') + b"\0\0", "x-gzip"),
        (gzip.compress(b'["') + b"\0" * 9 + gzip.compress(ATTACK + b'"]'), "gzip"),
        (gzip.compress(zlib.compress(b'["' + ATTACK + b'"]')), "deflate, gzip"),
        (gzip.compress(b'["' + ATTACK + b'"]'), "identity,GZIP"),
        (zlib.compress(b'["' + ATTACK + b'"]')[2:-4], "deflate"),
        (gzip.compress(b'["' + ATTACK + b'"]')[:-6], "gzip"),
    ],
    ids=["members", "empty-members", "padding", "twice", "identity", "bare", "cut-off"],
)
def test_all_of_a_compressed_body_is_looked_at(body, encoding):
    assert found(body, "application/json", encoding) is not None


def test_very_many_members_are_read_to_the_end():
    assert inflated(gzip.compress(b"") * 5000 + gzip.compress(b"x"), "gzip", 100) == b"x"


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"\x28\xb5\x2f\xfd", "zstd"), (b"x", "br"), (b"not gzip", "gzip"), (b"x", "gzip," * 9 + "gzip"),
        (gzip.compress(b"a" * 2000), "gzip"),
    ],
    ids=["zstd", "br", "no-gzip", "nested", "long"],
)  # fmt: skip
def test_what_cannot_be_looked_at_passes_or_is_refused_as_told(body, encoding):
    assert found(body, "application/json", encoding, body_bytes=1000) is None
    said = found(body, "application/json", encoding, body_bytes=1000, unseen="refuse")
    assert said is UNSEEN


def test_just_as_much_as_may_be_looked_at_is_seen():
    body = gzip.compress(b"a" * 1000)
    assert found(body, "text/plain", "gzip", body_bytes=1000, unseen="refuse") is None


# -- texts of one place ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "cookie"),
    [
        ("q=1/**/union/*&q=*/select/*&q=*/password/*&q=*/from/**/users", ""),
        ("q='/*&q=*/or/*&q=*/1=1--+", ""),
        ("", r'a="1\047 or 1=1--"'),
        ("", r'a="\074svg onload=alert(1)>"'),
        ("", "a=%27%20or%201%3D1--"),
    ],
    ids=["union", "or", "octal", "octal-tag", "percent"],
)
def test_heads_that_are_read_in_two_ways_are_judged_in_both(query, cookie):
    headers = [(b"cookie", cookie.encode())] if cookie else []
    assert Inspector(InjectionRules()).head("/", query, headers) is not None


def test_lists_of_a_query_pass():
    query = "&".join(f"name={name}" for name in ("O%27Brien", "d%27Arcy", "select", "union", "--"))
    assert Inspector(InjectionRules()).head("/", query, []) is None
    assert Inspector(InjectionRules()).head("/", "a=x&" * 5000, []) is None


@pytest.mark.parametrize(
    "body",
    [
        b"<a>' or 2>1--</a>",
        b'<a b="x>\' or 2>1--"/>',
        b"<a>' or<!-- x --> 1=1--</a>",
        b"<a>' o<![CDATA[r 1=1--]]></a>",
        b"<a>'<?x y?> or 1=1--</a>",
        b"<a><![CDATA[<script>alert(1)</script>]]></a>",
        b"<!DOCTYPE a [<!ENTITY x \"' or 1=1--\">]><a>&x;</a>",
        b"<!DOCTYPE a [<!ENTITY x \"<!--\">]><a>' or 1=1--</a><!-- -->",
        b"<a>' or 1=1--",
    ],
    ids=["gt", "gt-attribute", "comment", "cdata", "instruction", "script", "entity", "hidden", "open"],
)  # fmt: skip
def test_xml_hides_nothing(body):
    assert found(body, "application/xml") is not None


def test_harmless_xml_passes():
    body = b"<?xml version='1.0'?><!-- it's -- fine --><a t='x'>Don't <b>select</b> <![CDATA[a < b]]></a>"
    assert found(body, "application/xml") is None
    assert found(b"<!--" * 50_000, "text/xml") is None


JSON = json.dumps({"q": ATTACK.decode()}).encode()


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "text/plain; charset=utf-8", "application/octet-stream", "application/json, text/plain",
     "json", "image/png", "application/x-whatever"],
)  # fmt: skip
def test_json_is_json_whatever_it_is_called(content_type):
    hit = found(JSON, content_type)
    assert hit is not None and hit.findings.kind == "sql"


def test_text_that_begins_like_json_is_text():
    for text in (b"[INFO] don't -- 'select'", b"{not json: 'or 1'}", b"[" * 100_000):
        assert found(text, "text/plain") is None


@pytest.mark.parametrize(
    "text",
    [
        '{/*" x*/ "a" : "<script>alert(1)</script>" }',
        "{'a': 'x\" or 1=1--'}",
    ],
    ids=["comment", "single"],
)
def test_lax_json_hides_nothing(text):
    assert found(text.encode(), "application/json") is not None


# -- the filter ------------------------------------------------------------------------------------


class Told:
    def __init__(self):
        self.counts: list[tuple[str, str]] = []

    def note(self, kind, fields):
        """Nobody reads it."""

    def suspect(self, client_ip, kind, weight=1.0):
        """Nobody is banned."""

    def count(self, policy, outcome):
        self.counts.append((policy, outcome))


def judged(fields: list[tuple[bytes, bytes]], body: bytes, **said: Any):
    one = Injection(InjectionSpec(**said), FilterContext(route="r", service="s"))
    told = Told()
    one.start(cast("Any", told))
    request = Request(
        method="POST", path="/a", query="", headers=Headers(fields), client_ip="203.0.113.7",
        is_tls=False, request_id="id-1", route="r", service="s", params={},
    )  # fmt: skip
    return one, one.on_request_body(request, body, True), told.counts


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["first", "last"])
def test_a_body_of_two_types_is_looked_at_as_both(order):
    types = [(b"content-type", b"application/json"), (b"content-type", b"image/png")]
    body = b'{/**/"q": "' + ATTACK + b'"}'
    _, reply, counts = judged([types[at] for at in order], body)
    assert isinstance(reply, Reply) and reply.status == 403
    assert counts == [("injection", "blocked")]


def test_a_coding_that_cannot_be_undone_is_415_where_told():
    fields = [(b"content-type", b"application/json"), (b"content-encoding", b"zstd")]
    one, reply, counts = judged(fields, b"x", unseen="refuse")
    assert one.request_body_over == "refuse"
    assert isinstance(reply, Reply) and reply.status == 415
    assert json.loads(reply.body)["title"] == "Unsupported Media Type"
    assert counts == [("injection", "unseen")]
    one, reply, counts = judged(fields, b"x")
    assert one.request_body_over == "pass" and reply == b"x" and counts == []
