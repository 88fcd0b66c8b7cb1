"""Holds the texts of a request against the rules of a route.

Theory of operation. Two questions are kept apart, because the first is asked of every request and
the second of hardly any: is there anything in it, and where is it. JSON is asked the first
question string by string without being parsed; only when one scores is it parsed to learn the
field's name, and whether that is excluded.

Verdicts on whole queries and header values are kept by their text: the same user agents, cookies
and queries come again and again. What is kept is bounded in number and in length of the texts,
and depends on nothing but the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from headgate.security.injection.field import Field
from headgate.security.injection.fields import (
    cookie_fields,
    is_json,
    json_fields,
    json_text,
    json_texts,
    path_fields,
    query_fields,
    xml_fields,
)
from headgate.security.injection.findings import NONE, Findings, Hit
from headgate.security.injection.multipart import multipart_fields
from headgate.security.injection.plain import suspects
from headgate.security.injection.rules import InjectionRules
from headgate.security.injection.scorer import score
from headgate.security.injection.templates import find_xml, is_query_operator
from headgate.security.injection.texts import boundary_of, charset_of, inflated, text_of

CLIP: Final = 200
"""Characters of a value that a finding shows."""
_KEEP: Final = 512
_KEEP_CHARACTERS: Final = 512
_PLAIN_PATH: Final = re.compile(r"(?:/[A-Za-z0-9_\-]*+(?:\.[A-Za-z0-9_\-]++)*+)*+").fullmatch
_first_character: Final = itemgetter(0)
_OUTSIDE: Final = frozenset(",:*[]{} \t\r\n")
_JSON_BEGINS: Final = (b"{", b"[")
_PLAIN_QUERY: Final = re.compile(
    r"(?:[A-Za-z0-9_]|[=&,@:\-](?=[A-Za-z0-9_&=]|\Z)|\.(?=[0-9]))*+"
).fullmatch
_LONG_WORD: Final = re.compile(r"[A-Za-z0-9_]{20}").search
_OPERATOR: Final = re.compile(r"\[(\$\w{1,20})\]").search


@dataclass(frozen=True, slots=True)
class Found:
    """What is wrong with a request."""

    field: str
    findings: Findings
    value: str
    """The value's beginning, with control characters escaped; `(hidden)` where it is secret."""

    @property
    def score(self) -> int:
        return self.findings.score


UNSEEN: Final = Found("body", NONE, "")
"""A body that cannot be looked at, where such bodies are refused."""

_SECRET: Final = re.compile(
    r"pass|pwd|secret|token|session|credential|auth|api.?key|\bsid\b|\bpin\b|card|cvv|iban|ssn",
    re.IGNORECASE,
).search


def shown(text: str, field: str = "") -> str:
    """A value as a log may hold it: its beginning, in one line of visible characters.

    What is in a field whose name says that it is secret stays out.
    """
    if _SECRET(field) is not None:
        return "(hidden)"
    cut = text[:CLIP]
    seen = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut
    )
    return seen + "..." if len(text) > CLIP else seen


