"""The admin listener, as the file says it: where it is, who may do what there, and how much."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from headgate.config.fields import (
    FilePath,
    Flag,
    Positive,
    Rate,
    Spec,
    Text,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrMore, Shorthand
from headgate.config.listeners import parse_bind
from headgate.units import Rate as RateValue

__all__ = ["Admin", "AdminClientSpec", "AdminSpec", "AdminTlsSpec", "AdminTokenSpec", "problems"]

Found = tuple[tuple[str | int, ...], str, str, bool]
_HASH: Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})", re.IGNORECASE)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_ORIGIN: Final = re.compile(r"https?://(?:\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?")
_SHORTEST_TOKEN: Final = 16

RoleName = Annotated[
    Literal["viewer", "operator", "admin", "ingest", "service", "purge", "revoke"],
    BeforeValidator(text_of),
]


def _admin_bind(value: object) -> str:
    if value is False or value == "off":
        return "off"
    text = text_of(value).strip()
    try:
        parse_bind(text)
    except ValueError as error:
        raise refuse(str(error)) from None
    return text


def _name(value: object) -> str:
    text = text_of(value)
    if not _NAME.fullmatch(text):
        raise refuse("is no name; write up to 64 letters, digits and ._@-")
    return text


def _hash(value: object) -> str:
    found = _HASH.fullmatch(text_of(value).strip())
    if not found:
        raise refuse("is no SHA-256 in hex; `headgate tokens hash` makes one")
    return found[1].lower()


def _origin(value: object) -> str:
    text = text_of(value).strip().lower().removesuffix("/")
    if not _ORIGIN.fullmatch(text):
        raise refuse("is no origin; write https://console.example or http://127.0.0.1:8080")
    return text


def _moment(value: object) -> float:
    text = text_of(value).strip()
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise refuse("is no time; write 2027-01-31 or 2027-01-31T12:00:00Z") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


class AdminTokenSpec(Spec):
    """A token of the admin API. Exactly one of `token`, `hash` and `token_hash_file`."""

    name: Annotated[
        str,
        PlainValidator(_name),
        Words("name"),
        WithJsonSchema({"type": "string", "pattern": f"^{_NAME.pattern}$"}),
    ]
    """What the audit log calls whoever shows it."""

    role: RoleName = "viewer"
    """`viewer` reads; `operator` also takes instances out, opens breakers, reloads; `admin` also
    changes tokens and the file, and ends the gateway. `ingest` is for services: it sends traces,
    logs and markers and may do nothing else. So is `service`: it registers, watches the registry,
    and takes part in the mesh. `purge` has caches forget and hears what others have had forgotten;
    `revoke` ends tokens of users before their time."""

    token: Text | None = None
    """The token itself, best as `${env:NAME}` or `${file:PATH}`."""

    hash: (
        Annotated[
            str,
            PlainValidator(_hash),
            Words("SHA-256 in hex"),
            WithJsonSchema({"type": "string", "pattern": "^(sha256:)?[0-9a-fA-F]{64}$"}),
        ]
        | None
    ) = None
    """The SHA-256 of a long random token, in hex, as `headgate tokens hash` prints it."""

    token_hash_file: FilePath | None = None
    """A file with such a hash on its first line. Read again when it changes."""

    services: Annotated[tuple[Text, ...], OneOrMore] = ()
    """With `role: service`: the services that it may register and report for. By default all."""

    expires: (
        Annotated[
            float,
            PlainValidator(_moment),
            Words("time"),
            WithJsonSchema({"type": "string", "examples": ["2027-01-31"]}),
        ]
        | None
    ) = None
    """From when on it is refused. By default never."""


class AdminClientSpec(Spec):
    """A client certificate of the admin API, by one of `subject` and `san`; `*` is any text."""

    name: Text | None = None
    """What the audit log calls it. By default what stands in the certificate."""

    subject: Text | None = None
    """The common name, or the whole subject as `CN=ops,O=Example`."""

    san: Text | None = None
    """One of its alternative names: DNS name, URI (such as a SPIFFE id) or e-mail address."""

    role: RoleName = "viewer"
    """What it may do, as of a token."""

    services: Annotated[tuple[Text, ...], OneOrMore] = ()
    """With `role: service`: the services that it may register and report for. By default all."""


class AdminTlsSpec(Spec):
    """TLS on the admin listener. `certificate: local`, or the pair `cert_file` and `key_file`."""

    certificate: Annotated[Literal["local"], BeforeValidator(text_of)] | None = None
    """`local`: made on the spot by Headgate's own authority in the state directory."""

    cert_file: FilePath | None = None
    """The certificate followed by its intermediates, PEM. A renewed file is taken up at once."""

    key_file: FilePath | None = None
    """Its private key, PEM."""

    min_version: Annotated[Literal["1.2", "1.3"], BeforeValidator(text_of)] = "1.2"
    """The oldest TLS version spoken."""

    client_ca_file: FilePath | None = None
    """Authorities (PEM) whose certificates clients may show."""

    client_certificate: Annotated[Literal["require", "ask"], BeforeValidator(text_of)] = "require"
    """With `client_ca_file`: whether a client without a certificate is turned away in the
    handshake (`require`) or may show a token instead (`ask`)."""

    clients: tuple[AdminClientSpec, ...] = ()
    """Which role a certificate gives: the first entry that fits. One that fits none must show a
    token as well."""


