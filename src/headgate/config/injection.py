"""Input that tries to be more than input."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from headgate.config.fields import (
    FALSE,
    TRUE,
    Flag,
    MatchedHeader,
    Size,
    Spec,
    Text,
    Whole,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrMore, OrFalse, Shorthand
from headgate.security.injection.findings import KINDS, Kind
from headgate.security.injection.rules import InjectionRules

__all__ = ["Injection", "InjectionSpec", "problems"]

_DEFAULTS: Final = InjectionRules()
_PLACES: Final = ("path", "query", "header", "cookie", "form", "file", "json", "xml", "text")
_BODY_MAX: Final = 16 * 1024 * 1024

Found = tuple[tuple[str | int, ...], str, str, bool]


def _header_pattern(value: object) -> str:
    name = text_of(value).strip().lower()
    if not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9a-z]+", name):
        raise refuse("is not a header name, which may hold * for any characters")
    return name


_HeaderPattern = Annotated[MatchedHeader, BeforeValidator(_header_pattern)]


def _field(value: object) -> str:
    name = text_of(value).strip()
    place, dot, rest = name.partition(".")
    if place not in _PLACES and "*" not in place:
        raise refuse(
            f"names no field; write one as in query.q, and begin with {' or '.join(_PLACES)}"
        )
    if place in {"query", "header", "cookie", "form", "file"} and not (dot and rest):
        raise refuse(f"names no field; write {place}.NAME, or {place}.* for all of them")
    return name


_FieldName = Annotated[Text, BeforeValidator(_field)]


class InjectionSpec(Spec):
    """Refuses requests that carry an attack: SQL injection, scripts, paths, commands.

    Every value of a request is scored by what it would do if a service put it where it does not
    belong. Names such as O'Brien, prose, program code, URLs and tokens pass.
    """

    mode: Literal["block", "detect"] = _DEFAULTS.mode
    """`block` answers 403; `detect` only writes to the log. `injection: detect` is short for it."""

    threshold: Annotated[Whole, Field(ge=1, le=10)] = _DEFAULTS.threshold
    """The score from which a value is an attack. 5 is what is plain to see; 3 and 4 also take what
    text about code looks like; 7 and more let much through."""

    kinds: Annotated[tuple[Kind, ...], OneOrMore, Field(min_length=1)] = KINDS
    """What to look for. `sql`, `xss` (scripts), `path` (leaving a folder), `command` (shells),
    `ssrf` (URLs of inner hosts), `header` (line breaks), `template`, `nosql`, `ldap`, `xml`
    (external entities)."""

    exclude: Annotated[tuple[_FieldName, ...], OneOrMore] = _DEFAULTS.exclude
    """Fields that may hold anything, by place and name: `query.q`, `json.post.html`, `form.*`,
    `cookie.session`, `header.referer`, `file.upload`. The log names them in the same way."""

    headers: Annotated[tuple[_HeaderPattern, ...], OneOrMore] = _DEFAULTS.headers
    """Request headers to look at; `*` stands for any characters."""

    cookies: Flag = _DEFAULTS.cookies
    """Look at cookies."""

    body: Size = _DEFAULTS.body_bytes
    """Look at bodies up to this size. They are held back until they are whole. What becomes of
    longer ones says `unseen`. 0 looks at none."""

    unseen: Literal["pass", "refuse"] = _DEFAULTS.unseen
    """What becomes of bodies that cannot be looked at: longer ones (413), and those compressed with
    anything but gzip and deflate (415). `refuse` leaves nobody a way around by padding."""

    def rules(self) -> InjectionRules:
        """What the scorer goes by."""
        return InjectionRules(
            mode=self.mode,
            threshold=self.threshold,
            kinds=tuple(self.kinds),
            exclude=tuple(self.exclude),
            headers=tuple(self.headers),
            cookies=self.cookies,
            body_bytes=self.body,
            unseen=self.unseen,
        )


def _widened(value: Any) -> Any:
    if isinstance(value, str) and value.strip().lower() not in TRUE | FALSE:
        return {"mode": value.strip()}
    return value


Injection = Annotated[
    Annotated[InjectionSpec | Literal[False], OrFalse()],
    Shorthand(_widened, {"enum": ["block", "detect"]}, "or `detect` or `block`, which is `mode`"),
]


def problems(spec: InjectionSpec) -> Iterator[Found]:
    """What single fields cannot say about each other."""
    if spec.body > _BODY_MAX:
        hint = "leave longer bodies to the service; see `unseen`"
        yield ("body",), "is more than 16MB, all of which would be held in memory", hint, False
    if spec.threshold >= 8:
        yield ("threshold",), "lets most attacks through", "5 is the default", True
    for at, name in enumerate(spec.exclude):
        if name in {"*", "*.*"}:
            yield ("exclude", at), "leaves nothing to look at", "write injection: false", False
    if spec.unseen == "refuse" and (spec.mode == "detect" or not spec.body):
        why = "although mode: detect refuses nothing" if spec.body else "but looks at no bodies"
        yield ("unseen",), f"refuses what cannot be looked at {why}", "leave it out", False
