"""`discover` on a service: instances that nobody writes into the file, because they are found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from headgate.config.fields import (
    Flag,
    PathMark,
    Positive,
    Spec,
    Text,
    Wait,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import Shorthand

__all__ = ["Discover", "DiscoverDnsSpec", "DiscoverSpec", "problems"]

_LABEL: Final = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST: Final = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")
_SRV: Final = re.compile(rf"_{_LABEL}\._(tcp|udp|tls)\..+", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"[0-9.]+|.*:.*")
_URL: Final = re.compile(r"(^|/)(unix|http\+unix|https?):/")  # made absolute by now
_LEAST_EVERY_S: Final = 0.5
_WAYS: Final = "write registry, {dns: NAME} or {directory: PATH}"
Found = tuple[tuple[str | int, ...], str, str, bool]


def _name(value: object) -> str:
    name = text_of(value).strip()
    if name.startswith(("unix:", "http+unix:", "/")):
        raise refuse("is a path; a socket of this machine has no name in DNS: write instances")
    if "://" in name:
        raise refuse("is a URL; write the name alone, and port and scheme beside it")
    if _ADDRESS.fullmatch(name):
        raise refuse("is no name to look up; an address stands in instances, a port in port")
    if not _HOST.fullmatch(name.removesuffix(".")):
        raise refuse("is no name that DNS could know")
    return name.removesuffix(".").lower()


def _type(value: object) -> str:
    return text_of(value).strip().upper()


def _folder(value: object) -> str:
    path = text_of(value)
    if not path.strip() or "\0" in path:
        raise refuse("is not the name of a directory")
    return path


class DiscoverDnsSpec(Spec):
    """Names in DNS. Text, as in `dns: _http._tcp.users.internal`, is `name`."""

    name: Annotated[
        str,
        PlainValidator(_name),
        Words("name"),
        WithJsonSchema({"type": "string", "examples": ["users.internal", "_http._tcp.users.lan"]}),
    ]
    """What to look up. Every address that is found is an instance."""

    type: Annotated[Literal["A", "AAAA", "SRV"], BeforeValidator(_type)] | None = None
    """Which records to ask for. By default `SRV` for names that begin like
    `_http._tcp.`, and otherwise both `A` and `AAAA`. An `SRV` record says port, weight and
    priority as well."""

    port: Annotated[Positive, Field(le=65535)] | None = None
    """Where instances listen. `SRV` records have their own; for the others it is needed."""

    scheme: Annotated[Literal["http", "https"], BeforeValidator(text_of)] = "http"
    """How they are spoken to. With `https` the certificate is checked for the target's name of an
    `SRV` record; addresses have no name, so say `server_name` under `tls`."""

    every: Wait | None = None
    """How often to look. By default when the answer's TTL is over, within the bounds of `dns`."""

    @property
    def kind(self) -> Literal["A", "AAAA", "SRV"] | None:
        """Which records are asked for; None: `A` and `AAAA`."""
        return "SRV" if self.type is None and _SRV.fullmatch(self.name) else self.type


Dns = Annotated[
    DiscoverDnsSpec,
    Shorthand(
        lambda value: {"name": value} if isinstance(value, str) else value,
        {"type": "string", "examples": ["_http._tcp.users.internal"]},
        "or text, which is `name`",
    ),
]


class DiscoverSpec(Spec):
    """Where instances are found that the file does not name. Text, as in `discover: registry`, is
    that one way; several may stand beside each other and beside `instances`.

    What was found last is kept while nobody can be asked.
    """

    registry: Flag = False
    """Those that registered themselves under the name of this service: see `registry` at the top
    of the file. Without it, nobody gets requests by registering under this name."""

    dns: Dns | None = None
    """Those that a name in DNS leads to."""

    directory: (
        Annotated[
            str,
            PlainValidator(_folder),
            PathMark(),
            Words("directory"),
            WithJsonSchema({"type": "string", "examples": ["instances/users"]}),
        ]
        | None
    ) = None
    """Those that the files of a directory name, which is watched; relative to this file."""

    zone: Text = ""
    """The zone of instances found by `dns`, which knows of none."""

    @property
    def ways(self) -> tuple[str, ...]:
        """In words: how instances are found."""
        return tuple(
            words
            for words, is_said in (
                ("registry", self.registry),
                (f"dns {self.dns.name}" if self.dns is not None else "", self.dns is not None),
                (f"directory {self.directory}", self.directory is not None),
            )
            if is_said
        )


def _widen(value: Any) -> object:
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text == "registry":
        return {"registry": True}
    raise refuse(f"is no way to discover; {_WAYS}")


Discover = Annotated[
    DiscoverSpec,
    Shorthand(_widen, {"const": "registry"}, "or `registry`"),
]


def problems(spec: DiscoverSpec) -> Iterator[Found]:
    """What single fields cannot say about each other."""
    if not spec.ways:
        yield (), "says no way to discover", _WAYS, False
    if spec.directory is not None and _URL.search(spec.directory):
        hint = "an instance's URL stands in instances"
        yield ("directory",), "is not the name of a directory", hint, False
    dns = spec.dns
    if dns is None:
        if spec.zone:
            yield ("zone",), 'has no effect without "dns"', "the others say their own", True
        return
    if dns.kind == "SRV":
        if dns.port is not None:
            yield ("dns", "port"), "has no effect: SRV records have their own", "", True
        if not _SRV.fullmatch(dns.name):
            hint = "write it as _http._tcp.NAME"
            yield ("dns", "name"), "is an unusual name for SRV records", hint, True
    elif dns.port is None:
        hint = "write port, or type: SRV if the records say it"
        yield ("dns",), "does not say at which port instances listen", hint, False
    if dns.every is not None and dns.every < _LEAST_EVERY_S:
        yield ("dns", "every"), "is less than 500ms", "name servers have others to serve", False
