"""Who is not let in at all: addresses, bans that come by themselves, bots."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from headgate.config.fields import (
    Count,
    FilePath,
    Flag,
    HeaderName,
    Number,
    Positive,
    Spec,
    Text,
    Wait,
    Whole,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrMore, OrFalse
from headgate.security.addresses import NAMED, AddressRules, network_of, network_text
from headgate.security.ban_rules import DEFAULT_RULES, KINDS, BanRule, BanRules, is_kind
from headgate.security.bots import CLASSES, BotRules

__all__ = [
    "Addresses",
    "AddressesSpec",
    "BanRuleSpec",
    "Bans",
    "BansSpec",
    "Bots",
    "BotsSpec",
    "ban_rules_of",
    "problems",
]

_A: Final = AddressRules()
_B: Final = BanRules()
_R: Final = BotRules()
_REFUSING: Final = range(400, 500)

Found = tuple[tuple[str | int, ...], str, str, bool]


def _network_or_word(value: object) -> str:
    text = text_of(value).strip()
    if text in NAMED:
        return text
    try:
        return network_text(network_of(text))
    except ValueError as error:
        words = f", or one of {', '.join(NAMED)}" if "is not an address" in str(error) else ""
        raise refuse(f"{error}{words}") from None


_NetworkOrWord = Annotated[
    str,
    PlainValidator(_network_or_word),
    Words("address, network or one of `loopback`, `private`, `link-local`"),
    WithJsonSchema({"type": "string", "examples": ["192.0.2.0/24", "2001:db8::1", "private"]}),
]


def _status(value: object) -> object:
    if value == "cut":
        return value
    text = text_of(value).strip()
    if not (text.isascii() and text.isdigit() and int(text) in _REFUSING):
        raise refuse("is neither a status from 400 to 499 nor `cut`")
    return int(text)


_Answer = Annotated[
    int | str,
    PlainValidator(_status),
    Words("status or `cut`"),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 400, "maximum": 499}, {"enum": ["cut"]}]}
    ),
]


class AddressesSpec(Spec):
    """Client addresses that may or may not come in: addresses, networks such as `192.0.2.0/24`, or
    the words `private`, `loopback` and `link-local`. What is denied stays out, whatever is allowed.
    Where there is a list of whom to allow, nobody else comes in.

    The address is the client's, as found out by `trusted_proxies`. IPv4 addresses in IPv6 form
    count as IPv4.
    """

    allow: Annotated[tuple[_NetworkOrWord, ...], OneOrMore] = ()
    """Only these come in."""

    deny: Annotated[tuple[_NetworkOrWord, ...], OneOrMore] = ()
    """These do not."""

    allow_file: FilePath | None = None
    """A file with more to allow: an address or network on each line, `#` begins a comment. It is
    read when the configuration is, so `headgate reload` takes up what has changed."""

    deny_file: FilePath | None = None
    """The same of whom to deny."""

    answer: _Answer = _A.status
    """What the others get: a status, or `cut` to close the connection without an answer."""

    def rules(self) -> AddressRules:
        """The guard's own rules."""
        return AddressRules(
            allow=self.allow,
            deny=self.deny,
            allow_files=(self.allow_file,) if self.allow_file else (),
            deny_files=(self.deny_file,) if self.deny_file else (),
            status=self.answer if isinstance(self.answer, int) else _A.status,
            is_cut=self.answer == "cut",
        )


# -- bans ----------------------------------------------------------------------------------------


def _kind(value: object) -> str:
    text = text_of(value)
    if not is_kind(text):
        raise refuse(
            f"is nothing that is counted; known: {', '.join(KINDS)}, status_4xx, status_5xx and "
            "single statuses such as status_401"
        )
    return text


_Kind = Annotated[
    str,
    PlainValidator(_kind),
    Words("what is counted"),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": [*KINDS, "status_4xx", "status_5xx"]},
                {"type": "string", "pattern": "^status_[45][0-9][0-9]$"},
            ]
        }
    ),
]


class BanRuleSpec(Spec):
    """What an address is banned for."""

    kind: Annotated[tuple[_Kind, ...], OneOrMore]
    """What is counted, together where it is a list: `status_4xx` or a status such as `status_401`,
    `login_failed`, `bad_credentials`, `injection`, `limited` (refused by a limit), `malformed`
    (breaks the protocol), `bot`."""

    more_than: Positive
    """So many are borne. Offices, schools and phone networks share an address, so think of what
    a room full of people does by mistake."""

    within: Wait
    """The window they are counted in."""

    ban: Wait
    """How long the first ban lasts; see `grow` for those that follow."""

    name: Text | None = None
    """What lists and logs call it; by default its kinds."""


