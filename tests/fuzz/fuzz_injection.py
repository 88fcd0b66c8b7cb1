"""Fuzz the reading of the injection filter: every body is looked through without a raise, forms of a
value stay few and short, and what is told of a finding can be logged.

The first byte chooses the type of the body, the second whether it is packed.
"""

from __future__ import annotations

import json
import zlib

from headgate.security.injection.decode import ROUNDS, forms, percent_decoded, undo, unwrapped
from headgate.security.injection.inspector import CLIP, Found, Inspector
from headgate.security.injection.rules import InjectionRules
from headgate.security.injection.texts import inflated

INSPECTOR = Inspector(InjectionRules(exclude=("json.skip.*", "form.skip")))
TYPES = (
    "application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    'multipart/mixed; boundary="x\\"y"',
    "application/xml; charset=utf-16",
    "text/plain; charset=latin-1",
    "text/plain; charset=utf-7",
    "",
)
SEEDS = (
    b"\0\0" + b'{"a":["1\' OR 1=1--",{"$where":"x"}],"b":"<script>alert(1)</script>"}',
    b"\0\0" + b'{"a":"\\u003cimg src=x onerror=alert(1)\\u003e","a":{"$ne":null}}',
    b"\1\0" + b"q=%2527%2520union%2520select+1&skip=<script>&a[$ne]=1&%ud800=%c0%af",
    b"\2\0" + b'--x\r\nContent-Disposition: form-data; name="f"; filename="../../etc/passwd"\r\n\r\nx\r\n--x--',
    b"\4\0" + '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a c="d">&b;</a>'.encode("utf-16"),
    b"\5\0" + b"; cat /etc/passwd | \\x3cscript\\x3e \\u{3c}a &lt;b&#x3c; PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==",
    b"\6\0" + b"+ADw-script+AD4-alert(1)",
    b"\7\1" + zlib.compress(b"a=${jndi:ldap://x}&b={{7*7}}"),
)  # fmt: skip


def one(data: bytes) -> None:
    kind, packed, rest = data[:1], data[1:2], data[2:]
    content_type = TYPES[kind[0] & 7 if kind else 0]
    encoding = "gzip" if packed and packed[0] & 1 else ""
    _told(INSPECTOR.body(rest, content_type, encoding))
    if encoding:
        plain = inflated(rest, encoding, 1000)
        assert plain is None or len(plain) <= 1000
    text = rest.decode("latin-1")
    path, _, query = text.partition("?")
    fields = [(b"user-agent", rest), (b"cookie", rest), (b"x-a", rest), (b"referer", rest)]
    found = INSPECTOR.head(path, query, fields)
    _told(found)
    assert INSPECTOR.head(path, query, fields) == found  # what is remembered is the same
    _forms(text)


def _told(found: Found | None) -> None:
    if found is None:
        return
    assert found.score >= 1
    assert len(found.value) <= CLIP * 10 + 3
    assert found.value.isprintable(), found
    json.dumps([found.field, found.value, found.findings.kind]).encode()


def _forms(text: str) -> None:
    seen = list(forms(text))
    assert seen[0] == text
    assert len(seen) <= ROUNDS + 9
    # Compatibility characters may double it in each round; nothing else makes it longer.
    assert all(len(each) <= len(text) * 2**ROUNDS for each in seen), text
    assert len(percent_decoded(text, plus=True)) <= len(text)
    assert len(undo(text)) <= len(text) * 2 or len(text) < 4, text
    inside = unwrapped(text)
    assert inside is None or inside.isascii()
