"""Fuzz redaction: never a raise, it comes to rest, and a card that stands alone is gone whatever stands
around it.
"""

from __future__ import annotations

import json

from headgate.security.redact import RedactionRules, Redactor

USUAL = Redactor()
ALL = Redactor(RedactionRules(emails="mask", phones="mask", addresses="mask"))
CARD = "5555 5555 5555 4444"
SEEDS = (
    b"password=s3cret&user=ada token: abc Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.abc-_",
    b"https://ada:s3cret@example.org/x?api_key=abcdef#f, postgres://u:p@db/x",
    b"card 4111 1111 1111 1111, iban DE89 3704 0044 0532 0130 00, mail ada%40example.org",
    b"-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY----- AKIAIOSFODNN7EXAMPLE ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    b"SELECT 'it''s', $$x$$, E'\\'', 0x1F, -1.5e3 FROM t -- 'c\n/* ' */ WHERE a = \"b\"",
    b'{"password": "a\\"b", "nested": {"secret": ["x"]}, "tel": "+49 30 1234567", "ip": "192.0.2.1"}',
)  # fmt: skip


def one(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape") if data[:1] == b"s" else data.decode("latin-1")
    for redactor in (USUAL, ALL):
        twice = redactor.text(redactor.text(text))
        # What the first time has put in may show the second time what stood beside it.
        assert redactor is ALL or redactor.text(twice) == twice, text
        redactor.url(text)
        redactor.headers([(b"x-note", data), (b"authorization", data), (b"cookie", data)])
        shown = redactor.value({"password": text, "note": [text, {"secret": text}]})
        json.dumps(shown)
    for dialect in ("ansi", "mysql"):
        USUAL.sql(text, dialect)
    # Whatever stands around it, as long as it stands alone.
    if "5555" not in text:
        assert CARD not in USUAL.text(f"{text[:200]}\n {CARD} \n{text[200:400]}"), text
