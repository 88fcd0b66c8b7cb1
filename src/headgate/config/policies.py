"""What can be said at several levels: for everything, for a service, for a route.

The policies of traffic have a file for each family; here stand the older ones and the two lists
of what may be said where.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from headgate.config.access import Allow
from headgate.config.balancing import Affinity, Balance
from headgate.config.breaking import Breaker
from headgate.config.browsers import Cors, Csrf, SecureHeaders
from headgate.config.caching import CachePolicy
from headgate.config.degrading import Fallback
from headgate.config.fields import (
    Flag,
    HeaderName,
    HeaderValue,
    Size,
    Spec,
    Text,
    Wait,
    Whole,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrMore, OrFalse, Shorthand
from headgate.config.guarding import Addresses, Bots
from headgate.config.health import Health, Outlier
from headgate.config.injection import Injection
from headgate.config.limiting import Limits
from headgate.config.protecting import Concurrency, Importance
from headgate.config.retrying import Hedge, Retry
from headgate.config.validating import Validation
from headgate.units import KB

__all__ = [
    "CompressLevels",
    "CompressSpec",
    "HeaderEdits",
    "HeadersSpec",
    "PluginSpec",
    "PolicyFields",
    "ServicePolicyFields",
    "TimeoutSpec",
]


class HeaderEdits(Spec):
    """Changes to a set of headers. They are made in this order: remove, rename, set, add.

    Values are templates: `{client_ip}`, `{request_id}`, `{route}`, `{service}`, `{host}`,
    `{method}`, `{path}`, `{scheme}`, `{param.NAME}` of the match, `{header.NAME}`, `{query.NAME}`,
    and for responses `{status}` and `{response_header.NAME}`. What is not there is empty, and a
    header whose value comes out empty is not sent. `{{` and `}}` write plain braces.
    """

    set: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    """Headers that will have this one value, whatever came before."""

    add: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    """Headers to add beside those of the same name that are already there."""

    remove: Annotated[tuple[HeaderName, ...], OneOrMore] = ()
    """Headers to take out."""

    rename: dict[HeaderName, HeaderName] = Field(default_factory=dict)
    """Old name to new name; the values stay."""


class HeadersSpec(Spec):
    """Edits to the headers on their way to the service and back.

    Headers that frame the message (`content-length`, `transfer-encoding`, `connection`, `host`
    and their kin) belong to the engine and are refused here; the host sent to a service is set
    by `host`.
    """

    request: HeaderEdits = HeaderEdits()
    """Edits to the request before it is sent to the service."""

    response: HeaderEdits = HeaderEdits()
    """Edits to the response before it is sent to the client."""


class CompressLevels(Spec):
    """How hard each algorithm tries. The defaults cost about the same processor time a byte."""

    zstd: Annotated[Whole, Field(ge=1, le=19)] = 3
    """1 to 19."""

    br: Annotated[Whole, Field(ge=0, le=11)] = 4
    """0 to 11. Beyond 5 it is too slow for answers made on the spot."""

    gzip: Annotated[Whole, Field(ge=1, le=9)] = 5
    """1 to 9."""


DEFAULT_TYPES: Final = (
    "text/*",
    "application/json",
    "application/*+json",
    "application/javascript",
    "application/xml",
    "application/*+xml",
    "application/wasm",
    "image/svg+xml",
    "font/ttf",
)

Algorithm = Annotated[Literal["zstd", "br", "gzip"], BeforeValidator(text_of)]


class CompressSpec(Spec):
    """Compression of responses, negotiated with the client's `Accept-Encoding`.

    `true` means all defaults; `false` on a route or service switches off what an outer level
    switched on. A response that is already encoded, or that says `no-transform`, passes
    unchanged.
    """

    algorithms: Annotated[tuple[Algorithm, ...], OneOrMore, Field(min_length=1)] = (
        "zstd",
        "br",
        "gzip",
    )
    """In order of preference, for clients that take several equally."""

    types: Annotated[tuple[Text, ...], OneOrMore] = DEFAULT_TYPES
    """Content types worth compressing; `*` stands for any run of characters. Images, video and
    archives are compressed already and only cost time."""

    min_size: Size = 1 * KB
    """Smaller responses are left alone: they fit one packet either way."""

    level: CompressLevels = CompressLevels()
    """How hard each algorithm tries."""


class TimeoutSpec(Spec):
    """How long to wait for a service. A bare duration, as in `timeout: 5s`, is `first_byte`."""

    connect: Wait = 5.0
    """To reach an instance, TLS included. Then the next address or instance is tried. Connections
    are a service's, shared by its routes: said on a route, this has no effect."""

    first_byte: Wait = 30.0
    """From the end of the request to the head of the response. Answered with 504."""

    idle: Wait = 60.0
    """Longest silence in the middle of a request or response body. Event streams that are quiet for
    longer need more here, or a comment line now and then."""

    tunnel: Wait = 3600.0
    """Longest silence in a WebSocket or other upgraded connection. Long, because they are quiet by
    nature; an hour without a byte in either direction is a lost peer."""

    per_try: Wait | None = None
    """Longest wait for the head of one attempt's response, the connection included. Then it is
    tried again as far as `retry` allows. By default only the others count."""

    total: Wait | None = None
    """The whole exchange with all its attempts, from the first byte of the request to the last of
    the response. Not set, because a large download or an event stream may rightly last for
    hours."""

    deadline: Flag = True
    """Tell the service in `x-headgate-deadline` how many milliseconds are left, where `total` or
    a deadline that came with the request says so, so that nobody works for a caller that has gone.
    One that comes in (there, or in `grpc-timeout`) is believed from everybody, as it can only
    shorten what is allowed here; running out of it says nothing about the instance."""


