"""Which texts of a request are looked at, by what name, and what is left out."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from headgate.security.injection import InjectionRules, Inspector
from headgate.security.injection.fields import json_fields, json_text, json_texts
from headgate.security.injection.inspector import CLIP, shown
from headgate.security.injection.texts import text_of

ATTACK = "' or 1=1--"
CODED = "%27+or+1%3D1--"
FORM = "application/x-www-form-urlencoded"


def inspector(**rules):
    return Inspector(InjectionRules(**rules))


def multipart(disposition, content=b"x"):
    return (
        b"--b\r\nContent-Disposition: form-data; "
        + disposition
        + b"\r\n\r\n"
        + content
        + b"\r\n--b--\r\n"
    )


@pytest.mark.parametrize(
    ("path", "query", "headers", "field"),
    [
        ("/search/1'%20or%201=1--", "", [], "path"),
        ("/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "", [], "path"),
        ("/a", f"q={CODED}", [], "query.q"),
        ("/a", f"x=1&q={CODED}&y", [], "query.q"),
        ("/a", "%3Cscript%3Ealert(1)%3C/script%3E", [], "query.<script>alert(1)</script>"),
        ("/a", "user[$ne]=1", [], "query.user[$ne]"),
        ("/a", "", [(b"user-agent", b"() { :;}; /bin/bash -c id")], "header.user-agent"),
        ("/a", "", [(b"referer", b"http://a.example/?q=" + CODED.encode())], "header.referer"),
        ("/a", "", [(b"x-api-thing", ATTACK.encode())], "header.x-api-thing"),
        ("/a", "", [(b"cookie", b"a=1; b=" + ATTACK.encode() + b"; c=2")], "cookie.b"),
        ("/a", "", [(b"cookie", b'a="<svg onload=alert(1)>"')], "cookie.a"),
    ],
)  # fmt: skip
def test_attacks_in_the_head_are_found(path, query, headers, field):
    found = inspector().head(path, query, headers)
    assert found is not None and found.field == field


def test_a_query_that_reaches_out_of_a_referer_is_no_ssrf():
    assert inspector().head("/", "", [(b"referer", b"http://127.0.0.1/admin")]) is None


@pytest.mark.parametrize(
    ("path", "query", "headers"),
    [
        ("/", "", []),
        ("/users/O'Brien/photo.final.jpg", "q=O%27Brien&page=2", []),
        ("/a", "redirect=https%3A%2F%2Fa.example%2F%3Fb%3D1%26c%3D2&utm_source=x", []),
        (
            "/a",
            "q=select+a+table+from+the+menu",
            [(b"accept", b"*/*'--"), (b"cookie", b"a=1; theme=dark")],
        ),
    ],
)
def test_harmless_heads_pass(path, query, headers):
    assert inspector().head(path, query, headers) is None


@pytest.mark.parametrize(
    ("body", "content_type", "encoding", "field"),
    [
        (json.dumps({"a": [{"b": ATTACK}]}).encode(), "application/json", "", "json.a.0.b"),
        (json.dumps({ATTACK: 1}).encode(), "application/json", "", f"json.{ATTACK}"),
        (json.dumps(ATTACK).encode(), "application/problem+json", "", "json"),
        (b'{"a": "x", "a": "\\u0027 or 1=1--"}', "application/json", "", "json.a"),
        (b'{"a": {"$gt": ""}}', "application/json", "", "json.a.$gt"),
        (b'{"a": "\' or 1=1--", broken', "application/json", "", "json"),
        (json.dumps({"a": ATTACK}).encode("utf-16"), "application/json", "", "json.a"),
        (json.dumps({"a": ATTACK}).encode("utf-16-le"), "application/json", "", "json.a"),
        (gzip.compress(json.dumps({"a": ATTACK}).encode()), "application/json", "gzip", "json.a"),
        (zlib.compress(json.dumps({"a": ATTACK}).encode()), "application/json", "deflate", "json.a"),
        (f"a=1&b={CODED}".encode(), FORM, "", "form.b"),
        (f"a=1&b={CODED}".encode(), FORM + "; charset=utf-8", "", "form.b"),
        (multipart(b'name="c"', ATTACK.encode()), "multipart/form-data; boundary=b", "", "form.c"),
        (multipart(b'name="c"', ATTACK.encode()), 'multipart/form-data; boundary="b"', "", "form.c"),
        (multipart(b'name="c"; filename="../../../etc/passwd"'), "multipart/form-data; boundary=b", "", "file.c"),
        (multipart(b'name="c"; filename*=UTF-8\'\'..%2f..%2f..%2fetc%2fpasswd'), "multipart/form-data; boundary=b", "", "file.c"),
        (b"<a><b>' or 1=1--</b></a>", "application/xml", "", "xml"),
        (b'<a b="&#39; or 1=1--"/>', "text/xml", "", "xml"),
        (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "application/soap+xml", "", "xml"),
        (ATTACK.encode(), "text/plain", "", "text"),
        (json.dumps({"a": ATTACK}).encode(), "", "", "json.a"),
        (f"b={CODED}".encode(), "", "", "form.b"),
    ],
    ids=lambda value: None if isinstance(value, str) else "b",
)  # fmt: skip
def test_attacks_in_bodies_are_found(body, content_type, encoding, field):
    found = inspector().body(body, content_type, encoding)
    assert found is not None and found.field == field


@pytest.mark.parametrize(
    ("body", "content_type", "encoding"),
    [
        (b"", "application/json", ""),
        (b'{"name": "O\'Brien", "note": "5\'10\\" tall; likes <3", "n": null}', "application/json", ""),
        (b"\x00\x01' or 1=1--", "application/octet-stream", ""),
        (b"\x89PNG' or 1=1--\x00", "image/png", ""),
        (multipart(b'name="c"; filename="a.html"', b"<script>alert(1)</script>"), "multipart/form-data; boundary=b", ""),
        (b"not gzip", "application/json", "gzip"),
        (b"\x28\xb5\x2f\xfd", "application/json", "zstd"),
        (b"name=O%27Brien&text=a+%3Cb%3Ebold%3C%2Fb%3E+word", FORM, ""),
        (b"<svg><path d='M0 0'/></svg>", "image/svg+xml", ""),
        (b"[" * 100_000, "application/json", ""),
    ],
    ids=[f"c{at}" for at in range(10)],
)  # fmt: skip
def test_harmless_bodies_pass(body, content_type, encoding):
    assert inspector().body(body, content_type, encoding) is None


def test_a_bomb_is_unpacked_no_further_than_the_limit():
    bomb = gzip.compress(b'{"a": "' + b"a" * 5_000_000 + b"' or 1=1--" + b'"}')
    assert inspector(body_bytes=1000).body(bomb, "application/json", "gzip") is None


@pytest.mark.parametrize(
    ("exclude", "field"),
    [
        ("query.q", "query"), ("query.*", "query"), ("QUERY.Q", "query"), ("json.a.b", "json"),
        ("json.*", "json"), ("cookie.s", "cookie"), ("header.x-a", "header"), ("header.x-*", "header"),
        ("form.f", "form"), ("path", "path"),
    ],
)  # fmt: skip
def test_what_is_excluded_may_hold_anything(exclude, field):
    def found(rules):
        one = inspector(**rules)
        return {
            "query": lambda: one.head("/", f"q={CODED}", []),
            "json": lambda: one.body(json.dumps({"a": {"b": ATTACK}}).encode(), "application/json"),
            "cookie": lambda: one.head("/", "", [(b"cookie", b"s=" + ATTACK.encode())]),
            "header": lambda: one.head("/", "", [(b"x-a", ATTACK.encode())]),
            "form": lambda: one.body(f"f={CODED}".encode(), FORM),
            "path": lambda: one.head("/1'%20or%201=1--", "", []),
        }[field]()

    assert found({}) is not None
    assert found({"exclude": (exclude,)}) is None


def test_an_exclusion_covers_its_own_field_alone():
    one = inspector(exclude=("json.html",))
    both = json.dumps({"html": "<script>alert(1)</script>", "b": "<script>alert(1)</script>"})
    found = one.body(both.encode(), "application/json")
    assert found is not None and found.field == "json.b"


def test_kinds_and_threshold_decide():
    body = json.dumps({"a": "<script>alert(1)</script>"}).encode()
    assert inspector(kinds=("sql",)).body(body, "application/json") is None
    assert inspector(threshold=10).body(body, "application/json") is None


def test_headers_and_cookies_are_looked_at_as_told():
    attack = [(b"x-a", ATTACK.encode()), (b"cookie", b"a=" + ATTACK.encode())]
    assert inspector(headers=(), cookies=False).head("/", "", attack) is None
    assert inspector(headers=("accept",)).head("/", "", [(b"accept", ATTACK.encode())]) is not None


def test_the_same_texts_are_judged_alike_every_time_and_the_memory_is_bounded():
    one = inspector()
    for at in range(3000):
        assert one.head("/", f"q=a'{at}", []) is None
        assert one.head("/", f"q={at}{CODED}", []) is not None
    assert len(one._known) <= 512
    for at in range(3000):
        one.head("/", "", [(f"x-{at}".encode(), b"a")])
    assert len(one._wanted) <= 512


def test_a_shown_value_is_short_and_in_one_line():
    assert shown("a\r\nb\x1b[31m") == "a\\r\\nb\\x1b[31m"
    assert len(shown("a" * 10_000)) == CLIP + 3


@pytest.mark.parametrize(
    "document",
    [{}, {"a.": 'x"y'}, {"a\\": "b\\\\"}, {"a": "\x01\x02"}, ['\\"', '\\\\"', "\\"], {"": [None, 1.5, "\u4f60'\n"]}],
    ids=range(6),
)  # fmt: skip
def test_the_quick_reading_of_json_sees_what_the_exact_one_does(document):
    for text in (json.dumps(document), json.dumps(document, ensure_ascii=False)):
        exact = {field.text for field in json_fields(text)}
        seen = {json_text(raw) for raw in json_texts(text)}
        assert {each for each in exact if not each.isalnum()} <= seen


def test_a_body_in_another_encoding_is_read():
    assert text_of("é'".encode("latin-1")) == "é'"
    assert text_of(b"a", "no-such-charset") == "a"
    assert text_of(b"\xff\xfea\x00") == "\ufeffa" or "a" in text_of(b"\xff\xfea\x00")


@pytest.mark.parametrize(
    "text",
    [
        '{/*"*/"a":"<script>alert(1)</script>"}',
        '{//"\n"a":"<script>alert(1)</script>"//"\n}',
        "{'a': \"' or 1=1--\"}",
        '["x" "y", "<script>alert(1)</script>"',
    ],
    ids=range(4),
)
def test_what_lax_readers_take_for_json_hides_nothing(text):
    assert inspector().body(text.encode(), "application/json") is not None


@pytest.mark.parametrize(
    "charset", ["punycode", "idna", "rot13", "zip", "unicode_escape", "nothing"]
)
def test_an_odd_charset_is_not_tried(charset):
    assert text_of(b"a-b" * 10, charset) == "a-b" * 10


def test_a_charset_of_mainframes_is_read():
    body = json.dumps({"a": ATTACK}).encode("cp037")
    assert inspector().body(body, "application/json; charset=cp037") is not None


@pytest.mark.parametrize("name", ["password", "user.new_passwd", "csrf-token", "x-api-key", "sid"])
def test_what_is_secret_is_not_shown(name):
    found = inspector().body(json.dumps({name: ATTACK}).encode(), "application/json")
    assert found is not None and found.value == "(hidden)"