class BansSpec(Spec):
    """Addresses that are shut out for a while because of what they did. `bans: true` is all
    defaults. Workers and, with a Redis in `state`, machines share bans.

    Proxies of `trusted_proxies` are never banned. An IPv6 client is its network of `ipv6_prefix`
    bits. `headgate bans` lists bans, adds and lifts them.
    """

    when: tuple[BanRuleSpec, ...] | None = None
    """What addresses are banned for, in place of the default rules: client errors (200 a minute),
    failed log-ins (20 in 5 minutes), injection (10 in 10 minutes), hits of limits (300 a minute),
    malformed requests (20 a minute), bots (5 in 10 minutes)."""

    exempt: Annotated[tuple[_NetworkOrWord, ...], OneOrMore] = ()
    """Addresses and networks that are never banned, besides `trusted_proxies`: your office, your
    monitoring."""

    loopback: Flag = _B.loopback
    """Whether this machine's own addresses may be banned."""

    private: Flag = _B.private
    """Whether private addresses may be banned by rules. Off by default: in front of a public
    gateway a private address is a proxy that is missing in `trusted_proxies`, and to ban it would
    shut everybody out. Switch it on where clients come from private networks."""

    mode: Annotated[Literal["block", "detect"], BeforeValidator(text_of)] = "block"
    """`detect` only tells whom the rules would ban, to try them out."""

    answer: Annotated[Literal["refuse", "cut"], BeforeValidator(text_of)] = "refuse"
    """`refuse` answers 403 with `Retry-After`; `cut` closes the connection without an answer."""

    ipv6_prefix: Annotated[Whole, Field(ge=32, le=128)] = _B.ipv6_prefix
    """How much of an IPv6 address is a client: 64 for a home or office; 56 or 48 where bans do not
    hold because whoever is banned has that much to change addresses in."""

    grow: Annotated[Number, Field(ge=1, le=10)] = _B.grow
    """Each further ban of the same address is so many times as long as the one before."""

    remember: Wait = _B.remember_s
    """How long after its end a ban is remembered for that."""

    longest: Wait = _B.longest_s
    """No ban by rules grows longer than this."""

    keys: Annotated[Positive, Field(ge=1000, le=10_000_000)] = _B.keys
    """So many addresses are counted in each worker, and as many banned; beyond that the oldest are
    forgotten."""

    def rules(self, trusted_proxies: Sequence[object] = ()) -> BanRules:
        """The guard's own rules. ``trusted_proxies`` are those of the file."""
        return BanRules(
            rules=DEFAULT_RULES
            if self.when is None
            else tuple(
                BanRule(_rule_name(rule), rule.kind, rule.more_than, rule.within, rule.ban)
                for rule in self.when
            ),
            exempt=(*self.exempt, *(str(network) for network in trusted_proxies)),
            loopback=self.loopback,
            private=self.private,
            ipv6_prefix=self.ipv6_prefix,
            grow=self.grow,
            remember_s=self.remember,
            longest_s=self.longest,
            blocks=self.mode == "block",
            is_cut=self.answer == "cut",
            keys=self.keys,
        )


def _rule_name(rule: BanRuleSpec) -> str:
    return rule.name or "+".join(rule.kind)


def ban_rules_of(
    spec: BansSpec | Literal[False] | None, trusted_proxies: Sequence[object] = ()
) -> BanRules:
    """What a process bans for. Also without rules an operator may ban by hand, and trusted proxies
    are exempt.
    """
    return (spec or BansSpec(when=())).rules(trusted_proxies)


# -- bots ----------------------------------------------------------------------------------------

_Class = Annotated[
    Literal[
        "browser",
        "search",
        "ai",
        "preview",
        "monitor",
        "feed",
        "seo",
        "archive",
        "scanner",
        "scraper",
        "headless",
        "tool",
        "bot",
        "empty",
        "unknown",
        "suspect",
        "fake",
    ],
    BeforeValidator(text_of),
]
if frozenset(get_args(get_args(_Class)[0])) != frozenset(CLASSES):
    raise RuntimeError("the classes of bots stand in two places, which have come apart")


