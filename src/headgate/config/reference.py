"""The reference of the file, as Markdown, from the docstrings of the models.

    python -m headgate.config.reference > docs/reference/config.md

One section a model in the order in which the file nests them, with a table of its fields. The
policies, which stand at three levels, have one section that the three refer to. Nothing is
written here that a docstring could say, except the examples: they are kept beside each other so
that a test can load them all.
"""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from headgate.config.fields import Unit, Words
from headgate.config.forms import OrFalse, OrText, Shorthand
from headgate.config.model import Config
from headgate.config.policies import PolicyFields, ServicePolicyFields
from headgate.config.schema import default_text
from headgate.config.walk import metadata_of, models_under

__all__ = ["EXAMPLES", "page"]

_INTRODUCTION: Final = """\
# The configuration file

The file is YAML. This page lists everything that can stand in it; `headgate schema` gives the
same to an editor, and `headgate check FILE` says what is wrong with a file, all at once.

## How values are written

| | forms |
|---|---|
| duration | `250ms`, `30s`, `5min`, `1h`, `7d`, `1h30min`; a bare number is seconds |
| size | `512B`, `1KB` (1024 bytes), `10MB`, `2GB`; a bare number is bytes |
| rate | `10/s`, `1000/15min`, `5/h` |
| percentage | `50%`, or a share between 0 and 1 such as `0.5` |
| true or false | `true`, `false`; `yes`, `no`, `on` and `off` are understood as well |

Text needs quotes only where YAML would read it otherwise: when it starts with one of
`` @ ` % * & ! | > `` or a bracket, when it has `: ` or ` #` in it, and in `{...}` when it has
braces, as in `{path: "/users/{id}"}`. Words such as `no` and `off`, and numbers such as `0600`
and `1.10`, are kept as they are written. A key with nothing after it counts as not said.

**References.** `${env:NAME}` is the environment variable, `${env:NAME:-default}` gives it a
default for when it is not set or empty, and `${file:PATH}` is what the file holds, without its
last line break. They may stand anywhere in a value, never in a key; `$${` writes a plain `${`.
What they bring in is never printed. A `PATH`, and every other file name, is relative to the file
it is written in.

**Several files.** `include:` names more files, or patterns such as `routes/*.yaml`, relative to
the including one; a directory in place of the file takes every `*.yaml` in it, in alphabetical
order. Lists are joined, in the order of the files; mappings are merged by key; anything said
twice is a fault. A service is said in one place.

**Anchors.** `&name`, `*name` and `<<: *name` work as in all YAML. Keys that nobody uses are
faults, so anchors stand on the first thing that needs them.
"""

_PLACES_MAX: Final = 6
_BASES: Final[dict[type[BaseModel], str]] = {
    PolicyFields: "Policies",
    ServicePolicyFields: "Policies of services",
}

_PLAIN_WORDS: Final[dict[Any, str]] = {
    bool: "true or false",
    int: "whole number",
    Any: "any value",
}

