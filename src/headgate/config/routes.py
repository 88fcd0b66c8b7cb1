"""Which request goes where: routes, what they match and what they do."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from headgate.config.answers import Respond, RespondSpec
from headgate.config.authenticating import AuthUse
from headgate.config.fields import (
    Flag,
    MatchedHeader,
    Network,
    Spec,
    Text,
    Whole,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrMore, Shorthand
from headgate.config.http import Method
from headgate.config.policies import PolicyFields
from headgate.config.promises import SloPromise
from headgate.config.regexes import regex_fault
from headgate.config.services import host_text
from headgate.config.splitting import FaultSpec, Mirror, SplitSpec, Target
from headgate.config.templates import PARAM_TYPES, names_in, template_params

__all__ = [
    "PARAM_TYPES",
    "MatchSpec",
    "RedirectSpec",
    "RespondSpec",
    "RewriteSpec",
    "RouteSpec",
    "ValueMatchSpec",
    "default_name",
    "names_in",
    "targets",
    "template_params",
]


_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")
_UNSEEN: Final = re.compile(r"[\x00-\x20\x7f]")
# Also where a server behind might see one: after an escaped slash, or before a ";".
_DOTS: Final = re.compile(r"(?:/|\\|%2f|%5c)(?:\.|%2e){1,2}(?:/|\\|%2f|%5c|;|%3b|$)", re.IGNORECASE)
_LABELS: Final = re.compile(
    r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*"
)
_ADDRESS: Final = re.compile(r"[0-9.]+|\[[0-9a-f:.]+\]")


# -- the parts of a match -----------------------------------------------------------------


def _path_start(value: object) -> str:
    path = text_of(value)
    if not path.startswith("/"):
        raise refuse('does not start with "/"')
    if "?" in path or "#" in path:
        raise refuse("has a query or fragment in it; match queries under `query`")
    if _UNSEEN.search(path):
        raise refuse("has a space or control character in it; write %20 for a space")
    if _BAD_ESCAPE.search(path):
        raise refuse('has a "%" that is not followed by two hexadecimal digits, or a %00')
    if _DOTS.search(path):
        raise refuse("has a segment . or .. in it, which no request has once it is normalised")
    return path


def _path(value: object) -> str:
    path = _path_start(value)
    try:
        template_params(path)
    except ValueError as error:
        raise refuse(str(error)) from None
    return path


def _exact(value: object) -> str:
    path = _path_start(value)
    if "{" in path or "}" in path:
        raise refuse("has braces in it; templates are written under `path`")
    return path


def _regex(value: object) -> str:
    pattern = text_of(value)
    if fault := regex_fault(pattern):
        raise refuse(fault)
    return pattern


def _host(value: object) -> str:
    host = text_of(value).strip().lower().removesuffix(".")
    name = host.removeprefix("*.")
    if ":" in host and not host.startswith("["):
        raise refuse("has a port in it; hosts are matched without one")
    if "*" in name:
        raise refuse('has a "*" that is not its first label; write *.example.org')
    if not host.isascii():
        raise refuse("is not ASCII; write the name as it is sent, in punycode (xn--...)")
    if not (_LABELS.fullmatch(name) or (name == host and _ADDRESS.fullmatch(host))):
        raise refuse("is not a host; write example.org or *.example.org")
    return host


Regex = Annotated[
    str,
    PlainValidator(_regex),
    Words("regular expression"),
    WithJsonSchema({"type": "string", "format": "regex"}),
]
PathText = Annotated[
    str,
    PlainValidator(_path),
    Words("path or template"),
    WithJsonSchema({"type": "string", "pattern": "^/", "examples": ["/api/users/", "/u/{id:int}"]}),
]
ExactText = Annotated[
    str,
    PlainValidator(_exact),
    Words("path"),
    WithJsonSchema({"type": "string", "pattern": "^/"}),
]
Host = Annotated[
    str,
    PlainValidator(_host),
    Words("host"),
    WithJsonSchema({"type": "string", "examples": ["example.org", "*.example.org"]}),
]


class ValueMatchSpec(Spec):
    """A condition on a header, query parameter or cookie: exactly one of these."""

    equals: Text | None = None
    """It has this value. Letters count as they are written."""

    regex: Regex | None = None
    """Its whole value matches this regular expression."""

    present: Flag = False
    """It is there, with any value."""

    absent: Flag = False
    """It is not there."""


def _value_match(value: object) -> object:
    if isinstance(value, (dict, ValueMatchSpec)) or value is None:
        return value
    if isinstance(value, (list, tuple)):
        raise refuse("must be a value or a mapping", kind="type", takes_value=False)
    text = text_of(value)
    return {"regex": text[1:]} if text.startswith("~") else {"equals": text}


ValueMatch = Annotated[
    ValueMatchSpec,
    Shorthand(
        _value_match,
        {"type": ["string", "number", "boolean"], "examples": ["beta", "~^v[0-9]+$"]},
        "or text, which is `equals`; `~` before it makes it `regex`",
    ),
]


class MatchSpec(Spec):
    """What a request must be for the route to take it. Everything said must hold; a route that
    says nothing takes every request that no other route takes.

    At most one of `path`, `exact` and `regex`.
    """

    host: Annotated[tuple[Host, ...], OneOrMore] = ()
    """`example.org`, or `*.example.org` for every name below it. Compared without the port, in
    lower case. One or a list."""

    path: PathText | None = None
    """The start of the path, in whole segments: `/api/users` and `/api/users/` both take
    `/api/users`, `/api/users/` and `/api/users/42`, and neither takes `/api/users2`. With
    parameters, as in `/api/users/{id:int}`, it is the whole path; types are `str` (the default),
    `int`, `uuid`, `slug`, and `path` at the end for all that is left."""

    exact: ExactText | None = None
    """The whole path, letter by letter."""

    regex: Regex | None = None
    """A regular expression for the whole path. Named groups become parameters. Slower than the
    other kinds, which cost the same however many routes there are."""

    methods: Annotated[tuple[Method, ...], OneOrMore] = ()
    """Methods taken; a list or one. `GET` takes `HEAD` as well. Another method on a path that is
    known is answered with 405."""

    headers: dict[MatchedHeader, ValueMatch] = Field(default_factory=dict)
    """Conditions on request headers. `x-beta: "1"` asks for a value, `x-beta: ~^[0-9]$` for a
    pattern, `x-beta: {present: true}` for any value."""

    query: dict[Text, ValueMatch] = Field(default_factory=dict)
    """Conditions on query parameters, written like those on headers."""

    cookies: dict[Text, ValueMatch] = Field(default_factory=dict)
    """Conditions on cookies, written like those on headers."""

    client_ip: Annotated[tuple[Network, ...], OneOrMore] = ()
    """Addresses or networks of clients, as seen after `trusted_proxies`."""

    scheme: Annotated[Literal["http", "https"], BeforeValidator(text_of)] | None = None
    """`http` or `https`, as the client itself spoke: on its connection, or what a proxy in
    `trusted_proxies` says of it in `X-Forwarded-Proto` or `Forwarded`."""

    listener: Annotated[tuple[Text, ...], OneOrMore] = ()
    """The listener that took the connection: its `name`, or its `bind` where it has none. One or a
    list."""


# -- what a route does --------------------------------------------------------------------


def _template(value: object) -> str:
    text = text_of(value)
    try:
        names_in(text)
    except ValueError as error:
        raise refuse(str(error)) from None
    if _UNSEEN.search(text):
        raise refuse("has a space or control character in it")
    return text


def _rewrite_template(value: object) -> str:
    text = _template(value)
    if not text.startswith("/"):
        raise refuse('does not start with "/"')
    return text


def _redirect_template(value: object) -> str:
    text = _template(value)
    if not (text.startswith(("/", "http://", "https://", "{"))):
        raise refuse('must start with "/", "http://" or "https://"')
    return text


class RewriteSpec(Spec):
    """The path sent to the service, in place of the client's: `template` alone, or `regex` with
    `to`. The query stays.
    """

    template: (
        Annotated[
            str,
            PlainValidator(_rewrite_template),
            Words("template"),
            WithJsonSchema({"type": "string", "pattern": "^/", "examples": ["/v2/users/{id}"]}),
        ]
        | None
    ) = None
    """The new path; `{name}` stands for a parameter of `match.path` or a named group of
    `match.regex`."""

    regex: Regex | None = None
    """What to look for in the path; every place where it is found is replaced."""

    to: Text | None = None
    """What to put there; `\\1` and `\\g<name>` stand for groups of `regex`."""


def _int(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


class RedirectSpec(Spec):
    """Sends the client elsewhere."""

    to: Annotated[
        str,
        PlainValidator(_redirect_template),
        Words("template"),
        WithJsonSchema(
            {"type": "string", "examples": ["https://{host}{path}", "/new/{id}"]},
        ),
    ]
    """The new place. Parameters of the match may be used, and `{scheme}`, `{host}`, `{path}` and
    `{query}` (with its `?`) of the request."""

    status: Annotated[Literal[301, 302, 303, 307, 308], BeforeValidator(_int)] = 308
    """308 and 307 keep the method and body; 301 and 302 let clients turn a POST into a GET."""


Redirect = Annotated[
    RedirectSpec,
    Shorthand(
        lambda value: {"to": value} if isinstance(value, str) else value,
        {"type": "string", "examples": ["https://example.org{path}{query}"]},
        "or text, which is `to`",
    ),
]
Rewrite = Annotated[
    RewriteSpec,
    Shorthand(
        lambda value: {"template": value} if isinstance(value, str) else value,
        {"type": "string", "examples": ["/v2/users/{id}"]},
        "or text, which is `template`",
    ),
]


class RouteSpec(PolicyFields):
    """Which requests, and what becomes of them: exactly one of `to`, `redirect` and `respond`.

    Of several routes that match, one wins by these rules, in this order: higher `priority`;
    exact host before longer wildcard before shorter wildcard before any host; `exact` path
    before template (more literal segments first) before regex (in file order) before the
    longest prefix before any path; more further conditions (each header, query parameter and
    cookie counts as one, and so do all methods, all addresses, the scheme and all listeners);
    file order.
    """

    name: Text = ""
    """What logs, metrics and `headgate explain` call it. By default made from the match and the
    target, as in `GET,PUT /api/users/ -> users`."""

    match: MatchSpec = MatchSpec()
    """Which requests."""

    priority: Whole = 0
    """Higher ones are looked at first, before all other rules. Rarely needed."""

    to: Target | None = None
    """The service that answers. Several share the requests: `{products: 95%, products-next: 5%}`,
    with percentages or weights, or a list for equal parts. Policies that stand on services are
    then taken from the first one named, except those of its instances (`balance`, `health`,
    `outlier`, `breaker`, `affinity`), which each service has for itself."""

    split: SplitSpec | None = None
    """Who goes where, for a `to` with several services: sticky clients, headers and cookies."""

    mirror: Mirror | None = None
    """Sends a copy of requests to another service."""

    fault: FaultSpec | None = None
    """Faults on purpose: delays and errors for a share of the requests."""

    flag: Text | None = None
    """A flag of `degrade.flags`: while it is off, the route answers with its `fallback`, or with
    503."""

    slo: SloPromise | None = None
    """What is promised of this route, in short: `99.9%`, or `{availability: 99.9%, latency:
    300ms}`. `slos` can say more."""

    auth: AuthUse | None = None
    """Who must say who they are, and how: names under the top-level `auth`. By default what the
    service says, or else `auth.default`."""

    redirect: Redirect | None = None
    """Send the client elsewhere."""

    respond: Respond | None = None
    """Answer here."""

    strip: Flag = False
    """Remove the matched literal start of the path: `/api/users/42` becomes `/42` on a route for
    `/api/users/`."""

    rewrite: Rewrite | None = None
    """Send another path to the service."""

    host: (
        Annotated[
            str,
            PlainValidator(host_text),
            Words("`preserve`, `instance` or a host"),
            WithJsonSchema({"type": "string", "examples": ["preserve", "instance"]}),
        ]
        | None
    ) = None
    """The `Host` that instances see, in place of what the service's `host` says."""

    upgrade: Annotated[tuple[Text, ...], OneOrMore] = ("websocket",)
    """Protocols a client may upgrade to on this route. An empty list refuses upgrades."""


def targets(route: RouteSpec) -> tuple[str, ...]:
    """The services among which the route's requests are shared, the first one named first."""
    if route.to is None:
        return ()
    return (route.to,) if isinstance(route.to, str) else tuple(route.to)


def default_name(route: RouteSpec) -> str:
    """A readable name for a route that says none; equal matches give equal names."""
    match = route.match
    where = "|".join(match.host)
    if match.exact is not None:
        where += f"={match.exact}"
    elif match.regex is not None:
        where += f"~{match.regex}"
    else:
        where += match.path or "/*"
    extra = [
        *(f"[{name}]" for name in match.headers),
        *(f"?{name}" for name in match.query),
        *(f"[cookie {name}]" for name in match.cookies),
        *(f"[from {network}]" for network in match.client_ip),
        *([f"[{match.scheme}]"] if match.scheme is not None else []),
        *(f"[on {name}]" for name in match.listener),
    ]
    if route.to is not None:
        target = "|".join(targets(route))
    elif route.redirect is not None:
        target = str(route.redirect.status)
    else:
        target = str(route.respond.status) if route.respond is not None else "nothing"
    return " ".join(part for part in (",".join(match.methods), where, *extra, "->", target) if part)
