"""What services clean values with."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.security.injection.html import tags
from headgate.security.sanitise import (
    TAGS,
    UnsafeUrl,
    allowed_addresses,
    check_url,
    clean_html,
    escape_html,
    path_inside,
    plain_text,
    safe_file_name,
    safe_redirect,
)


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("<b>a</b> & <i>b", "<b>a</b> &amp; <i>b</i>"),
        ("<script>alert(1)</script>a", "a"),
        ("<img src=x onerror=alert(1)>", '<img src="x">'),
        ("<a href='java\tscript:alert(1)'>x</a>", '<a rel="nofollow noopener ugc">x</a>'),
        ("<a href='&#106;avascript:alert(1)'>x</a>", '<a rel="nofollow noopener ugc">x</a>'),
        (
            "<a href='/b?c=1&d=2'>x</a>",
            '<a href="/b?c=1&amp;d=2" rel="nofollow noopener ugc">x</a>',
        ),
        ("<svg><style><img src=x onerror=alert(1)></style></svg>b", "b"),
        ("<p style='x:expression(1)'>a</p>", "<p>a</p>"),
        ("1 < 2 > 0", "1 &lt; 2 &gt; 0"),
        ("</b>a", "a"),
        ("<b><i>a</b>c", "<b><i>a</i></b>c"),
    ],
)
def test_formatting_stays_and_the_rest_goes(dirty, clean):
    assert clean_html(dirty) == clean


def test_fewer_tags_may_be_kept_but_never_those_that_run():
    assert clean_html("<b>a</b><i>b</i>", tags={"i"}) == "a<i>b</i>"
    assert clean_html("<script>a</script><iframe>", tags={"script", "iframe"}) == ""


_PIECES = [
    "<script>",
    "</script>",
    "<svg>",
    "<style>",
    "<math>",
    "<img",
    "src=x",
    "onerror=alert(1)>",
    "'",
    '"',
    ">",
    "<",
    "<!--",
    "-->",
    "<a",
    "href=",
    "javascript:alert(1)",
    "<textarea>",
    "</textarea>",
    "<noscript>",
    "<![CDATA[",
    "]]>",
    "&lt;",
    "a",
    "<b>",
    "<p",
    "title='",
    "<title>",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=15).map("".join))
def test_cleaned_html_holds_no_attack_and_stays_as_it_is(text):
    once = clean_html(text)
    assert clean_html(once) == once
    for tag in tags(once):
        assert tag.name.removeprefix("/") in TAGS
        for name, value in tag.attributes:
            assert name in {"href", "src", "title", "rel"}
            assert "script:" not in value.lower()


def test_plain_text_is_text():
    assert plain_text("<b>a &lt; b</b><script>c</script>") == "a < b"
    assert escape_html("<'\">&") == "&lt;&#x27;&quot;&gt;&amp;"


@pytest.mark.parametrize(
    ("sent", "safe"),
    [
        ("report.pdf", "report.pdf"), ("../../etc/passwd", "passwd"), ("a\\b\\c.txt", "c.txt"),
        ("CON", "_CON"), ("nul.txt", "_nul.txt"), (".htaccess", "htaccess"), ("-rf", "rf"),
        ("a\0.php", "a_.php"), ("..", "file"), ("", "file"), ("a<b>:c?.txt", "a_b__c_.txt"),
        ("\uff0e\uff0e\uff0fx", "x"), ("name. ", "name"), ("a\u202egnp.exe", "a_gnp.exe"),
    ],
)  # fmt: skip
def test_file_names(sent, safe):
    assert safe_file_name(sent) == safe


@given(st.text(max_size=400))
def test_any_file_name_is_safe(name):
    safe = safe_file_name(name)
    assert safe and len(safe.encode()) <= 255
    assert not set(safe) & set('/\\\0<>:"|?*') and safe[0] not in ".-" and safe[-1] not in ". "


def test_paths_stay_inside(tmp_path):
    (tmp_path / "in").mkdir()
    assert path_inside(tmp_path / "in", "a/b.txt") == (tmp_path / "in/a/b.txt").resolve()
    (tmp_path / "in/link").symlink_to(tmp_path)
    for name in ("../a", "/etc/passwd", "a/../../b", "link/secret", "", ".", "a\0b"):
        with pytest.raises(ValueError):
            path_inside(tmp_path / "in", name)


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "/\\evil.example", "\\\\evil.example", "https://evil.example/", "javascript:alert(1)",
     "https://ok.example@evil.example/", " /a", "/\t/evil.example", "/a\r\nx: y", "", "https:evil.example",
     "https://ok.example.evil.example", "http:///evil.example", "data:text/html,x", "https://[", "a/b"],
    ids=range(16),
)  # fmt: skip
def test_redirects_elsewhere_go_home(target):
    assert safe_redirect(target, {"ok.example"}) == "/"


@pytest.mark.parametrize(
    "target", ["/", "/a?b=//c#d", "https://ok.example/a", "https://OK.example:443/"]
)
def test_redirects_of_our_own_stay(target):
    assert safe_redirect(target, {"ok.example"}) == target


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1/", "http://127.1/",
     "http://[::1]/", "http://[::ffff:10.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://169.254.169.254/",
     "http://10.1.2.3/", "http://0/", "http://localhost/", "http://a.internal/", "http://intranet/",
     "http://a@b.example/", "ftp://a.example/", "file:///etc/passwd", "http://a.example:22/",
     "http://a.example:0/", "http://a.example:99999/", "http://a.example\\@b/", "http:// a.example/",
     "http://100.64.0.1/", "http://224.0.0.1/", "http://[fe80::1%25eth0]/", "//a.example/"],
    ids=range(26),
)  # fmt: skip
def test_urls_into_inner_networks_are_refused(url):
    with pytest.raises(UnsafeUrl):
        check_url(url)


def test_a_public_url_is_taken_apart():
    target = check_url("https://Example.com./a?b")
    assert (target.scheme, target.host, target.port, target.address) == (
        "https",
        "example.com",
        443,
        "",
    )
    assert check_url("http://93.184.216.34/").address == "93.184.216.34"
    with pytest.raises(UnsafeUrl, match="not one of those"):
        check_url("https://a.example/", hosts={"b.example"})


def test_one_inner_address_among_several_is_enough():
    assert allowed_addresses(["93.184.216.34", "2606:2800:220:1::1"])
    for bad in (["93.184.216.34", "10.0.0.1"], ["::ffff:127.0.0.1"], ["fe80::1%eth0"], ["x"], []):
        with pytest.raises(UnsafeUrl):
            allowed_addresses(bad)