EXAMPLES: Final[dict[str, str]] = {
    "Config": """\
listeners: [0.0.0.0:8080]
services:
  users: http://127.0.0.1:3001
  products: [http://127.0.0.1:3002, http://127.0.0.1:3003]
compress: true
routes:
  - match: {path: /api/users/}
    to: users
  - match: {path: /api/products/}
    to: products
    timeout: 2s
""",
    "ListenerSpec": """\
listeners:
  - 0.0.0.0:8080
  - bind: 0.0.0.0:8443
    tls: local
  - bind: unix:/run/headgate/http.sock
    mode: 660
""",
    "ServiceSpec": """\
services:
  users:
    instances:
      - http://127.0.0.1:3001
      - {url: http://127.0.0.1:3011, weight: 2}
    timeout: {first_byte: 5s, idle: 30s}
    pool: {connections: 100}
  search:
    instances: https://search.internal
    host: instance
    headers:
      request:
        set: {authorization: "Bearer ${env:SEARCH_TOKEN:-none}"}
routes:
  - {match: {path: /users/}, to: users}
  - {match: {path: /search/}, to: search}
""",
    "RouteSpec": """\
services:
  users: http://127.0.0.1:3001
routes:
  - match: {path: /api/users/, methods: [GET, PUT]}
    to: users
    strip: true
  - match: {path: "/u/{id:int}", host: "*.example.org"}
    to: users
    rewrite: /api/users/{id}
  - match: {path: /old/}
    redirect: https://example.org{path}{query}
  - match: {exact: /ping}
    respond: {body: "pong\\n"}
""",
    "MatchSpec": """\
services:
  next: http://127.0.0.1:3002
routes:
  - match:
      host: [shop.example.org, www.example.org]
      path: /api/
      headers: {x-beta: "1"}
      query: {version: "~^v[0-9]+$"}
      cookies: {session: {present: true}}
      client_ip: 10.0.0.0/8
    to: next
""",
    "HeadersSpec": """\
headers:
  request:
    remove: x-internal
    set: {x-from: gateway}
  response:
    rename: {server: x-server}
    add: {cache-control: no-transform}
""",
    "CompressSpec": """\
compress:
  algorithms: [br, gzip]
  min_size: 2KB
""",
    "CacheSpec": """\
cache: true
services: {shop: http://127.0.0.1:3001}
routes:
  - match: {path: "/products/{id}"}
    to: shop
    cache:
      ttl: 5min
      ttl_by_status: {404: 10s}
      stale_while_revalidate: 30s
      stale_if_error: 1h
      tags: "product:{id}"
  - {match: {path: /basket/}, to: shop, cache: false}
""",
    "CacheKeySpec": """\
auth: {jwt: {issuer: https://login.example, audience: shop, keys: discover}}
services: {shop: http://127.0.0.1:3001}
routes:
  - match: {path: /list/}
    to: shop
    cache: {ttl: 1min, key: {query: {without: [utm_*, fbclid]}, headers: x-country}}
  - match: {path: /prices/}
    to: shop
    auth: jwt
    cache: {ttl: 1min, key: {query: [page, size], claims: tenant}}
""",
    "CacheStoreSpec": """\
cache: true
cache_store: {memory: 256MB, disk: {path: /var/cache/headgate, size: 20GB}}
""",
    "TimeoutSpec": """\
timeout: {connect: 1s, first_byte: 10s, total: 1min}
""",
    "BalanceSpec": """\
services:
  users:
    instances:
      - {url: http://10.0.1.1:3001, zone: north, weight: 2}
      - {url: http://10.0.1.2:3001, zone: north}
      - {url: http://10.9.1.1:3001, zone: south, priority: 1}   # a backup
    balance: {by: peak_ewma, slow_start: 30s}
  carts:
    instances: [http://10.0.2.1:3002, http://10.0.2.2:3002]
    balance: {by: consistent_hash, key: "header:x-session"}
zone: north
routes:
  - {match: {path: /users/}, to: users}
  - {match: {path: /carts/}, to: carts}
""",
    "AffinitySpec": """\
services:
  shop:
    instances: [http://127.0.0.1:3001, http://127.0.0.1:3002]
    affinity: {cookie: shop-instance, ttl: 1h}
routes: [{to: shop}]
""",
    "HealthSpec": """\
services:
  users: {instances: [http://127.0.0.1:3001, http://127.0.0.1:3011], health: /health/ready}
  search:
    instances: [http://127.0.0.1:3002, http://127.0.0.1:3012]
    health: {path: /status, every: 10s, unhealthy_every: 2s, status: 200, body: '"ok"'}
  greeter: {instances: http://127.0.0.1:50051, http: "2", health: {kind: grpc}}
routes: [{to: [users, search, greeter]}]
""",
    "OutlierSpec": """\
outlier: {errors: 5, failure_rate: 30%, interval: 10s, max_ejected: 30%}
""",
    "BreakerSpec": """\
breaker: {failure_rate: 50%, window: 20 calls, reset_after: 60s}
services:
  search:
    instances: http://127.0.0.1:3002
    breaker: {window: 30s, minimum_calls: 50, slow: 2s, slow_rate: 80%, failures: {status: 5xx}}
  legacy: {instances: http://127.0.0.1:3003, breaker: false}
routes: [{to: [search, legacy]}]
""",
    "RetrySpec": """\
retry: {attempts: 3, budget: 20%}
services: {orders: [http://127.0.0.1:3001, http://127.0.0.1:3011]}
routes:
  - {match: {path: /orders/}, to: orders}
  - match: {path: /orders/search, methods: POST}
    to: orders
    retry: {attempts: 2, methods: [POST], when: {status: 503, errors: [connect, reset]}}
    timeout: {per_try: 500ms, total: 2s}
""",
    "HedgeSpec": """\
services:
  search:
    instances: [http://127.0.0.1:3001, http://127.0.0.1:3011]
    retry: {attempts: 2, budget: 10%}
    hedge: {after: p95}
routes: [{to: search}]
""",
    "LimitSpec": """\
limit: 1000/15min
services: {api: http://127.0.0.1:3001}
routes:
  - {match: {path: /api/}, to: api}
  - match: {path: /api/auth/}
    to: api
    limit:
      - {rate: 50/15min, by: ip}
      - {rate: 5/s, by: "{ip} {header.x-device}", burst: 10, name: device}
  - match: {path: /api/reports/}
    to: api
    limit:
      - {rate: 100/h, cost: {units: 1, header: x-cost}, refund: 5xx, headers: both}
      - {concurrency: 2, by: ip, name: at-once}
""",
    "ConcurrencySpec": """\
services:
  reports: {instances: http://127.0.0.1:3001, concurrency: {limit: 20, queue: 50}}
  search: {instances: http://127.0.0.1:3002, concurrency: {adaptive: gradient, most: 200}}
routes: [{to: [reports, search]}]
""",
    "ImportanceSpec": """\
shed: true
services: {api: http://127.0.0.1:3001}
routes:
  - {match: {path: /pay/}, to: api, importance: critical}
  - {match: {path: /feed/}, to: api, importance: low}
""",
    "FallbackSpec": """\
services: {tips: http://127.0.0.1:3001, tips-static: http://127.0.0.1:3002}
routes:
  - match: {path: /tips/}
    to: tips
    fallback: {service: tips-static}
  - match: {path: /banner}
    to: tips
    fallback: {when: [open, failed, timeout, 5xx], respond: {body: "[]", type: application/json}}
""",
    "DegradeSpec": """\
shed: true
degrade:
  flags: {recommendations: on, new-search: 10%}
  levels:
    - {name: normal}
    - {name: lean, measures: [service, static], flags_off: recommendations, when: {open: tips}}
    - {name: survival, measures: [static, shed], flags_off: recommendations, when: {shedding: true}}
services: {tips: {instances: http://127.0.0.1:3001, breaker: true}}
routes:
  - match: {path: /tips/}
    to: tips
    flag: recommendations
    fallback: {respond: {body: "[]", type: application/json}}
  - {match: {path: /search2/}, to: tips, flag: new-search}
""",
    "SplitSpec": """\
services:
  products: http://127.0.0.1:3001
  products-next: http://127.0.0.1:3002
routes:
  - match: {path: /products/}
    to: {products: 95%, products-next: 5%}
    split: {sticky: cookie, header: {x-canary: {"1": products-next}}}
""",
    "MirrorSpec": """\
services: {products: http://127.0.0.1:3001, products-next: http://127.0.0.1:3002}
routes:
  - match: {path: /products/, methods: GET}
    to: products
    mirror: {to: products-next, share: 10%}
""",
    "FaultSpec": """\
services: {products: http://127.0.0.1:3001}
routes:
  - match: {path: /products/}
    to: products
    fault: {delay: 2s, delay_share: 10%, abort: 503, abort_share: 1%, header: {x-chaos: "1"}}
""",
    "PluginSpec": """\
plugins:
  - use: shop.filters:Stamp
    options: {text: hello}
""",
    "AuthSpec": """\
auth:
  default: jwt
  jwt:
    - {issuer: https://login.example, audience: shop, keys: discover}
    - {name: partners, issuer: https://partners.example, audience: shop, keys: discover}
services: {orders: http://127.0.0.1:3001}
routes:
  - {match: {path: /orders/}, to: orders, auth: [jwt, partners], allow: {roles: customer}}
  - {match: {path: /catalogue/}, to: orders, auth: {methods: jwt, anonymous: true}}
  - {match: {path: /health}, to: orders, auth: false}
""",
    "JwtSpec": """\
auth:
  jwt:
    issuer: https://login.example/
    audience: shop
    keys: discover
    require: {email_verified: "true"}
    claims: {roles: resource_access.shop.roles}
""",
    "LoginSpec": """\
auth:
  login:
    issuer: https://id.example/realms/shop
    client_id: shop
    client_secret: ${env:LOGIN_SECRET:-change-me}
    secret: ${env:COOKIE_SECRET:-a text of at least 32 characters, from outside}
    scopes: [openid, email, offline_access]
    claims_from: {roles: realm_access.roles}
""",
    "SignatureSpec": """\
auth:
  signature:
    keys:
      partner-a: {secrets: "${env:PARTNER_A:-a secret of at least 32 bytes}", roles: partner}
""",
    "CertificateAuthSpec": """\
auth:
  certificate:
    subject: ["{uri}", "{cn}"]
    match: [{uri: "spiffe://prod/*", roles: internal}]
""",
    "IntrospectionSpec": """\
auth:
  introspection:
    url: https://issuer.example/introspect
    client_id: gateway
    client_secret: ${env:INTROSPECTION_SECRET:-change-me}
""",
    "AllowSpec": """\
auth: {default: jwt, jwt: {issuer: https://login.example, audience: shop, keys: discover}}
services: {users: http://127.0.0.1:3001}
routes:
  - match: {path: "/users/{id}"}
    to: users
    allow: [{params: {id: subject}}, admin]
  - match: {path: /reports/}
    to: users
    allow: {scopes: reports:read, times: mon-fri 08:00-18:00 Europe/Berlin, none: suspended}
""",
    "CorsSpec": """\
cors:
  origins: ["https://app.example.org", "https://*.preview.example.org"]
  methods: [GET, PUT]
  credentials: true
""",
    "CsrfSpec": """\
csrf: {trusted: "https://app.example.org"}
""",
    "SecureHeadersSpec": """\
secure_headers: {csp: "default-src 'self'", frame: deny, permissions: {camera: none}}
""",
    "AddressesSpec": """\
addresses: {allow: [10.0.0.0/8, 192.0.2.0/24], deny: 192.0.2.66}
""",
    "BansSpec": """\
bans:
  when: [{kind: status_4xx, more_than: 100, within: 1min, ban: 10min}]
  exempt: [198.51.100.0/24]
""",
    "BotsSpec": """\
bots: {deny: [scraper, ai], tag: x-bot}
""",
    "InjectionSpec": """\
injection: {mode: block, exclude: [json.post.html, query.filter]}
""",
    "AuditSpec": """\
audit: {keep: 400d, anchor: [stderr]}
""",
    "RedactionSpec": """\
redaction: {emails: mask, patterns: [{pattern: "BADGE-[0-9]{6}", name: badge}]}
""",
    "LimitsSpec": """\
limits:
  body: 1MB
  connections_per_ip: 100
""",
    "AdminSpec": """\
admin:
  bind: 127.0.0.1:9900
  token: ${env:ADMIN_TOKEN:-change-me}
""",
    "AccessLogSpec": """\
access_log:
  path: logs/access.log
  redact: [authorization, cookie, set-cookie, token]
""",
    "ErrorPageSpec": """\
error_pages:
  404: {body: "<h1>Not here</h1>"}
  5xx: {body: "<h1>Sorry</h1><p>{request_id}</p>"}
""",
}
"""One a section. Each holds with a listener added, which the tests see to."""


