"""Where requests go: services and the instances that are one."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from headgate.config.authenticating import AuthUse
from headgate.config.described import Described
from headgate.config.discovery import Discover
from headgate.config.fields import (
    Count,
    FilePath,
    Flag,
    Positive,
    Spec,
    Text,
    Wait,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import Shorthand
from headgate.config.policies import PolicyFields, ServicePolicyFields
from headgate.config.promises import SloPromise
from headgate.wire.instance_url import InstanceUrl, parse_instance_url

__all__ = ["Endpoint", "InstanceSpec", "PoolSpec", "ServiceSpec", "UpstreamTlsSpec", "parse_url"]

Endpoint = InstanceUrl
parse_url = parse_instance_url


def _url(value: object) -> str:
    text = text_of(value).strip()
    try:
        parse_url(text)
    except ValueError as error:
        raise refuse(str(error)) from None
    return text


class InstanceSpec(Spec):
    """One running copy of a service."""

    url: Annotated[
        str,
        PlainValidator(_url),
        Words("URL"),
        WithJsonSchema(
            {
                "type": "string",
                "pattern": "^(https?://|http\\+unix:///|unix:/)",
                "examples": ["http://127.0.0.1:3001", "https://users.internal", "unix:/run/u.sock"],
            }
        ),
    ]
    """`http://host:port`, `https://host:port` or `unix:/path`. A name that resolves to several
    addresses is tried address by address (Happy Eyeballs) and looked up again by its TTL."""

    weight: Annotated[Count, Field(le=1000)] = 1
    """Its share of requests beside the others. 0 keeps it in the file but out of work."""

    priority: Annotated[Count, Field(le=100)] = 0
    """0 is used first. Instances of a higher number are backups: they take over, in part and then
    wholly, when too few of the lower ones are well (see `spill` of `balance`)."""

    zone: Text = ""
    """Where it runs, as a name of your own. Instances in the gateway's own `zone` are
    preferred."""

    @property
    def endpoint(self) -> Endpoint:
        """``url`` in its parts."""
        return parse_url(self.url)


class PoolSpec(Spec):
    """Connections to each instance, counted for one worker."""

    connections: Positive = 256
    """Most connections open at once. HTTP/2 needs one for many requests."""

    idle: Count = 64
    """Most connections kept open with nothing to do."""

    idle_timeout: Wait = 55.0
    """How long an idle connection is kept. Shorter than the 60s or 75s after which most servers
    close it, so that we seldom write into a closed one."""

    queue: Count = 1024
    """Requests that may wait for a connection. More are answered with 503 at once."""

    queue_timeout: Wait = 5.0
    """How long a request waits for a connection. Then it is answered with 503."""


class UpstreamTlsSpec(Spec):
    """TLS towards instances whose URL is `https://`."""

    verify: Flag = True
    """Check the certificate and the name in it. Switching it off gives the connection to whoever
    answers."""

    ca_file: FilePath | None = None
    """Authorities to trust, PEM. By default those of the system."""

    server_name: Text | None = None
    """The name to ask for (SNI) and to check. By default the host in the URL."""

    cert_file: FilePath | None = None
    """Certificate to show to the instance (mutual TLS), PEM."""

    key_file: FilePath | None = None
    """Its private key, PEM."""

    identity: Annotated[Literal["mesh"], BeforeValidator(text_of)] | None = None
    """`mesh`: show the gateway's own identity, and take none but that of the service for an
    answer, as `mesh` at the top of the file says. It stands for all of the above."""

    peer: Text | None = None
    """With `identity: mesh`, whose identity the instances have. By default the service's name."""


Instance = Annotated[
    InstanceSpec,
    Shorthand(
        lambda value: {"url": value} if isinstance(value, str) else value,
        {"type": "string", "examples": ["http://127.0.0.1:3001"]},
        "or text, which is `url`",
    ),
]
InstanceList = Annotated[
    tuple[Instance, ...],
    Shorthand(
        lambda value: (value,) if isinstance(value, (str, dict)) else value,
        {"type": "string"},
        "one or a list",
    ),
]

_LITERAL_HOST: Final = re.compile(
    r"[A-Za-z0-9_.\-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?"
)


def host_text(value: object) -> str:
    """A literal host to send, with or without a port."""
    text = text_of(value).strip()
    if not _LITERAL_HOST.fullmatch(text):
        raise refuse("is not a host; write a name with or without :port")
    return text


class ServiceSpec(PolicyFields, ServicePolicyFields):
    """A service: one or more instances that answer alike."""

    instances: InstanceList = ()
    """Its running copies. At least one, unless `discover` finds them."""

    discover: Discover | None = None
    """Where instances are found that do not stand here: `registry`, DNS or a directory. They come
    and go without a reload; while there is none, requests are answered with 503."""

    http: Annotated[Literal["auto", "1.1", "2"], BeforeValidator(text_of)] = "auto"
    """The protocol spoken to instances. `auto` is HTTP/1.1, which every instance speaks and which
    costs less here; gRPC needs `2`, over TLS (by ALPN) and over plain connections alike."""

    host: Annotated[
        str,
        PlainValidator(host_text),
        Words("`preserve`, `instance` or a host"),
        WithJsonSchema({"type": "string", "examples": ["preserve", "instance"]}),
    ] = "preserve"
    """The `Host` that instances see: `preserve` is the client's, `instance` the one in the URL;
    anything else is sent as it is."""

    pool: PoolSpec = PoolSpec()
    """Connections to each instance."""

    tls: UpstreamTlsSpec = UpstreamTlsSpec()
    """TLS towards `https://` instances."""

    auth: AuthUse | None = None
    """Who must say who they are, and how; the default of the service's routes."""

    slo: SloPromise | None = None
    """What is promised of this service, in short: `99.9%`, or `{availability: 99.9%, latency:
    300ms}`. `slos` can say more."""

    openapi: Described | None = None
    """Where it describes itself, for the document that the admin API makes of all services.
    Without it, what `validate` holds requests against is shown."""


Service = Annotated[
    ServiceSpec,
    Shorthand(
        lambda value: {"instances": value} if isinstance(value, (str, list)) else value,
        {"type": ["string", "array"], "examples": ["http://127.0.0.1:3001"]},
        "or a URL or a list of them, which are `instances`",
    ),
]
