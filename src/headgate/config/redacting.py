"""Secrets and personal data out of what Headgate writes, as the file says it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, PlainValidator, WithJsonSchema

from headgate.config.fields import (
    FALSE,
    TRUE,
    Positive,
    Spec,
    Text,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrMore, OrFalse, Shorthand
from headgate.config.regexes import regex_fault
from headgate.security.redact.rules import Mode, OwnPattern, RedactionRules

__all__ = ["Redaction", "RedactionSpec", "problems"]

_R: Final = RedactionRules()
Found = tuple[tuple[str | int, ...], str, str, bool]


def _treatment(value: object) -> object:
    if value is True or (isinstance(value, str) and value.strip().lower() in TRUE):
        return "mask"
    if value is False or (isinstance(value, str) and value.strip().lower() in FALSE):
        return "off"
    return value


_MODES: Final = ("off", "mask", "hash", "drop", "partial")
_SCHEMA: Final = {"anyOf": [{"enum": list(_MODES)}, {"type": "boolean"}]}
Treatment = Annotated[
    Mode,
    BeforeValidator(_treatment),
    Words("`mask`, `hash`, `drop`, `partial` or `off`; true is `mask`"),
    WithJsonSchema(_SCHEMA),
]


def _pattern(value: object) -> str:
    pattern = text_of(value)
    fault = regex_fault(pattern)
    if fault is None and not pattern:
        fault = "is empty"
    if fault is not None:
        raise refuse(fault)
    return pattern


class RedactionPatternSpec(Spec):
    """A pattern of your own."""

    pattern: Annotated[
        str,
        PlainValidator(_pattern),
        Words("regular expression"),
        WithJsonSchema({"type": "string"}),
    ]
    """A regular expression. If it has a group, only what stands in the first one is redacted."""

    name: Text = "pattern"
    """What stands in place of it: `[redacted:NAME]`."""

    mode: Treatment = "mask"
    """What becomes of it, in the words of the kinds in [Redaction](#redaction)."""


RedactionPattern = Annotated[
    RedactionPatternSpec,
    Shorthand(
        lambda value: {"pattern": value} if isinstance(value, str) else value,
        {"type": "string"},
        "or text, which is `pattern`",
    ),
]


class RedactionSpec(Spec):
    """What is taken out of access logs, logs, audit entries and query texts before they are
    written. `mask` writes `[redacted:KIND]`; `hash` adds a code that is the same for the same
    value; `partial` adds the last four characters; `drop` leaves nothing.
    """

    tokens: Treatment = _R.tokens
    """Bearer and Basic credentials, JWTs, API keys of Headgate, AWS, GitHub, GitLab, Google, Slack,
    Stripe and others that show by their beginning what they are."""

    passwords: Treatment = _R.passwords
    """User info in URLs, and values with a name that says secret: `password=`, `"apiKey":`."""

    private_keys: Treatment = _R.private_keys
    """Private keys in PEM."""

    cards: Treatment = _R.cards
    """Numbers of payment cards: those of a known network whose check digit is right."""

    ibans: Treatment = _R.ibans
    """Numbers of bank accounts (IBAN), in capitals, whose check digits are right."""

    emails: Treatment = _R.emails
    """E-mail addresses."""

    phones: Treatment = _R.phones
    """Telephone numbers in the international form: `+49 30 1234567`."""

    addresses: Annotated[
        Literal["off", "mask", "hash", "drop", "partial", "truncate"],
        BeforeValidator(_treatment),
        Words("as the others, or `truncate`"),
        WithJsonSchema({"anyOf": [{"enum": [*_MODES, "truncate"]}, {"type": "boolean"}]}),
    ] = _R.addresses
    """IP addresses within texts. `truncate` leaves the network: /24, or /48 of IPv6. The field
    `client_ip` of the access log is left as it is."""

    fields: Annotated[tuple[Text, ...], OneOrMore] = ()
    """Further names whose values are secret, in any case and with or without `-` and `_`."""

    patterns: Annotated[tuple[RedactionPattern, ...], OneOrMore] = ()
    """Patterns of your own. Each is looked for in every text, so they cost more than the rest."""

    secret: Text | None = None
    """For `hash`: without it values could be found out by trying. Write it as `${env:NAME}` or
    `${file:PATH}`, at least 16 characters."""

    max_text: Positive = _R.most_chars
    """Longer texts are cut there."""

    def rules(self) -> RedactionRules:
        """The same for `headgate.security.redact`."""
        return RedactionRules(
            tokens=self.tokens,
            passwords=self.passwords,
            private_keys=self.private_keys,
            cards=self.cards,
            ibans=self.ibans,
            emails=self.emails,
            phones=self.phones,
            addresses=self.addresses,
            names=self.fields,
            patterns=tuple(OwnPattern(own.name, own.pattern, own.mode) for own in self.patterns),
            key=(self.secret or "").encode(),
            most_chars=self.max_text,
        )


Redaction = Annotated[RedactionSpec | Literal[False], OrFalse()]
"""`redaction: false` leaves everything as it is but for the names of `access_log.redact`."""


def problems(spec: RedactionSpec | Any) -> Iterator[Found]:
    """What single fields cannot say about each other."""
    if not isinstance(spec, RedactionSpec):
        return
    kinds = ("tokens", "passwords", "private_keys", "cards", "ibans", "emails", "phones")
    asking = [name for name in (*kinds, "addresses") if getattr(spec, name) == "hash"]
    is_asked = bool(asking) or any(own.mode == "hash" for own in spec.patterns)
    if is_asked and spec.secret is None:
        where: tuple[str | int, ...] = (asking[0],) if asking else ("patterns",)
        hint = "write secret: ${file:redaction.secret}"
        yield where, "is `hash`, which takes a `secret`", hint, False
    if spec.secret is not None:
        if len(spec.secret) < 16:
            hint = "`openssl rand -hex 32` makes one"
            yield ("secret",), "is shorter than 16 characters, so it can be guessed", hint, False
        elif not is_asked:
            yield ("secret",), "is used by `hash` alone, which nothing asks for", "", True
    if spec.max_text < 256:
        yield ("max_text",), "is less than 256", "", False
    names = [own.name for own in spec.patterns]
    for at, name in enumerate(names):
        if not name.replace("-", "").replace("_", "").isalnum() or len(name) > 40:
            yield ("patterns", at, "name"), "is not a short word of letters and digits", "", False