def page() -> str:
    """The whole page."""
    where = _places()
    families = [models_under(base) for base in _BASES]
    policies = {model: None for family in families for model in family}
    others = [model for model in models_under(Config) if model not in (Config, *policies)]
    models: list[type[BaseModel]] = [Config, *others, *policies]
    links = ", ".join(f"[{title_of(model)}](#{anchor_of(model)})" for model in models)
    sections = [_section(model, where) for model in models]
    return "\n".join([_INTRODUCTION, f"Sections: {links}.\n", *sections]).rstrip() + "\n"


def title_of(model: type[BaseModel]) -> str:
    """Name a section: that of AccessLogSpec is "Access log"."""
    if model is Config:
        return "Top level"
    if model in _BASES:
        return _BASES[model]
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", model.__name__.removesuffix("Spec"))
    words = words.replace("Tls", "TLS").replace("Http2", "HTTP/2").replace("Dns", "DNS")
    first, *rest = words.split(" ")
    return " ".join([first, *(word if word.isupper() else word.lower() for word in rest)])


def anchor_of(model: type[BaseModel]) -> str:
    """As GitHub makes it from the heading."""
    return re.sub(r"[^a-z0-9 -]", "", title_of(model).lower()).replace(" ", "-")


def _places() -> dict[type[BaseModel], list[str]]:
    """Where each model stands in the file, as ``routes[].match``."""
    found: dict[type[BaseModel], list[str]] = {}

    def visit(annotation: Any, path: str, above: tuple[type[BaseModel], ...]) -> None:
        origin = get_origin(annotation)
        if isinstance(annotation, type) and origin is None and issubclass(annotation, BaseModel):
            if annotation in above:
                return
            places = found.setdefault(annotation, [])
            if path not in places:
                places.append(path)
            for name, field in annotation.model_fields.items():
                visit(field.annotation, f"{path}.{name}" if path else name, (*above, annotation))
        elif origin is tuple:
            visit(get_args(annotation)[0], f"{path}[]", above)
        elif origin is dict:
            visit(get_args(annotation)[1], f"{path}.*", above)
        else:
            for argument in get_args(annotation):
                visit(argument, path, above)

    visit(Config, "", ())
    return found


