"""The cache of responses: what is kept, for how long, and under which key."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from headgate.cache.http.rules import CacheRules, KeyRules
from headgate.config.fields import (
    FALSE,
    TRUE,
    Duration,
    Flag,
    HeaderName,
    MatchedHeader,
    Size,
    Spec,
    Unit,
    Wait,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrMore, OrFalse, Shorthand
from headgate.config.templates import names_in
from headgate.units import UnitError, parse_percent

__all__ = [
    "CacheKeySpec",
    "CachePolicy",
    "CacheSpec",
    "QueryChoice",
]

_D: Final = CacheRules()
_K: Final = KeyRules()
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")

# -- the key -------------------------------------------------------------------------------

_PARAMETER: Final = re.compile(r"[^&=;?#\s*]{1,256}\*?|\*")


@dataclass(frozen=True, slots=True)
class QueryChoice:
    """Which parameters count."""

    order: Literal["all", "sorted", "none"] = _K.query
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def plain(self) -> Any:
        """As it is written in the file."""
        if self.only:
            return list(self.only)
        return {"without": list(self.without)} if self.without else self.order

    def __str__(self) -> str:
        """In one line."""
        if self.only:
            return f"only {', '.join(self.only)}"
        return f"all without {', '.join(self.without)}" if self.without else self.order


def _parameters(value: object) -> tuple[str, ...]:
    items = value if isinstance(value, (list, tuple)) else [value]
    names = []
    for item in items:
        name = text_of(item)
        if not _PARAMETER.fullmatch(name):
            raise refuse(
                "has a name that no parameter can have; a * may stand at its end, as in utm_*"
            )
        names.append(name)
    return tuple(names)


def _query(value: object) -> QueryChoice:
    if isinstance(value, QueryChoice):
        return value
    if isinstance(value, (list, tuple)):
        # Nothing on a list is nothing that counts.
        return QueryChoice(only=_parameters(value)) if value else QueryChoice("none")
    if isinstance(value, dict):
        if set(value) != {"without"}:
            raise refuse("must be {without: [names]}, or a list of names", takes_value=False)
        return QueryChoice(without=_parameters(value["without"]))
    word = text_of(value).strip()
    if word in FALSE:
        return QueryChoice("none")
    if word in TRUE:
        return QueryChoice()
    for order in ("all", "sorted", "none"):
        if word == order:
            return QueryChoice(order)
    raise refuse("is not known here; write sorted, all, none, a list of names or {without: [...]}")


def _plain(choice: QueryChoice) -> Any:
    return choice.plain()


_NAMES: Final = {"type": "array", "items": {"type": "string"}}
Query = Annotated[
    QueryChoice,
    PlainValidator(_query),
    PlainSerializer(_plain),
    Words("`sorted`, `all`, `none`, a list of names, or `{without: [names]}`"),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["sorted", "all", "none", False]},
                _NAMES,
                {
                    "type": "object",
                    "properties": {"without": {"anyOf": [{"type": "string"}, _NAMES]}},
                    "required": ["without"],
                    "additionalProperties": False,
                },
            ],
            "examples": ["sorted", ["page", "size"], {"without": ["utm_*", "fbclid"]}],
        }
    ),
]


def _cookie(value: object) -> str:
    name = text_of(value)
    if not _TOKEN.fullmatch(name):
        raise refuse("is not the name of a cookie")
    return name


def _claim(value: object) -> str:
    name = text_of(value)
    if not name.strip() or len(name) > 256:
        raise refuse("is not the name of a claim")
    return name


CookieName = Annotated[
    str, PlainValidator(_cookie), Words("name"), WithJsonSchema({"type": "string"})
]
ClaimName = Annotated[
    str, PlainValidator(_claim), Words("name"), WithJsonSchema({"type": "string"})
]


class CacheKeySpec(Spec):
    """What tells two responses apart. The scheme, the path, the route and the service always do,
    and what `Vary` of a response names. Of a `split` each service has responses of its own.

    What is left out here must make no difference to the service: who asks first decides what
    everybody gets. Fields by which frameworks change what is asked for (`X-HTTP-Method-Override`,
    `X-Original-URL` and their kin) count wherever they reach the service; `headers` can take them
    out.
    """

    host: Flag = _K.host
    """The host. `false` shares responses between all hosts of the route."""

    query: Query = QueryChoice()
    """Parameters of the query. `sorted` counts all, in any order. `all` counts the query as it
    came. `none` leaves it out. A list names those that count; `{without: [utm_*, fbclid]}` those
    that do not. A `*` at the end of a name stands for any ending."""

    headers: Annotated[tuple[MatchedHeader, ...], OneOrMore] = ()
    """Request headers that count, letter by letter. For `Accept`, `Accept-Encoding` and
    `Accept-Language` leave it to `Vary`, which knows what of them is the same."""

    cookies: Annotated[tuple[CookieName, ...], OneOrMore] = ()
    """Cookies that count. The others do not."""

    claims: Annotated[tuple[ClaimName, ...], OneOrMore] = ()
    """Claims of the token that count, as in `claims: tenant`: whoever has the same ones shares
    responses. Of who lacks one, nothing is kept. Needs `auth`."""

    user: Flag = _K.user
    """Each user has responses of their own; of who has not said who they are nothing is kept.
    Needs `auth`. Beside `override`, `user: false` says that all users may see the same."""

    def rules(self) -> KeyRules:
        """The key's own rules."""
        return KeyRules(
            host=self.host,
            query=self.query.order,
            query_only=self.query.only,
            query_without=self.query.without,
            headers=tuple(name.lower() for name in self.headers),
            cookies=self.cookies,
            claims=self.claims,
            user=self.user,
        )