class BotsSpec(Spec):
    """Clients that are programs, and what becomes of them. `bots: true` refuses scanners for holes
    and crawlers that are not the one they claim to be, and lets everything else in.

    Classes: `search` engines, `ai` crawlers, link `preview`s, `monitor`ing, `feed` readers, `seo`,
    `archive`s, `scanner`s, `scraper`s, `headless` browsers, `tool`s and libraries, other `bot`s,
    `empty` (no User-Agent), `unknown`, `browser`s, `suspect` (says it is a browser, and lacks what
    browsers send) and `fake` (says it is a crawler, and its address is not its owner's).
    """

    deny: Annotated[tuple[_Class, ...], OneOrMore] = ("fake", "scanner")
    """Classes that are refused, in place of the default."""

    mode: Annotated[Literal["block", "detect"], BeforeValidator(text_of)] = "block"
    """`detect` only tells, and refuses nobody."""

    tag: HeaderName | None = None
    """A request header in which services are told the class, such as `X-Bot-Class`. What clients
    send under this name is taken away."""

    suspect_score: Annotated[Count, Field(ge=1)] = _R.suspect_score
    """What a browser lacks adds up; from this score on it is `suspect`. No `Accept`: 3, no
    `Accept-Language`: 3, no `Accept-Encoding`: 2, no `Sec-Fetch-*` or no client hints over TLS
    where its version sends them: 3 each, opens a page and accepts no HTML: 2, client hints of a
    headless browser: 10."""

    agents: dict[Text, _Class] = {}
    """Words of User-Agent with their class, before those we know: `{acme-sync: monitor}`."""

    verify: Flag = _R.verify
    """Ask DNS whether crawlers are the ones they claim to be: Google, Bing, Apple, Yandex, Baidu
    and others. Nobody waits for it."""

    unverified: Annotated[Literal["allow", "deny"], BeforeValidator(text_of)] = "allow"
    """What becomes of such a crawler while it is not known."""

    networks: dict[Text, Annotated[tuple[_NetworkOrWord, ...], OneOrMore]] = {}
    """By crawler, the networks that its owner publishes: `{gptbot: [192.0.2.0/24]}`. For those
    whose addresses have no names; where it stands, DNS is not asked."""

    answer: _Answer = _R.status
    """What the refused get: a status, or `cut` to close the connection without an answer."""

    def rules(self) -> BotRules:
        """The guard's own rules."""
        return BotRules(
            deny=frozenset(self.deny),
            tag_header=self.tag or "",
            suspect_score=self.suspect_score,
            agents=tuple(self.agents.items()),
            verify=self.verify,
            denies_unverified=self.unverified == "deny",
            networks=tuple((name.lower(), said) for name, said in self.networks.items()),
            blocks=self.mode == "block",
            status=self.answer if isinstance(self.answer, int) else _R.status,
            is_cut=self.answer == "cut",
        )


Addresses = Annotated[AddressesSpec | Literal[False], OrFalse()]


Bots = Annotated[BotsSpec | Literal[False], OrFalse()]


Bans = Annotated[BansSpec | Literal[False], OrFalse()]


# -- what makes no sense ---------------------------------------------------------------------------

_WORD: Final = re.compile(r"[A-Za-z0-9._-]+")


def problems(spec: AddressesSpec | BansSpec | BotsSpec) -> Iterator[Found]:
    """What contradicts itself: where, what, the way out, and whether it is only a warning."""
    if isinstance(spec, AddressesSpec):
        yield from _of_addresses(spec)
    elif isinstance(spec, BansSpec):
        yield from _of_bans(spec)
    else:
        yield from _of_bots(spec)


def _of_addresses(spec: AddressesSpec) -> Iterator[Found]:
    said: list[Any] = [spec.allow, spec.deny, spec.allow_file, spec.deny_file]
    if not any(said):
        yield (), "names nobody to allow or deny", "write allow, deny or a file of either", False
    for place, networks in (("allow", spec.allow), ("deny", spec.deny)):
        for index, network in enumerate(networks):
            if network in {"0.0.0.0/0", "::/0"} and place == "deny":
                yield (
                    (place, index),
                    "{value} denies every address of its family, whatever is allowed",
                    "leave it out: where there is an allow list, nobody else comes in",
                    False,
                )
            elif place == "allow" and network in spec.deny:
                yield (
                    (place, index),
                    "{value} is denied as well, which wins",
                    "keep it in one of the lists",
                    True,
                )


def _of_bans(spec: BansSpec) -> Iterator[Found]:
    seen: set[str] = set()
    for index, rule in enumerate(spec.when or ()):
        name = _rule_name(rule)
        if name in seen:
            yield (
                ("when", index),
                f'is a second rule named "{name}"',
                "give them names of their own with `name`",
                False,
            )
        seen.add(name)
        if name == "hand":
            yield (
                ("when", index, "name"),
                "{value} is what bans by an operator are called",
                "call it something else",
                False,
            )
        if not rule.kind:
            yield ("when", index, "kind"), "counts nothing", "name a kind", False
        if rule.ban > spec.longest:
            yield (
                ("when", index, "ban"),
                "{value} is longer than the longest ban",
                "make `longest` longer too",
                False,
            )
        if rule.within > 86_400:
            yield (
                ("when", index, "within"),
                "{value} is longer than a day",
                "counts live in memory; use a shorter window",
                False,
            )
    if spec.when == ():
        yield ("when",), "bans nobody", "leave it out to have the default rules", True


def _of_bots(spec: BotsSpec) -> Iterator[Found]:
    if "browser" in spec.deny:
        yield (
            ("deny", spec.deny.index("browser")),
            "{value} shuts people out, and not programs",
            "deny `suspect` to refuse programs that pretend to be browsers",
            True,
        )
    for name in spec.agents:
        if not _WORD.fullmatch(name):
            yield (
                ("agents", name),
                "is not one word of a User-Agent",
                "only letters, digits, `.`, `_` and `-`, as in acme-sync",
                False,
            )
    if not spec.verify and (spec.unverified == "deny"):
        yield (
            ("unverified",),
            "has no effect without `verify`",
            "switch `verify` on",
            True,
        )
