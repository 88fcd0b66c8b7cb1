"""Whether a value would end a header line and begin another."""

from __future__ import annotations

import re
from typing import Final

from headgate.security.injection.findings import Hit

_LINE: Final = re.compile(
    r"(?:\r\n?|\n|\u560d\u560a|\u560a|\u010d\u010a|\u2028)[ \t]{0,8}(set-cookie2?|location|content-(?:type|length|disposition|"  # noqa: E501
    r"security-policy|encoding)|transfer-encoding|host|refresh|x-[a-z\-]{2,40}|access-control-[a-z\-]{4,40}|"
    r"bcc|cc|rcpt to|mail from|to|from|subject|link|http/\d(?:\.\d)? \d{3}|(?:get|post|put|head|delete|options|connect) /[^\n]{0,200} http/)"  # noqa: E501
    r"[ \t]{0,8}(:|\b)",
    re.IGNORECASE,
).search
_STRONG: Final = (
    "set-cookie",
    "location",
    "content-length",
    "transfer-encoding",
    "http/",
    "get ",
    "post ",
    "refresh",
    "access-control",
    "content-type",
    "put ",
    "rcpt to",
    "mail from",
    "host",
    "head ",
    "x-",
)
_MESSAGE: Final = re.compile(
    r"\s*(?:[A-Z]{3,8} \S{1,2000} HTTP/|HTTP/\d|[A-Za-z][A-Za-z\-]{1,40}:\s)|.{0,400}?\n\s*\n.{0,100}?(?:HTTP/|:)",  # noqa: E501
    re.DOTALL,
).match
_ODD: Final = re.compile("\u560d|\u560a|\u010d").search


def find_header(text: str) -> Hit | None:
    found = _LINE(text)
    if found is None:
        return None
    name = found[1].lower()
    head = text[: found.start()]
    # A pasted message or mail begins with such lines itself; a broken-out header has a plain
    # value before it, on one line.
    if _ODD(text) is not None:
        score = 6
    elif "\n" in head.strip() or len(head) > 200 or (_MESSAGE(text) is not None and ":" in head):
        score = 3
    elif head.count(" ") > 3 or head[:5] == "HTTP/":
        score = 3
    elif "\r" not in found.group()[:2] and (text.count("\n") > 1 or name == "host"):
        score = 3
    elif name.startswith(_STRONG):
        score = 6 if found[2] == ":" or "/" in name else 3
    elif name in {"bcc", "cc"}:
        score = 5 if "@" in text[found.end() : found.end() + 200] else 3
    else:
        score = 3
    return Hit("header", score, name.partition(" ")[0])
