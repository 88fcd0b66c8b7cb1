"""The score of one value: what it is likely to do, whatever the service behind makes of it.

Theory of operation. Nearly every value is plain: letters, digits and a little punctuation that no
attack can do with. One match of a character class lets those out. The rest is judged in each of
its decoded forms (see decode.py) by the kinds whose characters are there; of each kind the
heaviest hit stays. A value that is readable base64 is opened, and only what is plain to see in it
counts.

Nothing here remembers anything: the same text has the same findings.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from headgate.security.injection.commands import find_command
from headgate.security.injection.decode import forms, unwrapped
from headgate.security.injection.findings import KINDS, NONE, Findings, Hit
from headgate.security.injection.heads import find_header
from headgate.security.injection.paths import find_path
from headgate.security.injection.plain import WRAPPED_MIN, is_plain, may_be_wrapped
from headgate.security.injection.sql import find_sql
from headgate.security.injection.templates import (
    MARKS,
    find_ldap,
    find_nosql,
    find_template,
    find_xml,
)
from headgate.security.injection.urls import find_url
from headgate.security.injection.xss import find_xss

ALL: Final = frozenset(KINDS)

_TAG_LIKE: Final = re.compile(r"[<=(`:]").search
_SHELL_LIKE: Final = re.compile(r"[;|&`$\n{<(]").search


def score(text: str, kinds: Collection[str] = ALL) -> Findings:
    """Return all that is to be said of a value, the heaviest first."""
    if len(text) < WRAPPED_MIN and text.isalnum():
        return NONE
    is_one_word = may_be_wrapped(text)
    if is_plain(text):
        if not is_one_word:
            return NONE
        best: dict[str, Hit] = {}
    else:
        best = {}
        for form in forms(text):
            _judge(form, text, kinds, best)
    inner = unwrapped(text) if is_one_word else None
    if inner is not None and not is_plain(inner):
        within: dict[str, Hit] = {}
        for form in forms(inner):
            _judge(form, inner, kinds, within)
        for kind, hit in within.items():
            if hit.score >= 6 and (kind not in best or hit.score - 1 > best[kind].score):
                best[kind] = Hit(hit.kind, hit.score - 1, f"base64 {hit.fingerprint}")
    if not best:
        return NONE
    return Findings(tuple(sorted(best.values(), key=lambda hit: (-hit.score, hit.kind))))


def _judge(text: str, original: str, kinds: Collection[str], best: dict[str, Hit]) -> None:
    if "sql" in kinds:
        _keep(best, find_sql(text))
    if _TAG_LIKE(text) is not None and "xss" in kinds:
        _keep(best, find_xss(text))
    if (
        "/" in text or "\\" in text or "\0" in text or "%" in text or ".ini" in text
    ) and "path" in kinds:
        _keep(best, find_path(text, original))
    if _SHELL_LIKE(text) is not None:
        if "command" in kinds:
            _keep(best, find_command(text))
        if "nosql" in kinds:
            _keep(best, find_nosql(text))
        if "ldap" in kinds:
            _keep(best, find_ldap(text))
    if ("//" in text or ":" in text) and "ssrf" in kinds:
        _keep(best, find_url(text))
    if ("\n" in text or "\r" in text or not text.isascii()) and "header" in kinds:
        _keep(best, find_header(text))
    if "template" in kinds and any(mark in text for mark in MARKS):
        _keep(best, find_template(text))
    if "<" in text and ("<!" in text or "<x" in text) and "xml" in kinds:
        _keep(best, find_xml(text))


def _keep(best: dict[str, Hit], hit: Hit | None) -> None:
    if hit is not None:
        known = best.get(hit.kind)
        if known is None or hit.score > known.score:
            best[hit.kind] = hit