_PLUGIN: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def _plugin(value: object) -> str:
    name = text_of(value)
    if not _PLUGIN.fullmatch(name):
        raise refuse("does not name a class; write package.module:ClassName")
    return name


class PluginSpec(Spec):
    """A filter of your own: a Python class, loaded when the configuration is."""

    use: Annotated[
        str,
        PlainValidator(_plugin),
        Words("class"),
        WithJsonSchema(
            {
                "type": "string",
                "pattern": r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
                "examples": ["shop.filters:Stamp"],
            }
        ),
    ]
    """The class, as `package.module:ClassName`. Modules are found on the Python path and beside
    the configuration file."""

    options: dict[str, Any] = Field(default_factory=dict)
    """Handed to the class and checked against its `Options` model."""

    name: Text | None = None
    """What logs and metrics call it. By default the class name."""


Timeout = Annotated[
    TimeoutSpec,
    Shorthand(
        lambda value: value if isinstance(value, (dict, TimeoutSpec)) else {"first_byte": value},
        {"type": ["string", "number"], "examples": ["5s"]},
        "or a duration, which is `first_byte`",
    ),
]
Plugin = Annotated[
    PluginSpec,
    Shorthand(
        lambda value: {"use": value} if isinstance(value, str) else value,
        {"type": "string", "examples": ["shop.filters:Stamp"]},
        "or text, which is `use`",
    ),
]


class PolicyFields(Spec):
    """Policies. Each may stand at the top of the file, on a service or on a route; the nearest
    one wins whole, so a route that says `timeout` gets nothing from the service's `timeout`.
    """

    addresses: Addresses | None = None
    """Client addresses that may or may not come in."""

    bots: Bots | None = None
    """Clients that are programs, and what becomes of them. Off unless said."""

    cors: Cors | None = None
    """Which pages of other origins may call. Off unless said: browsers then refuse them."""

    allow: Allow | None = None
    """What it takes to be let through, once it is known who asks. By default anybody may."""

    csrf: Csrf | None = None
    """Refuse what another site made a browser send. Off unless said."""

    injection: Injection | None = None
    """Refuse what carries an attack. Off unless said; `injection: detect` only tells of it."""

    validation: Validation | None = None
    """Hold requests against a JSON Schema or an OpenAPI document. Off unless said."""

    headers: HeadersSpec | None = None
    """Edits to request and response headers."""

    secure_headers: SecureHeaders | None = None
    """Response headers that make browsers careful. Off unless said; `secure_headers: true` is a
    good start."""

    compress: Annotated[CompressSpec | Literal[False], OrFalse()] | None = None
    """Compression of responses. Off unless said: `compress: true` is a good start."""

    cache: CachePolicy | None = None
    """Keeping responses, and answering with them. Off unless said: `cache: true` is what the
    standard says, `cache: 60s` keeps for a minute what says nothing of it."""

    timeout: Timeout | None = None
    """How long to wait for the service."""

    retry: Retry | None = None
    """Trying again what failed. Off unless said."""

    hedge: Hedge | None = None
    """Asking a second instance when the first is slow. Off unless said."""

    limit: Limits | None = None
    """How many requests a client may make; one or a list, of which all must hold. `false` switches
    off what an outer level says."""

    concurrency: Concurrency | None = None
    """How many requests may be under way at once. Off unless said."""

    importance: Importance | None = None
    """What is turned away first when there is too much. `normal` unless said."""

    fallback: Fallback | None = None
    """What is answered in place of a failure. Off unless said."""

    body_limit: Size | None = None
    """The largest request body, checked before anything else reads it; more is answered with 413.
    By default what `limits.body` says, which is 10MB. `0` forbids bodies."""

    plugins: tuple[Plugin, ...] | None = None
    """Filters of your own, in the order in which they see the request; they see the response in
    reverse. An empty list switches off those of an outer level."""


class ServicePolicyFields(Spec):
    """Policies of a service as a whole. Each may stand at the top of the file, where it holds for
    every service, or on a service, where it then counts whole.
    """

    balance: Balance | None = None
    """How a request's instance is chosen. By default `round_robin`: in turn, by weight."""

    affinity: Affinity | None = None
    """Brings a client back to the same instance, by a cookie. Off unless said."""

    health: Health | None = None
    """Checks that ask each instance whether it is well. Off unless said, as a path is needed."""

    outlier: Outlier | None = None
    """Takes out an instance that does worse than it should. Off unless said."""

    breaker: Breaker | None = None
    """Stops asking a service that fails. Off unless said."""
