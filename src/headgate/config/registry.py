"""The `registry:` section: instances that register themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from headgate.config.fields import (
    FALSE,
    PERCENT_PATTERN,
    Duration,
    Network,
    Positive,
    Spec,
    Wait,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrMore, OrFalse
from headgate.config.redis_urls import redis_url_fault
from headgate.policy.registering import RegistryRules
from headgate.units import UnitError, parse_percent

__all__ = ["REGISTRY_IN_FILE", "Registry", "RegistrySpec", "problems"]

_D: Final = RegistryRules()
_LEAST_TTL_S: Final = 1.0
_LONGEST_TTL_S: Final = 86_400.0
_MOST_INSTANCES: Final = 100_000
Found = tuple[tuple[str | int, ...], str, str, bool]


def _home(value: object) -> str:
    text = text_of(value).strip()
    if text in ("sqlite", "state"):
        return text
    kind = "is no home of a registry; write sqlite, state or redis://host:6379/0"
    fault = redis_url_fault(text, kind)
    if fault is not None:
        raise refuse(fault)
    return text


def _protect(value: object) -> float:
    if value is False or (isinstance(value, str) and value.strip().lower() in FALSE):
        return 0.0
    try:
        share = parse_percent(value)
    except UnitError as error:
        raise refuse(f"{error.rule}, or off", kind="unit") from None
    if share >= 1:
        raise refuse("is all of them, and never more than all run out; write less, or off")
    return share


class RegistrySpec(Spec):
    """The registry of instances: who registers itself with a token of the role `service`, by
    `headgate.mesh.register` or over HTTP, is known to every worker and every mesh client within
    a moment. Its requests come through services with `discover: registry`.
    """

    ttl: Wait = _D.ttl_s
    """How long a registration holds without a sign of life, where the instance asks for no other
    time. Three signs of life are sent in that time, so that two may be lost."""

    min_ttl: Wait = _D.min_ttl_s
    """The shortest that an instance may ask for."""

    max_ttl: Wait = _D.max_ttl_s
    """The longest that an instance may ask for."""

    protect: Annotated[
        float,
        PlainValidator(_protect),
        Words("percentage, or `off`"),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "pattern": PERCENT_PATTERN},
                    {"type": "number", "minimum": 0, "maximum": 1},
                    {"enum": ["off", False]},
                ],
                "examples": ["50%", "off"],
            }
        ),
    ] = _D.protect_share
    """When more than this share of all registrations have run out, it is more likely that the
    network died than everybody: they are kept in use, marked as suspect. So are the last of a
    service, however few, since there is nobody else to ask. `off` ends every registration that runs
    out."""

    protect_for: Duration = _D.suspect_max_s
    """How long suspects are kept without a sign of life."""

    drain: Duration = _D.drain_s
    """How long an instance that signs off is told as draining, unless it says so itself: it gets no
    new requests, and finishes what it has."""

    home: Annotated[
        str,
        PlainValidator(_home),
        Words("`sqlite`, `state` or a URL"),
        WithJsonSchema(
            {
                "type": "string",
                "pattern": r"^(sqlite|state|(rediss?(\+sentinel)?|unix)://.+)$",
                "examples": ["sqlite", "state", "redis://registry.internal:6379/0"],
            }
        ),
    ] = "sqlite"
    """Where registrations are kept across restarts. `sqlite` is a file in `state_dir`, for one
    gateway. Several that are to know the same instances need a Redis: its URL, or `state` for that
    of `state`."""

    networks: Annotated[tuple[Network, ...], OneOrMore] = ()
    """From where instances may register: who asks must be in one of these, and so must an address
    in the URL that is registered. A name in a URL is not looked up. By default from everywhere that
    reaches the admin listener. The socket in the state directory is always let in."""

    max_instances: Annotated[Positive, Field(le=_MOST_INSTANCES)] = _D.max_instances
    """The most instances of all services together. Who registers beyond it is refused."""

    def rules(self) -> RegistryRules:
        """The same for `headgate.mesh.registry`."""
        return RegistryRules(
            ttl_s=self.ttl,
            min_ttl_s=self.min_ttl,
            max_ttl_s=self.max_ttl,
            protect_share=self.protect or 1.0,
            protect_last=bool(self.protect),
            suspect_max_s=self.protect_for,
            drain_s=self.drain,
            max_instances=self.max_instances,
        )


REGISTRY_IN_FILE: Final = {
    "ttl_s": "ttl",
    "min_ttl_s": "min_ttl",
    "max_ttl_s": "max_ttl",
    "drain_s": "drain",
}
Registry = Annotated[RegistrySpec | Literal[False], OrFalse()]
"""`registry: off` lets nobody register."""


def problems(spec: RegistrySpec, state: str) -> Iterator[Found]:
    """What single fields cannot say about each other. `state` is the home of shared state."""
    if spec.min_ttl < _LEAST_TTL_S:
        yield ("min_ttl",), "is less than a second", "a busy machine is late by as much", False
    if spec.max_ttl > _LONGEST_TTL_S:
        yield ("max_ttl",), "is more than a day", "an instance that died is used as long", False
    if spec.home == "state" and state == "memory":
        hint = "write sqlite, or the Redis that several gateways share"
        yield ("home",), "says the home of state, and that is memory", hint, False