def _section(model: type[BaseModel], where: dict[type[BaseModel], list[str]]) -> str:
    lines = [f"## {title_of(model)}", ""]
    places = [place for place in where.get(model, []) if place]
    if places:
        named = ", ".join(f"`{place}`" for place in places[:_PLACES_MAX])
        more = f" and {len(places) - _PLACES_MAX} more places" if len(places) > _PLACES_MAX else ""
        lines += [f"At {named}{more}.", ""]
    doc = "\n\n".join(
        " ".join(part.split()) for part in (model.__doc__ or "").strip().split("\n\n")
    )
    lines += [doc, "", "| field | type | default | |", "|---|---|---|---|"]
    lines += [_row(name, field) for name, field in _own_fields(model)]
    for base, title in _BASES.items():
        if model is not base and issubclass(model, base):
            names = ", ".join(f"`{name}`" for name in base.model_fields)
            lines.append(f"| {names} | | | see [{title}](#{anchor_of(base)}) |")
    example = EXAMPLES.get(model.__name__)
    if example:
        lines += ["", "```yaml", example.rstrip(), "```"]
    return "\n".join([*lines, ""])


def _own_fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    inherited = {
        name
        for base in _BASES
        if model is not base and issubclass(model, base)
        for name in base.model_fields
    }
    for name, field in model.model_fields.items():
        if name not in inherited:
            yield name, field