def _tls(value: object) -> object:
    if value is True or (isinstance(value, str) and value.strip() == "local"):
        return {"certificate": "local"}
    return value


class AdminSpec(Spec):
    """The admin listener: metrics, health, statistics and commands such as reload."""

    bind: Annotated[
        str,
        PlainValidator(_admin_bind),
        Words("address or `off`"),
        WithJsonSchema(
            {
                "type": "string",
                "pattern": r"^(off|unix:/.+|.+:[0-9]{1,5})$",
                "examples": ["127.0.0.1:9900", "unix:/run/headgate/admin.sock", "off"],
            }
        ),
    ] = "127.0.0.1:9900"
    """`host:port`, `unix:/path` or `off`. On loopback by default, because whoever reaches it with
    the token commands the gateway."""

    token: Text | None = None
    """Asked for as `Authorization: Bearer ...`. By default one is made at the first start and
    kept in `admin-token` in the state directory, readable by its owner only. Write it as
    `${env:NAME}` or `${file:PATH}` and not as it is. Its role is `admin`."""

    tokens: tuple[AdminTokenSpec, ...] = ()
    """More tokens, each with a name and a role. `headgate tokens make` makes others at run time."""

    tls: (
        Annotated[
            AdminTlsSpec,
            Shorthand(_tls, {"enum": ["local", True]}, "or `local`, which is `certificate: local`"),
        ]
        | None
    ) = None
    """TLS, and on demand client certificates. By default plain text, which is right on loopback."""

    origins: Annotated[
        tuple[
            Annotated[
                str,
                PlainValidator(_origin),
                Words("origin"),
                WithJsonSchema({"type": "string", "examples": ["https://console.example"]}),
            ],
            ...,
        ],
        OneOrMore,
    ] = ()
    """Web pages of other origins that may use this API from a browser. By default none may."""

    rate: Rate = RateValue(200, 1.0)
    """Requests of one token, and of one address without one. Beyond it: 429 with `Retry-After`.
    The socket in the state directory is not counted."""

    failures: Rate = RateValue(60, 60.0)
    """Wrong tokens from one address. Beyond it the address is answered 429 without a look at what
    it shows, also if that is right; the socket in the state directory remains."""

    config_writes: Flag = False
    """Whether `PUT /api/config` and rollbacks may write the file that this gateway runs."""

    config_history: Annotated[Positive, Field(le=10_000)] = 100
    """How many versions of the configuration are kept in the state directory."""


_NOT_OF_SERVICES: Final = "means nothing for a role that speaks for no service"


def problems(admin: AdminSpec) -> Iterator[Found]:
    """What no single field can tell: (path, what, hint, whether it is a warning only)."""
    names: set[str] = {"admin"}
    for index, token in enumerate(admin.tokens):
        loc = ("tokens", index)
        if token.name in names:
            hint = "the audit log could not tell the two apart"
            yield (*loc, "name"), "{value} is taken by another token", hint, False
        names.add(token.name)
        said = [one for one in (token.token, token.hash, token.token_hash_file) if one is not None]
        if len(said) != 1:
            hint = "the hash is best: the file then holds no secret"
            yield loc, 'needs exactly one of "token", "hash" and "token_hash_file"', hint, False
        elif token.token is not None and len(token.token.strip()) < _SHORTEST_TOKEN:
            hint = "`headgate tokens make` makes one that nobody guesses"
            what = f"the token is shorter than {_SHORTEST_TOKEN} characters"
            yield (*loc, "token"), what, hint, True
        if token.services and token.role != "service":
            yield (*loc, "services"), _NOT_OF_SERVICES, "write role: service", False
    tls = admin.tls
    if tls is None:
        return
    if (tls.cert_file is None) != (tls.key_file is None):
        missing = "cert_file" if tls.cert_file is None else "key_file"
        yield ("tls",), f'"{missing}" is required beside the other', "", False
    elif (tls.certificate is None) == (tls.cert_file is None):
        hint = "write cert_file and key_file, or certificate: local"
        yield ("tls",), "needs exactly one certificate", hint, False
    if tls.clients and tls.client_ca_file is None:
        hint = "without it no client is asked for a certificate"
        yield ("tls", "clients"), 'has no effect without "client_ca_file"', hint, False
    for index, client in enumerate(tls.clients):
        if (client.subject is None) == (client.san is None):
            yield ("tls", "clients", index), 'needs one of "subject" and "san"', "", False
        if client.services and client.role != "service":
            place = ("tls", "clients", index, "services")
            yield place, _NOT_OF_SERVICES, "write role: service", False


Admin = Annotated[
    AdminSpec,
    Shorthand(
        lambda value: {"bind": value} if isinstance(value, str) else value,
        {"type": "string", "examples": ["127.0.0.1:9900", "off"]},
        "or text, which is `bind`",
    ),
]