class Inspector:
    def __init__(self, rules: InjectionRules) -> None:
        self._threshold = rules.threshold
        self._kinds = frozenset(rules.kinds)
        self._quiet_kinds = self._kinds - {"ssrf"}  # a Referer is a URL, of one's own machine too
        self._exclude = _matcher(rules.exclude)
        self._headers = _matcher(rules.headers)
        self._cookies = rules.cookies
        self._limit = rules.body_bytes
        self._unseen = UNSEEN if rules.unseen == "refuse" else None
        self._types: dict[str, str] = {}
        self._wanted: dict[bytes, bool] = {}
        self._known: dict[tuple[str, str], Found | None] = {}

    # -- the head ------------------------------------------------------------------------------

    def head(self, path: str, query: str, headers: Sequence[tuple[bytes, bytes]]) -> Found | None:
        """Judge path, query, headers and cookies; return the first field that is over."""
        if _PLAIN_PATH(path) is None or _LONG_WORD(path) is not None:
            found = self._keep("path", path, lambda: self._first(path_fields(path)))
            if found is not None:
                return found
        if query and (_PLAIN_QUERY(query) is None or _LONG_WORD(query) is not None):
            found = self._keep("query", query, lambda: self._first(query_fields(query)))
            if found is not None:
                return found
        for key, value in headers:
            wanted = self._wanted.get(key)
            if wanted is None:
                wanted = self._is_wanted(key)
            if wanted:
                name = key.decode("latin-1")
                text = value.decode("latin-1")
                found = self._keep(name, text, lambda n=name, t=text: self._header(n, t))  # type: ignore[misc]
                if found is not None:
                    return found
        return None

    def _is_wanted(self, key: bytes) -> bool:
        name = key.decode("latin-1").lower()
        if name == "cookie":
            wanted = self._cookies
        else:
            wanted = self._headers(name) and not self._exclude(f"header.{name}")
        if len(self._wanted) < _KEEP:
            self._wanted[key] = wanted
        return wanted

    def _header(self, name: str, text: str) -> Found | None:
        if not text.isascii():
            try:
                text = text.encode("latin-1").decode()
            except UnicodeDecodeError:
                pass
        if name == "cookie":
            return self._first(cookie_fields(text))
        return self._first((Field(f"header.{name}", text),), self._quiet_kinds)

    def _keep(self, place: str, text: str, judge: Callable[[], Found | None]) -> Found | None:
        if len(text) > _KEEP_CHARACTERS:
            return judge()
        key = (place, text)
        known = self._known
        try:
            return known[key]
        except KeyError:
            found = judge()
            if len(known) >= _KEEP:
                known.clear()
            known[key] = found
            return found

    # -- the body ------------------------------------------------------------------------------

    def body(self, body: bytes, content_type: str, encoding: str = "") -> Found | None:
        """Judge a body; return the first field that is over."""
        if not body:
            return None
        if not encoding:
            return self._plain_body(body, content_type)
        plain = inflated(body, encoding, self._limit + 1)
        if plain is None:
            return self._unseen
        found = self._plain_body(plain, content_type)
        return self._unseen if found is None and len(plain) > self._limit else found

    def _plain_body(self, body: bytes, content_type: str) -> Found | None:
        kind = self._types.get(content_type)
        if kind is None:
            kind = content_type.partition(";")[0].strip().lower()
            if len(self._types) < _KEEP and len(content_type) < _KEEP_CHARACTERS:
                self._types[content_type] = kind
        if kind.endswith("json") or kind in {"application/graphql+json", "application/csp-report"}:
            return self._json(text_of(body, charset_of(content_type)))
        if kind == "application/x-www-form-urlencoded":
            return self._first(query_fields(text_of(body, charset_of(content_type)), "form"))
        if kind.startswith("multipart/"):
            boundary = boundary_of(content_type)
            return self._first(multipart_fields(body, boundary)) if boundary else None
        if kind.endswith("xml"):
            return self._xml(text_of(body, charset_of(content_type)))
        if kind.startswith("text/") or kind == "application/graphql":
            text = text_of(body, charset_of(content_type))
            return self._first((Field("text", text),)) or self._json_of_another_name(text)
        if not kind:
            return self._unnamed(body)
        if body.lstrip()[:1] in _JSON_BEGINS:
            return self._json_of_another_name(text_of(body, charset_of(content_type)))
        return None

    def _json_of_another_name(self, text: str) -> Found | None:
        """JSON that is said to be something else: many services read it without asking."""
        if text.lstrip()[:1] in {"{", "["} and is_json(text):
            return self._json(text)
        return None

    def _unnamed(self, body: bytes) -> Found | None:
        """A body of no type: services guess, so it is judged as what it looks like."""
        text = text_of(body)
        begin = text.lstrip()[:1]
        if begin in {"{", "["}:
            return self._json(text)
        if begin == "<":
            return self._xml(text)
        if "\0" in text:
            return None
        if "=" in text:
            return self._first(query_fields(text, "form"))
        return self._first((Field("text", text),))

    def _json(self, text: str) -> Found | None:
        threshold, kinds = self._threshold, self._kinds
        known: dict[str, Findings] = {}
        raws = dict.fromkeys(json_texts(text))
        if "\\" in text:
            # An escape leaves a backslash, or what `json_texts` puts in its place.
            texts = [
                raw if "\\" not in raw and raw.isprintable() else json_text(raw)
                for raw in raws
                if raw
            ]
        else:
            texts = [raw for raw in raws if raw]
        if not _OUTSIDE.isdisjoint(map(_first_character, texts)) and not is_json(text):
            # Comments, single quotes: some services read those, and where strings begin is open.
            texts = text.split('"') + text.split("'")
        for each in suspects(texts):
            findings = score(each, kinds)
            if findings is not NONE and findings.score >= threshold:
                known[each] = findings
        asks = "nosql" in kinds and '"$' in text
        if not known and not asks:
            return None
        try:
            for field in json_fields(text):
                hit = known.get(field.text)
                if hit is None and asks and field.is_name and is_query_operator(field.text):
                    hit = Findings((Hit("nosql", 5, "query operator"),))
                    if threshold > 5:
                        continue
                if hit is not None and not self._exclude(field.name):
                    return Found(field.name, hit, shown(field.text, field.name))
        except ValueError:
            for value, hit in known.items():
                if not self._exclude("json"):
                    return Found("json", hit, shown(value))
        return None

    def _xml(self, text: str) -> Found | None:
        if self._exclude("xml"):
            return None
        if "xml" in self._kinds and "<!" in text:
            hit = find_xml(text)
            if hit is not None and hit.score >= self._threshold:
                return Found("xml", Findings((hit,)), shown(text))
        return self._first(xml_fields(text))

    # -- common --------------------------------------------------------------------------------

    def _first(self, fields: Iterable[Field], kinds: frozenset[str] | None = None) -> Found | None:
        threshold = self._threshold
        kinds = self._kinds if kinds is None else kinds
        for field in fields:
            findings = score(field.text, kinds)
            if field.is_name and "nosql" in kinds:
                operator = _OPERATOR(field.text)
                if operator is not None and is_query_operator(operator[1]):
                    findings = Findings((Hit("nosql", 5, "query operator"),))
            if findings is NONE or findings.score < threshold or self._exclude(field.name):
                continue
            return Found(field.name, findings, shown(field.text, field.name))
        return None


def _matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Match names against patterns with `*`; upper and lower case are one."""
    exact = {each.lower() for each in patterns if "*" not in each}
    wild = [re.escape(each.lower()).replace(r"\*", ".*") for each in patterns if "*" in each]
    if not exact and not wild:
        return lambda _: False
    matches = re.compile("|".join(wild), re.DOTALL).fullmatch if wild else None

    def is_listed(name: str) -> bool:
        low = name.lower()
        return low in exact or (matches is not None and matches(low) is not None)

    return is_listed
