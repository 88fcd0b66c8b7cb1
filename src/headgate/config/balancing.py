"""Which instance serves a request: balancing and session affinity."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, PlainValidator, WithJsonSchema

from headgate.config.fields import (
    Count,
    Duration,
    Percent,
    Ratio,
    Spec,
    Text,
    Wait,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OrFalse, Shorthand
from headgate.config.keys import Key
from headgate.policy.balancer.rules import BalanceBy, BalanceRules

__all__ = ["Affinity", "AffinitySpec", "Balance", "BalanceSpec"]

_D: Final = BalanceRules()


class BalanceSpec(Spec):
    """How a request's instance is chosen. Text, as in `balance: least_connections`, is `by`.

    Instances of the lowest `priority` come first, those of higher ones are their backups; among
    them, instances of the gateway's own zone are preferred.
    """

    by: Annotated[BalanceBy, BeforeValidator(text_of)] = _D.by
    """`round_robin` takes them in turn, by weight. `least_connections` takes the one with the
    fewest requests under way, `power_of_two` the better one of two drawn at random, which is nearly
    as good and does not send everybody to a newcomer. `peak_ewma` takes the better of two by how
    long answers take and how many are awaited. `consistent_hash` sends the same `key` to the same
    instance, for instances that keep something. `random` draws one."""

    key: Key | None = None
    """For `consistent_hash`: what is hashed. By default the client's address."""

    bound: Ratio = _D.bound
    """For `consistent_hash`: an instance takes at most this share of the average, and what is more
    goes to the next. `0` is no bound."""

    bound_from: Count = _D.bound_from
    """With fewer requests under way than this, the bound does not count."""

    slow_start: Duration = _D.slow_start_s
    """How long an instance that is new or has come back takes to get its full share. Off by
    default; `30s` suits services that have to warm up."""

    decay: Wait = _D.decay_s
    """For `peak_ewma`: how long the time of an answer is remembered."""

    panic: Percent = _D.panic
    """When health checks leave less than this share of the instances, all are used again: it is
    likelier that the check is wrong, and few instances would fall under the load of all. `0`
    switches it off."""

    spill: Percent = _D.spill
    """With less than this share of a priority's instances in use, the next priority takes a
    part."""

    zone: Text | None = None
    """Where this gateway is. By default the file's `zone`."""

    zone_spill: Percent = _D.zone_spill
    """With less than this share of the own zone's instances in use, other zones take a part."""

    def rules(self, zone: str = "") -> BalanceRules:
        """The balancer's own rules."""
        return BalanceRules(
            by=self.by,
            slow_start_s=self.slow_start,
            bound=self.bound,
            bound_from=self.bound_from,
            decay_s=self.decay,
            panic=self.panic,
            spill=self.spill,
            zone=zone if self.zone is None else self.zone,
            zone_spill=self.zone_spill,
        )


BALANCE_IN_FILE: Final = {"slow_start_s": "slow_start", "decay_s": "decay"}

Balance = Annotated[
    BalanceSpec,
    Shorthand(
        lambda value: {"by": value} if isinstance(value, str) else value,
        {"type": "string", "examples": ["round_robin", "power_of_two", "peak_ewma"]},
        "or text, which is `by`",
    ),
]

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}")
_PATH: Final = re.compile(r"/[\x21-\x3a\x3c-\x7e]*")  # RFC 6265 section 4.1.1: no ";"


def _cookie(value: object) -> str:
    name = text_of(value)
    if not _TOKEN.fullmatch(name):
        raise refuse("is not a name of a cookie: only letters, digits and !#$%&'*+-.^_`|~")
    return name


def _path(value: object) -> str:
    path = text_of(value)
    if not _PATH.fullmatch(path):
        raise refuse('is not a path of a cookie; it starts with "/" and has no space or ";"')
    return path


def _same_site(value: object) -> str:
    return text_of(value).lower()


class AffinitySpec(Spec):
    """Brings a client back to the instance that served it first, by a cookie. The cookie is signed
    and does not disclose an address; it survives a reload and a restart. When the instance is out
    or gone, another one takes the client over and the cookie is set anew.
    """

    cookie: Annotated[
        str,
        PlainValidator(_cookie),
        Words("name"),
        WithJsonSchema({"type": "string", "pattern": r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$"}),
    ] = "headgate-affinity"
    """Name of the cookie."""

    ttl: Wait | None = None
    """How long the cookie is kept. By default until the browser is closed."""

    secret: Text | None = None
    """What it is signed with. By default a key made once and kept in the state directory; several
    gateways in front of the same services need the same. Write it as `${env:NAME}` or
    `${file:PATH}`."""

    same_site: Annotated[Literal["lax", "strict", "none"], BeforeValidator(_same_site)] = "lax"
    """When browsers send it along from other sites. `none` needs HTTPS."""

    path: Annotated[
        str,
        PlainValidator(_path),
        Words("path"),
        WithJsonSchema({"type": "string", "pattern": "^/"}),
    ] = "/"
    """Paths it is sent for."""


Affinity = Annotated[AffinitySpec | Literal[False], OrFalse()]
