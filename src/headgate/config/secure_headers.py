"""Response headers that make browsers careful, as the file says them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from headgate.config.faults import did_you_mean
from headgate.config.fields import (
    Duration,
    Flag,
    HeaderName,
    HeaderValue,
    Spec,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrMore, OrFalse, Shorthand
from headgate.units import format_duration

__all__ = ["HstsSpec", "SecureHeaders", "SecureHeadersSpec", "secure_headers_problems"]

Found = tuple[tuple[str | int, ...], str, str, bool]
"""Where, what, the way out, and whether it is only a warning."""

_YEAR_S: Final = 365 * 86400.0
_WORDS: Final = (
    "self",
    "none",
    "unsafe-inline",
    "unsafe-eval",
    "unsafe-hashes",
    "strict-dynamic",
    "report-sample",
    "wasm-unsafe-eval",
)
_DIRECTIVES: Final = (
    "base-uri",
    "block-all-mixed-content",
    "child-src",
    "connect-src",
    "default-src",
    "fenced-frame-src",
    "font-src",
    "form-action",
    "frame-ancestors",
    "frame-src",
    "img-src",
    "manifest-src",
    "media-src",
    "object-src",
    "prefetch-src",
    "report-to",
    "report-uri",
    "require-trusted-types-for",
    "sandbox",
    "script-src",
    "script-src-attr",
    "script-src-elem",
    "style-src",
    "style-src-attr",
    "style-src-elem",
    "trusted-types",
    "upgrade-insecure-requests",
    "worker-src",
)
_DIRECTIVE: Final = re.compile(r"[a-z][a-z-]*")
_SOURCE: Final = re.compile(r"[\x21-\x2b\x2d-\x3a\x3c-\x7e]+")  # no blank, comma or semicolon


def _directive(value: object) -> str:
    name = text_of(value).strip().lower()
    if not _DIRECTIVE.fullmatch(name):
        raise refuse("is not a directive, such as default-src")
    return name


def _source(value: object) -> str:
    text = text_of(value).strip()
    if not _SOURCE.fullmatch(text):
        raise refuse("cannot stand in a policy: no blanks, commas or semicolons; write a list")
    if text.lower() in _WORDS or re.fullmatch(r"(nonce-|sha(256|384|512)-).+", text):
        raise refuse("needs quotes of its own, or browsers take it for a host; write \"'...'\"")
    return text


def _policy(value: Any) -> object:
    """Text as it stands in the header, as a mapping of directives."""
    if value is None or isinstance(value, dict):
        return value
    directives: dict[str, list[str]] = {}
    for piece in text_of(value).split(";"):
        name, *sources = piece.split() if piece.strip() else [""]
        if not name:
            continue
        if name.lower() in directives:
            raise refuse("says a directive twice, of which browsers take the first")
        directives[name.lower()] = sources
    if not directives:
        raise refuse("must not be empty", takes_value=False)
    return directives


Directive = Annotated[
    str, PlainValidator(_directive), Words("directive"), WithJsonSchema({"type": "string"})
]
Source = Annotated[
    str, PlainValidator(_source), Words("source"), WithJsonSchema({"type": "string"})
]


def _sources(value: Any) -> object:
    return () if value is True or value in ("true", "") else value


Policy = Annotated[
    dict[
        Directive,
        Annotated[tuple[Source, ...], OneOrMore, BeforeValidator(_sources)],
    ],
    Shorthand(
        _policy,
        {"type": "string", "examples": ["default-src 'self'; object-src 'none'"]},
        "or text as it stands in the header",
    ),
]


def _feature(value: object) -> str:
    name = text_of(value).strip().lower()
    if not _DIRECTIVE.fullmatch(name):
        raise refuse("is not a feature of browsers, such as camera")
    return name


def _allowed(value: object) -> str:
    text = text_of(value).strip()
    if text in ("self", "src", "none", "*"):
        return text
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[*a-z0-9.:\[\]_-]+", text):
        raise refuse("is not self, none, * or an origin such as https://example.org")
    return text


Feature = Annotated[
    str, PlainValidator(_feature), Words("feature"), WithJsonSchema({"type": "string"})
]
AllowedFor = Annotated[
    str,
    PlainValidator(_allowed),
    Words("`self`, `none`, `*` or an origin"),
    WithJsonSchema({"type": "string"}),
]


def _frame_source(value: object) -> str:
    text = text_of(value).strip()
    return {"same_origin": "self", "sameorigin": "self"}.get(text.lower(), text)


def _framer(value: object) -> str:
    text = _frame_source(value)
    if text in ("self", "deny"):
        return text
    if not re.fullmatch(r"https?://[*a-z0-9.:\[\]_-]+", text):
        raise refuse("is not self, deny or an origin such as https://example.org")
    return text


Framer = Annotated[
    str,
    PlainValidator(_framer),
    Words("`self`, `deny` or an origin"),
    WithJsonSchema({"type": "string", "examples": ["self", "deny", "https://example.org"]}),
]

Referrer = Literal[
    "no-referrer",
    "no-referrer-when-downgrade",
    "origin",
    "origin-when-cross-origin",
    "same-origin",
    "strict-origin",
    "strict-origin-when-cross-origin",
    "unsafe-url",
]
Opener = Literal[
    "same-origin", "same-origin-allow-popups", "noopener-allow-popups", "unsafe-none", "off"
]
Embedder = Literal["require-corp", "credentialless", "unsafe-none", "off"]
Resource = Literal["same-origin", "same-site", "cross-origin", "off"]
CrossDomain = Literal["none", "master-only", "by-content-type", "all", "off"]
SiteData = Literal[
    "cache", "cookies", "storage", "executionContexts", "clientHints", "prefetchCache", "*"
]


def _off(value: object) -> object:
    return "off" if value is False else text_of(value)


class HstsSpec(Spec):
    """Tells browsers to come over TLS only (HSTS). A duration is `max_age`. It is sent over TLS
    only; a browser that has heard it keeps to it for that long.
    """

    max_age: Duration = _YEAR_S
    """For how long from now. `0s` takes it back from browsers that come again over TLS."""

    subdomains: Flag = False
    """For every host below this one as well."""

    preload: Flag = False
    """Consent to be built into browsers. That needs a year and `subdomains`, and takes months to
    undo."""


Hsts = Annotated[
    Annotated[
        HstsSpec,
        Shorthand(
            lambda value: (
                value if isinstance(value, (dict, bool, HstsSpec)) else {"max_age": value}
            ),
            {"type": "string", "examples": ["365d"]},
            "or a duration, which is `max_age`",
        ),
    ]
    | Literal[False],
    OrFalse(),
]


class SecureHeadersSpec(Spec):
    """Response headers that make browsers careful. `secure_headers: true` is a good start; what
    holds a page's own scripts in bounds, `csp`, only its author can say.

    A header that the service sends itself stays as it is, unless `override`.
    """

    hsts: Hsts = HstsSpec()
    """`Strict-Transport-Security`: come over TLS only."""

    csp: Policy = Field(default_factory=dict)
    """`Content-Security-Policy`: what a page may load and run, as text or as a mapping of
    directives: `{default-src: "'self'"}`. `frame-ancestors` is added from `frame`."""

    csp_report_only: Policy = Field(default_factory=dict)
    """`Content-Security-Policy-Report-Only`: a policy to try out."""

    content_type_options: Flag = True
    """`X-Content-Type-Options: nosniff`: take content for what it says it is."""

    frame: Annotated[tuple[Framer, ...], OneOrMore] = ("self",)
    """Who may show this in a frame: `self`, `deny`, origins, or a list. It is told by
    `frame-ancestors`, and by `X-Frame-Options` where that can tell it. `[]` says nothing."""

    referrer_policy: Annotated[
        tuple[Annotated[Referrer, BeforeValidator(text_of)], ...], OneOrMore
    ] = ("strict-origin-when-cross-origin",)
    """`Referrer-Policy`: what other sites learn of where a visitor comes from. Of a list, browsers
    take the last that they know; `[]` says nothing."""

    permissions: dict[Feature, Annotated[tuple[AllowedFor, ...], OneOrMore]] = Field(
        default_factory=dict
    )
    """`Permissions-Policy`: who may use what of the browser, as in `{camera: none, geolocation:
    [self, https://maps.example.org]}`."""

    opener: Annotated[Opener, BeforeValidator(_off)] = "same-origin"
    """`Cross-Origin-Opener-Policy`: whether windows of other sites keep a hold on this one. A page
    that logs in through a pop-up window of another site needs `same-origin-allow-popups`."""

    embedder: Annotated[Embedder, BeforeValidator(_off)] = "off"
    """`Cross-Origin-Embedder-Policy`: load nothing from others that does not agree."""

    resource: Annotated[Resource, BeforeValidator(_off)] = "same-origin"
    """`Cross-Origin-Resource-Policy`: who may load this as an image, a script and the like. What
    other sites are meant to embed needs `cross-origin`."""

    cross_domain_policies: Annotated[CrossDomain, BeforeValidator(_off)] = "none"
    """`X-Permitted-Cross-Domain-Policies`, for plug-ins of old."""

    origin_agent_cluster: Flag = True
    """`Origin-Agent-Cluster: ?1`: keep this origin apart from others of its site."""

    clear_site_data: Annotated[
        tuple[Annotated[SiteData, BeforeValidator(text_of)], ...], OneOrMore
    ] = ()
    """`Clear-Site-Data`: what browsers throw away on an answer of this route, as after a log-out:
    `[cookies, storage]`. Sent over TLS only, as browsers take it from nobody else."""

    extra: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    """More headers, by name."""

    hide_server: Flag = False
    """Take out what tells about the software behind: `Server`, `X-Powered-By` and their kin."""

    override: Flag = False
    """Put these in the place of what the service says."""


SecureHeaders = Annotated[SecureHeadersSpec | Literal[False], OrFalse()]


def secure_headers_problems(spec: SecureHeadersSpec) -> Iterator[Found]:
    """What is unsafe or makes no sense."""
    if spec.hsts:
        yield from _hsts_problems(spec.hsts)
    for key in ("csp", "csp_report_only"):
        yield from _policy_problems(getattr(spec, key), key)
    if "deny" in spec.frame and len(spec.frame) > 1:
        yield ("frame",), "denies framing and allows it", "leave out deny", False
    ancestors = spec.csp.get("frame-ancestors")
    if ancestors is not None and "frame" in spec.model_fields_set:
        message = "is said twice: here and in csp, as frame-ancestors"
        yield ("frame",), message, "leave out one of them", False
    for feature, allowed in spec.permissions.items():
        if len(allowed) > 1 and ("none" in allowed or "*" in allowed):
            message = "allows somebody beside none or *"
            yield ("permissions", feature), message, "write one or the other", False
    if spec.embedder == "require-corp" and spec.resource == "off":
        message = "asks of others what this route itself does not say"
        yield ("embedder",), message, "say resource too", True
    if "*" in spec.clear_site_data and len(spec.clear_site_data) > 1:
        yield ("clear_site_data",), 'says "*", so that the others have no effect', "", True


def _hsts_problems(spec: HstsSpec) -> Iterator[Found]:
    if not spec.preload:
        return
    if spec.max_age < _YEAR_S:
        message = f"needs a max_age of a year, and it is {format_duration(spec.max_age)}"
        yield ("hsts", "preload"), message, "write max_age: 365d", False
    if not spec.subdomains:
        yield ("hsts", "preload"), "needs subdomains", "write subdomains: true", False


def _policy_problems(policy: dict[str, tuple[str, ...]], key: str) -> Iterator[Found]:
    for name, sources in policy.items():
        if name not in _DIRECTIVES:
            hint = did_you_mean(name, _DIRECTIVES) or ""
            yield (key, name), "is no directive that browsers know", hint, True
        if "'none'" in sources and len(sources) > 1:
            yield (key, name), "says 'none' and something else", "leave out one of them", False
        bounded = "'strict-dynamic'" in sources or any(
            source.startswith(("'nonce-", "'sha")) for source in sources
        )
        loose = "'unsafe-inline'" in sources and not bounded
        if loose and name in ("default-src", "script-src", "script-src-elem"):
            message = "allows inline scripts, which is what a policy is there to stop"
            yield (key, name), message, "", True