def _row(name: str, field: FieldInfo) -> str:
    text = " ".join((field.description or "").split())
    cells = [f"`{name}`", type_words(field), _default(field), text]
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    default = default_text(field)
    if default in (None, [], {}, ""):
        return ""
    if isinstance(default, list):
        return ", ".join(f"`{item}`" for item in default)
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def type_words(field: FieldInfo) -> str:
    """A field's type in a few words, with a link where it has a section of its own."""
    return _words(field.annotation, metadata_of(field))


def _words(annotation: Any, metadata: tuple[Any, ...]) -> str:
    short = next((mark.words for mark in metadata if isinstance(mark, Shorthand)), "")
    for mark in metadata:
        if isinstance(mark, Unit):
            return "percentage" if mark.name == "percent" else mark.name
        if isinstance(mark, Words):
            return mark.text
        if isinstance(mark, OrFalse):
            switch = "`true` or `false`"
            if switch not in short:
                short = f"{short}, {switch}" if short else f"or {switch}"
        if isinstance(mark, OrText):
            return "service, or a mapping or list of several"
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _words(inner, (*metadata, *more))
    if origin is Union or origin is types.UnionType:
        members = [
            member
            for member in get_args(annotation)
            if member is not type(None) and get_origin(member) is not Literal
        ]
        return _words(members[0], metadata)
    long = _long_words(annotation, origin, short)
    return f"{long}, {short}" if short.startswith("or ") else long


def _long_words(annotation: Any, origin: Any, short: str) -> str:
    if origin is Literal:
        return " or ".join(f"`{word}`" for word in get_args(annotation))
    if origin is tuple:
        item = _words(get_args(annotation)[0], ())
        return f"{item}, or a list of them" if short.startswith("one") else f"list of {item}"
    if origin is dict:
        key, value = get_args(annotation)
        return f"mapping of {_words(key, ())} to {_words(value, ())}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{title_of(annotation)}](#{anchor_of(annotation)})"
    return _PLAIN_WORDS.get(annotation, "text")


if __name__ == "__main__":
    sys.stdout.write(page())