# -- what is kept --------------------------------------------------------------------------

_KEPT_STATUS: Final = re.compile(r"[2-4][0-9]{2}")
_ABOUT_WHO_ASKS: Final = frozenset({401, 407, 408, 421, 425, 429, 431})
_PARTIAL: Final = frozenset({206, 304})


def _status(value: object) -> int:
    text = text_of(value).strip().lower()
    if text.startswith("5") and len(text) == 3:
        raise refuse(
            "is a failure of the service, which would take the place of a good response; say "
            "stale_if_error for the time of a failure"
        )
    if not _KEPT_STATUS.fullmatch(text):
        raise refuse("is not a status; write one of 200 to 499, such as 404")
    status = int(text)
    if status in _ABOUT_WHO_ASKS:
        raise refuse("is about the one who asked, and is nothing for others")
    if status in _PARTIAL:
        raise refuse("is part of another response; say it of 200")
    return status


KeptStatus = Annotated[
    int,
    PlainValidator(_status),
    Words("status"),
    WithJsonSchema({"type": "string", "pattern": "^[2-4][0-9]{2}$"}),
]


def _share(value: object) -> float:
    if value is False or (isinstance(value, str) and value.strip().lower() in FALSE):
        return 0.0
    try:
        return parse_percent(value)
    except UnitError as error:
        raise refuse(f"{error.rule}, or false", kind="unit") from None


Share = Annotated[
    float,
    PlainValidator(_share),
    Unit("percent"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "number", "minimum": 0, "maximum": 1},
                {"const": False},
            ],
            "examples": ["10%", False],
        }
    ),
]

_TAG: Final = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,256}")


def _tag(value: object) -> str:
    tag = text_of(value)
    if not _TAG.fullmatch(tag):
        raise refuse("is not a tag: printable ASCII without blanks and commas, 256 at most")
    try:
        names_in(tag)
    except ValueError as error:
        raise refuse(str(error)) from None
    return tag


Tag = Annotated[
    str,
    PlainValidator(_tag),
    Words("tag or template"),
    WithJsonSchema({"type": "string", "examples": ["products", "product:{id}"]}),
]


