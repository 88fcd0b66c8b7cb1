"""Client text made safe to write into a line: redacted, bounded, escaped.

What an editor must not break: whatever these return stays on one line and inside its quotes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from json.encoder import encode_basestring_ascii as quote
from typing import Final
from urllib.parse import unquote_plus

REDACTED_TEXT: Final = "[redacted]"
TARGET_MAX: Final = 2048
TEXT_MAX: Final = 512

_user_info = re.compile(r"(//)[^/?#@]*@").sub
_odd_name = re.compile(r"[&;][^&;=%+\s]*+[%+\s][^&;=]*+=").search

__all__ = [
    "REDACTED_TEXT",
    "TARGET_MAX",
    "TEXT_MAX",
    "Hidden",
    "bounded",
    "escape",
    "quote",
]


class Hidden:
    """The names of headers and query parameters whose values are not written, and what takes
    secrets out of the rest.
    """

    __slots__ = ("_names_one", "names", "scrub")

    def __init__(self, names: Sequence[str], scrub: Callable[[str], str] | None = None) -> None:
        self.scrub = scrub
        self.names = frozenset(name.lower() for name in names)
        listed = "|".join(re.escape(name) for name in sorted(self.names))
        self._names_one = re.compile(rf"[&;](?:{listed})=").search

    def in_query(self, query: str) -> str:
        """The query with hidden values replaced, bounded."""
        if len(query) > 4 * TARGET_MAX:
            query = query[: 4 * TARGET_MAX]
        if "=" not in query or not self._may_hide(query):
            return bounded(self.scrubbed(query), TARGET_MAX)
        out = []
        for part in re.split(r"([&;])", query):
            name, equals, _ = part.partition("=")
            if equals and unquote_plus(name).strip().lower() in self.names:
                part = f"{name}={REDACTED_TEXT}"
            out.append(part)
        return bounded(self.scrubbed("".join(out)), TARGET_MAX)

    def scrubbed(self, text: str) -> str:
        return text if self.scrub is None else self.scrub(text)

    def _may_hide(self, query: str) -> bool:
        """Whether a name in the query is one of ours. Most have none, and only those that may
        have one are taken apart; a name that is encoded or has a blank in it is a suspect.
        """
        if self._names_one("&" + query.lower()):
            return True
        if "%" in query or "+" in query or " " in query or not query.isprintable():
            return _odd_name("&" + query) is not None
        return False

    def in_url(self, url: str) -> str:
        """The URL without user info, and with hidden values of its query and fragment replaced."""
        if "@" in url:
            url = _user_info(rf"\1{REDACTED_TEXT}@", url)
        if "=" not in url:
            return url
        out, is_path = "", True
        for part in re.split(r"([?#])", url):
            if part in {"?", "#"}:
                is_path = False
                out += part
            else:
                out += part if is_path else self.in_query(part)
        return out


def bounded(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def escape(text: str) -> str:
    r"""Escape as Apache does: \" and \\, and everything else that is not printable as \xHH."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    out = ""
    for byte in text.encode("utf-8", "surrogateescape"):
        if byte in {0x22, 0x5C}:
            out += "\\" + chr(byte)
        elif 0x20 <= byte < 0x7F:
            out += chr(byte)
        else:
            out += f"\\x{byte:02x}"
    return out
