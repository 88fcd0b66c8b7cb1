"""Request-targets: one normal form, which no policy can be walked around with."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.wire.target import BadTarget, Target, normalise_path, parse_target


@pytest.mark.parametrize(
    ("raw", "path", "query"),
    [
        (b"/", "/", None),
        (b"/a/b", "/a/b", None),
        (b"/a/", "/a/", None),
        (b"/a?", "/a", ""),
        (b"/a?x=1&y=2", "/a", "x=1&y=2"),
        (b"/a?b?c", "/a", "b?c"),
        (b"/?/../..", "/", "/../.."),
        (b"//", "//", None),
        (b"//a//b", "//a//b", None),
        (b"/%7Euser", "/~user", None),
        (b"/%61%2D%2e%5f", "/a-._", None),
        (b"/%c3%a9", "/%C3%A9", None),
        (b"/a%2fb", "/a%2Fb", None),
        (b"/a%5cb", "/a%5Cb", None),
        (b"/a%3Fb%23c", "/a%3Fb%23c", None),
        (b"/a%252e%252e", "/a%252e%252e", None),
        (b"/a%20b", "/a%20b", None),
        (b"/a%0d%0ab", "/a%0D%0Ab", None),
        (b"/.well-known/acme", "/.well-known/acme", None),
        (b"/...", "/...", None),
        (b"/..a/.b", "/..a/.b", None),
        (b"/a./b..", "/a./b..", None),
        (b"/a..%2Fb", "/a..%2Fb", None),
        (b"/a/.", "/a/", None),
        (b"/a/./b", "/a/b", None),
        (b"/.", "/", None),
        (b"/./", "/", None),
        (b"/a/..", "/", None),
        (b"/a/b/..", "/a/", None),
        (b"/a/b/../c", "/a/c", None),
        (b"/a/b/../../c/./d/", "/c/d/", None),
        (b"/a//../b", "/a/b", None),
        (b"/a/..//b", "//b", None),
        (b"/a/%2e%2E/b", "/b", None),
        (b"/a/.%2e/b", "/b", None),
        (b"/a/%2e/b", "/a/b", None),
        (b"/a;v=1/b,c", "/a;v=1/b,c", None),
        (b"/a!$&'()*+,;=:@", "/a!$&'()*+,;=:@", None),
        (b'/"<>[]^`{|}', '/"<>[]^`{|}', None),
        (b'/?"<>[]^`{|}\\', "/", '"<>[]^`{|}\\'),
        (b"/?%zz%00%", "/", "%zz%00%"),
        (b"/http://x/", "/http://x/", None),
    ],
)
def test_origin_form_is_normalised(raw, path, query):
    got = parse_target("GET", raw)
    assert got == Target("origin", None, None, path, query or "", query is not None)
    assert str(got) == path + ("" if query is None else "?" + query)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"a",
        b"?a",
        b"*",
        b"**",
        b"/a b",
        b" /",
        b"/ ",
        b"/a#b",
        b"/a?b#c",
        b"/#",
        b"/a\\b",
        b"\\",
        b"/a\x00",
        b"/\x01",
        b"/\x7f",
        b"/\t",
        b"/a\r",
        b"/a\n",
        b"/\xc3\xa9",
        b"/?\xc3\xa9",
        b"/? ",
        b"/?\x00",
        b"/?a\n",
        b"/%00",
        b"/a%00b",
        b"/%",
        b"/%4",
        b"/%4g",
        b"/%%34",
        b"/a%",
        b"/..",
        b"/../",
        b"/a/../..",
        b"/%2e%2e/",
        b"/a/../../b",
        # what some servers resolve after us
        b"/a/..%2Fb",
        b"/a/..%2f..%2fb",
        b"/a%2F..",
        b"/a%2f../b",
        b"/a/%2e%2e%2fb",
        b"/a/..%5Cb",
        b"/a%5c..%5cb",
        b"/a/.%2Fb",
        b"/a/..;/b",
        b"/a/..;x=1/b",
        b"/a/.;/b",
        b"/..%3B/b",
        # no such URI
        b"http://",
        b"http:///a",
        b"http:/a",
        b"http:a",
        b"ftp://a/",
        b"https//a",
        b"http://user@a/",
        b"http://user:pw@a/",
        b"http://a,b/",
        b"http://a:99999/",
        b"http://a b/",
        b"http://a\\b/",
        b"http://[::1/",
        b"http://a/..",
        b"http://a/b#c",
        b"http://a#c",
        b"http://a/ b",
        b"a:80",
        b"a.example:443",
    ],
)
def test_refuses(raw):
    got = parse_target("GET", raw)
    assert isinstance(got, BadTarget)
    assert got.status == 400


@pytest.mark.parametrize(
    ("raw", "scheme", "authority", "host", "target"),
    [
        (b"http://a", "http", "a", "a", "/"),
        (b"http://a/", "http", "a", "a", "/"),
        (b"http://a?x", "http", "a", "a", "/?x"),
        (b"HTTPS://A.Example:8443/b?c", "https", "a.example:8443", "a.example", "/b?c"),
        (b"http://[::0:1]:80/%7e/../b", "http", "[::1]:80", "::1", "/b"),
        (b"http://a//b", "http", "a", "a", "//b"),
        (b"http://a/b?http://c@d/", "http", "a", "a", "/b?http://c@d/"),
    ],
)
def test_absolute_form_names_scheme_and_authority(raw, scheme, authority, host, target):
    got = parse_target("GET", raw)
    assert isinstance(got, Target)
    assert got.form == "absolute"
    assert got.scheme == scheme
    assert got.authority is not None
    assert (got.authority.text, got.authority.host) == (authority, host)
    assert str(got) == target


def test_asterisk_is_for_options_only():
    assert parse_target("OPTIONS", b"*") == Target("asterisk", None, None, "*", "", False)
    assert parse_target("GET", b"*") == BadTarget(400, "the target * is for OPTIONS only")


def test_options_with_an_absolute_uri_without_path_means_the_server():
    got = parse_target("OPTIONS", b"http://a:80")
    assert isinstance(got, Target)
    assert got.path == "*"
    assert got.authority is not None
    slash = parse_target("OPTIONS", b"http://a:80/")
    assert isinstance(slash, Target)
    assert slash.path == "/"


@pytest.mark.parametrize("raw", [b"a:443", b"/", b"*", b"http://a/"])
def test_connect_is_refused_whatever_its_target(raw):
    assert parse_target("CONNECT", raw) == BadTarget(501, "CONNECT is not supported")


# Dense in what matters, so that the normal forms are reached often.
_PIECES = st.sampled_from(
    ["/", ".", "..", "%2e", "%2E", "%2f", "%5C", "%25", "2e", "a", "%61", "b", ";", "?", "%", "~"]
)
_RAW = (
    st.lists(_PIECES, max_size=12).map(lambda parts: ("/" + "".join(parts)).encode())
    | st.binary(max_size=40)
    | st.binary(max_size=40).map(lambda b: b"/" + b)
    | st.binary(max_size=40).map(lambda b: b"http://a/" + b)
)


@given(_RAW)
def test_parsing_is_idempotent(raw):
    got = parse_target("GET", raw)
    if isinstance(got, Target):
        again = parse_target("GET", str(got).encode("ascii"))
        assert isinstance(again, Target)
        assert str(again) == str(got)
        assert (again.path, again.query, again.has_query) == (got.path, got.query, got.has_query)


@given(_RAW)
def test_no_accepted_path_has_a_dot_segment_however_it_is_read(raw):
    got = parse_target("GET", raw)
    if isinstance(got, Target):
        read = unquote_to_bytes(got.path).replace(b"\\", b"/")
        segments = [segment.partition(b";")[0] for segment in read.split(b"/")]
        assert b"." not in segments
        assert b".." not in segments
        assert b"\x00" not in read


@given(_RAW)
def test_the_fast_path_and_the_thorough_one_agree(raw):
    path, mark, query = raw.partition(b"?")
    got = parse_target("GET", raw)
    if raw.startswith(b"/") and isinstance(got, Target):
        assert normalise_path(path) == got.path
        assert (bool(mark), query.decode()) == (got.has_query, got.query)
    elif raw.startswith(b"/") and all(0x20 < c < 0x7F and c != 0x23 for c in query):
        assert normalise_path(path) is None