class CacheSpec(Spec):
    """Keeps responses and answers with them, as a shared cache (RFC 9111). What a response says of
    itself (`Cache-Control`, `CDN-Cache-Control`, `Expires`, `Vary`, `Set-Cookie`) decides; what
    stands here is for responses that say nothing, unless `override` is on. `cache: true` means all
    defaults, a duration is `ttl`, and `false` on a route or service switches off what an outer
    level says.

    Only answers to GET and HEAD are kept. What was asked with credentials (`Authorization`, or a
    route with `auth`) is kept only where the response allows it in so many words, as `public` and
    `s-maxage` do, or where `key` tells users apart. A request that changes something (POST, PUT,
    PATCH, DELETE) makes the cache forget the URL it went to.
    """

    ttl: Duration | None = _D.ttl_s
    """How long a response is fresh that says nothing of it. By default it is guessed, see
    `heuristic`. `0` asks the service each time whether it has changed."""

    ttl_by_status: dict[KeptStatus, Duration] = Field(default_factory=dict)
    """The same by status, as in `{404: 10s, 301: 1h}`; it goes before `ttl`. Other statuses than
    200, 203, 204, 300, 301, 308, 404, 405, 410, 414 and 501 are only kept where they are named here
    or say how long. Failures of the service (5xx) cannot stand here: see `stale_if_error`."""

    override: Flag = _D.overrides
    """`ttl` and `ttl_by_status` hold whatever the response says of its freshness, `no-cache`
    included. What may not be kept at all (`no-store`, `private`, `Vary: *`) still is not. For
    services that cannot be taught better. A route with `auth` needs a `key` that tells users
    apart, or one that says with `user: false` that there is no difference."""

    heuristic: Share = _D.heuristic
    """How long a response without any expiry is taken for fresh: this share of the time since its
    `Last-Modified`. `false` guesses nothing. Of no effect with `ttl`."""

    heuristic_max: Duration = _D.heuristic_max_s
    """Never longer than this."""

    stale_while_revalidate: Duration = _D.stale_while_revalidate_s
    """So long after its time a response is still served at once, while a new one is fetched behind
    it. For responses that say nothing of it and were fresh for some time, or say `public`."""

    stale_if_error: Duration = _D.stale_if_error_s
    """So long after its time a response is served when the service fails: cannot be reached, is
    too slow, or answers 500, 502, 503 or 504. For responses that say nothing of it and were fresh
    for some time, or say `public`."""

    trouble_ttl: Duration = _D.trouble_ttl_s
    """In place of `ttl` while the level of `degrade` has `stale` among its measures: how long a
    response is fresh that says nothing of it, so that a service in trouble is asked once in so
    long. A second or two are a great relief. Of no effect with `ttl`."""

    keep: Duration = _D.keep_s
    """How long a response is held after its time so that it can be validated, at least."""

    body_max: Size = _D.body_max
    """A longer body passes without being kept."""

    collapse: Flag = _D.collapse
    """Of several requests for the same at the same time, one goes to the service and the others
    wait for its answer. What turns out to be for one alone is not shared."""

    collapse_wait: Wait = _D.collapse_wait_s
    """How long they wait, before each asks for itself."""

    client_directives: Flag = _D.client_directives
    """Heed `Cache-Control` of requests, as when a browser reloads. `false` where clients must not
    be able to reach the service past the cache."""

    set_cookie: Annotated[Literal["pass", "store", "strip"], BeforeValidator(text_of)] = (
        _D.set_cookie
    )
    """What becomes of a response with `Set-Cookie`: it is not kept (`pass`), kept without it
    (`strip`), or kept as it is, so that everybody gets the same cookie (`store`)."""

    tags: Annotated[tuple[Tag, ...], OneOrMore] = ()
    """Names by which responses of the route can be purged together; `{name}` stands for a parameter
    of the match, as in `product:{id}`. They are added to what `tag_headers` say."""

    tag_headers: Annotated[tuple[HeaderName, ...], OneOrMore] = _D.tag_headers
    """Response headers in which the service names tags."""

    tags_shown: Flag = _D.tags_shown
    """Send those headers on to clients."""

    status_header: Flag = _D.status_header
    """Tell in `Cache-Status` what became of each request (RFC 9211)."""

    key: CacheKeySpec = CacheKeySpec()
    """What tells two responses apart."""

    def rules(self, name: str = _D.name) -> CacheRules:
        """The cache's own rules. `name` is that of `cache_store`."""
        return CacheRules(
            ttl_s=self.ttl,
            ttl_by_status=dict(self.ttl_by_status),
            overrides=self.override,
            heuristic=self.heuristic,
            heuristic_max_s=self.heuristic_max,
            stale_while_revalidate_s=self.stale_while_revalidate,
            stale_if_error_s=self.stale_if_error,
            trouble_ttl_s=self.trouble_ttl,
            keep_s=self.keep,
            body_max=self.body_max,
            collapse=self.collapse,
            collapse_wait_s=self.collapse_wait,
            client_directives=self.client_directives,
            set_cookie=self.set_cookie,
            tags=self.tags,
            tag_headers=tuple(name.lower() for name in self.tag_headers),
            tags_shown=self.tags_shown,
            status_header=self.status_header,
            name=name,
            key=self.key.rules(),
        )


def _ttl(value: object) -> object:
    if value is None or isinstance(value, (bool, dict, Spec)):
        return value
    if isinstance(value, str) and value.strip().lower() in TRUE | FALSE:
        return value
    return {"ttl": value}


CachePolicy = Annotated[
    Annotated[
        CacheSpec,
        Shorthand(
            _ttl,
            {"type": ["string", "number"], "examples": ["60s"]},
            "or a duration, which is `ttl`",
        ),
    ]
    | Literal[False],
    OrFalse(),
]
