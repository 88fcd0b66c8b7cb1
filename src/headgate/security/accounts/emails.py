"""E-mail addresses: which are taken for one, and which are the same.

Theory of operation. What counts as the same address is decided by `key_of`: NFKC, case folded, the
domain in its ASCII form. Mail is only ever sent to the address as it is stored, never to one that
merely has the same key: two spellings may be two mailboxes at some provider.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from typing import Final

__all__ = ["Address", "account_key", "address"]

LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
# RFC 5321 section 4.1.2 dot-atom, and letters beyond ASCII by RFC 6531. No quoted forms.
SPECIAL: Final = frozenset('()<>[]:;@\\,"')


@dataclass(frozen=True, slots=True)
class Address:
    email: str
    key: str


def address(text: str) -> Address | None:
    """None for what is no address."""
    if len(text) > 254:
        return None
    local, at, domain = text.strip().rpartition("@")
    if not at or not local or len(local.encode("utf-8", "replace")) > 64:
        return None
    if local[0] == "." or local[-1] == "." or ".." in local or SPECIAL.intersection(local):
        return None
    if any(char.isspace() or unicodedata.category(char)[0] in "CZ" for char in local):
        return None
    try:
        plain = domain.encode("idna").decode("ascii").lower()
    except UnicodeError:
        return None
    labels = plain.split(".")
    if not all(LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
        return None
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", local).casefold())
    if "@" in folded or len(folded) > 255:  # a full-width sign would make it another address
        return None
    return Address(f"{local}@{plain}", f"{folded}@{plain}")


def account_key(text: str) -> str:
    """What attempts at an address are counted under; of what is none, a name no address has."""
    found = address(text)
    return found.key if found else hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
