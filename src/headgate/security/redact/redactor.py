"""The rules put to work: one object that takes secrets and personal data out of what is written.

Theory of operation
-------------------
Nearly every text is clean, so `text` first asks a few cheap questions that a clean text answers
with no: is there an `@`, an `=` after the end of a name that says secret, an underscore or point
before something long and random, thirteen digits once blanks are left out? Only then do the
expressions run, each over the whole text.

What an editor must not break:
- The questions may say yes too often, never no where an expression would have found something.
- Linear in the text, whatever is in it, and no text is longer than `most_chars`: the rest is cut
  off, because it was not looked at.
- What was redacted once stays as it is the second time (mode `mask`).
- Nothing here has the key, a value or a pattern in its repr.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

from headgate.security.redact.names import SecretNames
from headgate.security.redact.numbers import replace_cards, replace_ibans
from headgate.security.redact.personal import (
    replace_addresses,
    replace_emails,
    replace_phones,
    truncated,
)
from headgate.security.redact.rules import RedactionRules
from headgate.security.redact.shapes import (
    AUTHORITY,
    HEADER_LINE,
    KEYS,
    PAIR,
    PEM,
    SCHEME,
    is_basic,
    is_opaque,
)
from headgate.security.redact.sql import Dialect, without_literals

__all__ = ["Redactor"]

_CUT: Final = "...[cut]"
_DEEPEST: Final = 20
_PAIRS_DEEP: Final = 16
"""Pairs within the values of pairs."""
_MOST_FIELDS: Final = 10_000
_SHORT: Final = 12  # of a shorter value the last four are too much of it

# -- the questions; see the theory of operation
# fmt: off
_ENDINGS: Final = (
    "ord", "swd", "pwd", "ase", "pin", "cvv", "cvc", "otp", "ret", "ken", "jwt", "ion", "kie",
    "ial", "als", "key", "Key", "ure", "nic", "ode", "ber", "ier", "dsn", "rds", "ets", "ies",
)
# fmt: on
_UNDERSCORE: Final = re.compile(r"_(?=[a-z]*+[A-Z0-9_][0-9A-Za-z_+/=]{8})").search
_POINT: Final = re.compile(r"\.(?=eyJ|com/services/|\.?[0-9A-Za-z_-]{16})").search
_DASH: Final = re.compile(
    r"-(?:(?=----BEGIN )|(?<=xox.-)|(?<=xapp-)|(?<=sk-)|(?<=SPX-)|(?<=lpat-)|(?<=pypi-))"
).search
_CAPITAL: Final = re.compile(r"A(?=KIA|SIA|BIA|CCA|Iza)").search
_ANY_SCHEME: Final = re.compile(r"(?i:bearer|basic)(?:[ \t+]|%20)").search
_JOINED: Final = b" -+%"


class Redactor:
    """Compiled rules. Raises ValueError for a pattern that is none."""

    def __init__(self, rules: RedactionRules | None = None) -> None:
        rules = RedactionRules() if rules is None else rules
        self._rules = rules
        self.names = SecretNames(rules.names)
        self._most = rules.most_chars
        self._show = {
            kind: self._shower(kind, mode)
            for kind, mode in (
                ("token", rules.tokens),
                ("password", rules.passwords),
                ("private key", rules.private_keys),
                ("card", rules.cards),
                ("iban", rules.ibans),
                ("email", rules.emails),
                ("phone", rules.phones),
                ("address", rules.addresses),
            )
            if mode != "off"
        }
        self._own = tuple(self._compiled(own) for own in rules.patterns if own.mode != "off")
        self._has_tokens = "token" in self._show or "private key" in self._show
        self._has_passwords = "password" in self._show
        self._asks_at = "email" in self._show
        self._asks_more = bool(self._own or {"phone", "address"} & self._show.keys())
        digits = "0123456789" if "card" in self._show or "iban" in self._show else ""
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if "iban" in self._show else ""
        table = bytearray(range(256))
        table[ord("0")] = ord("1")
        for char in digits + letters:
            table[ord(char)] = ord("0")
        self._table = bytes(table) if digits else b""
        self._equals, self._colon = _questions(rules.names)

    def __repr__(self) -> str:
        return f"Redactor({', '.join(sorted(self._show))})"

    # -- texts ---------------------------------------------------------------------------------

    def text(self, text: str) -> str:
        """The text without what the rules name."""
        if len(text) > self._most:
            text = text[: self._most] + _CUT
        if (
            not self._asks_more
            and ("@" not in text or not (self._asks_at or "://" in text))
            and not (self._has_passwords and self._may_name(text))
            and not (self._has_tokens and (self._may_be_key(text) or self._may_be_scheme(text)))
            and not (self._table and self._may_count(text))
            and not (self._asks_at and "%40" in text)
        ):
            return text
        return self._clean(text)

    def _may_be_key(self, text: str) -> bool:
        return bool(
            ("_" in text and _UNDERSCORE(text))
            or ("." in text and _POINT(text))
            or ("-" in text and _DASH(text))
            or ("A" in text and _CAPITAL(text))
        )

    def _may_be_scheme(self, text: str) -> bool:
        return ("earer" in text or "B" in text or "asic" in text) and bool(_ANY_SCHEME(text))

    def _may_name(self, text: str) -> bool:
        return ("=" in text and self._equals(text) is not None) or (
            ":" in text and self._colon(text) is not None
        )

    def _may_count(self, text: str) -> bool:
        raw = text.encode("utf-8", "replace").translate(self._table, _JOINED)
        return raw.find(b"0000000000000") >= 0

    def _clean(self, text: str) -> str:
        show = self._show
        if "private key" in show and "-----BEGIN " in text:
            text = PEM.sub(lambda found: show["private key"](found[0]), text)
        if self._has_passwords:
            if "://" in text and "@" in text:
                text = AUTHORITY.sub(self._authority, text)
            if ":" in text and self._colon(text):
                text = HEADER_LINE.sub(self._header_line, text)
        if "token" in show and self._may_be_scheme(text):
            text = SCHEME.sub(self._scheme, text)
        if "token" in show and self._may_be_key(text):
            text = KEYS.sub(lambda found: show["token"](found[0]), text)
        if self._has_passwords and self._may_name(text):
            text = PAIR.sub(self._pair, text)
        if self._table and self._may_count(text):
            if (shown := show.get("iban")) is not None:
                text = replace_ibans(text, shown)
            if (shown := show.get("card")) is not None:
                text = replace_cards(text, shown)
        if (shown := show.get("email")) is not None:
            text = replace_emails(text, shown)
        if (shown := show.get("phone")) is not None:
            text = replace_phones(text, shown)
        if (shown := show.get("address")) is not None:
            text = replace_addresses(text, shown)
        for pattern, shown in self._own:
            text = pattern.sub(_of_group(shown), text)
        return text

    def _authority(self, found: re.Match[str]) -> str:
        who, at, host = found[2].rpartition("@")
        if not at or not who or who.startswith("[redacted"):
            return found[0]
        return f"{found[1]}{self._show['password'](who)}@{host}"

    def _header_line(self, found: re.Match[str]) -> str:
        if found[3].startswith("[redacted"):
            return found[0]
        return f"{found[1]}{found[2]}{self._show['password'](found[3])}"

    def _scheme(self, found: re.Match[str]) -> str:
        is_one = is_basic if found[1].lower() == "basic" else is_opaque
        if not is_one(found[3]):
            return found[0]
        return f"{found[1]}{found[2]}{self._show['token'](found[3])}"

    def _pair(self, found: re.Match[str], depth: int = 0) -> str:
        name, between, value = found[1], found[2], found[3]
        if not self.names.has(unquote(name) if "%" in name else name):
            # What stands in its place may be a pair itself, as in `where: password=...`.
            if value.startswith(("\\", '"', "'")) or PAIR.search(value) is None:
                return found[0] if not value.startswith(('"', "'")) else self._inside(found)
            if depth >= _PAIRS_DEEP:
                # Nobody writes this; whoever made it up may be hiding something in it.
                return f"{name}{between}{self._show['password'](value)}"
            deeper = partial(self._pair, depth=depth + 1)
            return f"{name}{between}{PAIR.sub(deeper, value)}"
        quote = '\\"' if value.startswith('\\"') else value[0] if value[0] in "\"'" else ""
        inner = value[len(quote) :]
        end = quote if quote and inner.endswith(quote) else ""
        inner = inner.removesuffix(end) if end else inner
        if not inner or inner.startswith("[redacted") or inner in _NO_VALUES:
            return found[0]
        return f"{name}{between}{quote}{self._show['password'](inner)}{end}"

    def _inside(self, found: re.Match[str]) -> str:
        """Look into a quoted value: a log line in a field of a log line."""
        value = found[3]
        inner = value[1:]
        if "=" not in inner and ":" not in inner:
            return found[0]
        return f"{found[1]}{found[2]}{value[0]}{PAIR.sub(self._shallow, inner)}"

    def _shallow(self, found: re.Match[str]) -> str:
        is_named = self.names.has(found[1])
        return self._pair(found) if is_named else found[0]

    # -- what has a form -----------------------------------------------------------------------

    def url(self, url: str) -> str:
        """A URL or the query of one: user info, values with secret names, and the rest as text."""
        text = self.text(url)
        if not self._has_passwords or "=" not in text:
            return text
        out = []
        for part in re.split(r"([?&;#])", text):
            name, equals, value = part.partition("=")
            if equals and value and "%" in name + "+" and not value.startswith("[redacted"):
                said = unquote(name.replace("+", " ")).strip()
                if self.names.has(said):
                    part = f"{name}={self._show['password'](value)}"
            out.append(part)
        return "".join(out)

    def sql(self, query: str, dialect: Dialect = "ansi") -> str:
        """A query text with `?` in place of its literals."""
        if len(query) > self._most:
            query = query[: self._most]
        return without_literals(query, dialect)

    def headers(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Header fields: those with a secret name lose their value, others what is in it."""
        out = []
        for name, value in headers:
            said = name.decode("latin-1")
            text = value.decode("latin-1")
            if self._has_passwords and value and self.names.has(said):
                clean = self._show["password"](text)
            else:
                clean = self.text(text)
            out.append((name, value if clean == text else clean.encode("utf-8")))
        return out

    def fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of what has names, at any depth, of what JSON can hold."""
        left = [_MOST_FIELDS]
        made: dict[str, Any] = self._value(fields, "", _DEEPEST, left)
        return made

    def value(self, value: Any, name: str = "") -> Any:
        """The same for one value, known by this name."""
        return self._value(value, name, _DEEPEST, [_MOST_FIELDS])

    def _value(self, value: Any, name: str, deeper: int, left: list[int]) -> Any:
        if value is None or isinstance(value, bool):
            return value
        left[0] -= 1
        if deeper < 0 or left[0] < 0:
            return _CUT
        if name and self._has_passwords and self.names.has(name):
            shown = self._show["password"]
            if isinstance(value, str):
                return shown(value) if value and not value.startswith("[redacted") else value
            if value in ([], {}, ()):
                return value
            return shown(str(value)) if isinstance(value, int | float) else shown("")
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                self.text(str(key)): self._value(each, str(key), deeper - 1, left)
                for key, each in value.items()
                if left[0] >= 0
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value(each, "", deeper - 1, left) for each in value if left[0] >= 0]
        if isinstance(value, int | float):
            text = str(value)
            clean = self.text(text) if len(text) >= 13 else text
            return value if clean == text else clean
        if isinstance(value, bytes | bytearray):
            return self.text(bytes(value[: self._most]).decode("utf-8", "replace"))
        return self.text(str(value))

    # -- what is shown instead -----------------------------------------------------------------

    def _shower(self, kind: str, mode: str) -> Callable[[str], str]:
        mask = f"[redacted:{kind.replace(' ', '-')}]"
        if mode == "hash":
            if not self._rules.key:
                raise ValueError("redaction by hash takes a key")
            key = self._rules.key

            def hashed(value: str) -> str:
                mac = hmac.digest(key, f"{kind}\0{value}".encode("utf-8", "replace"), "sha256")
                return f"{mask[:-1]}:{mac.hex()[:16]}]"

            return hashed
        if mode == "drop":
            return lambda _value: ""
        if mode == "partial":
            return lambda value: (
                f"{mask[:-1]}:..{value[-4:]}]"
                if len(value) >= _SHORT and value[-4:].isalnum()
                else mask
            )
        if mode == "truncate":
            return truncated
        return lambda _value: mask

    def _compiled(self, own: Any) -> tuple[re.Pattern[str], Callable[[str], str]]:
        try:
            return re.compile(own.pattern), self._shower(own.name, own.mode)
        except re.error:
            # Not the compiler's words: they quote the pattern, which may hold a secret.
            raise ValueError(f"the pattern {own.name!r} is not a regular expression") from None


_NO_VALUES: Final = frozenset({"null", "None", "true", "false", "True", "False", "[]", "{}", "***"})


def _of_group(shown: Callable[[str], str]) -> Callable[[re.Match[str]], str]:
    def one(found: re.Match[str]) -> str:
        whole = found[0]
        if not whole:
            return whole
        if not found.re.groups:
            return shown(whole)
        first, last = found.span(1)
        if first < 0 or first == last:
            return whole
        at = found.start()
        return whole[: first - at] + shown(found[1]) + whole[last - at :]

    return one


def _questions(
    names: tuple[str, ...],
) -> tuple[Callable[[str], object | None], Callable[[str], object | None]]:
    """Whether an `=`, or a `:`, stands behind the end of a name that may say secret."""
    ends = set(_ENDINGS) | {name[-3:].lower() for name in names if len(name) >= 3}
    ends |= {name[-3:] for name in names if len(name) >= 3} | {end.upper() for end in ends}
    listed = "|".join([*sorted(map(re.escape, ends)), "%[0-9A-Fa-f][0-9A-Fa-f]"])
    if any(len(name) < 3 for name in names):
        listed += "|..." + "|..[&?;, ]"
    before = rf"(?:{listed})"
    # Three classes first: they say no to nearly all that is not one of forty endings.
    whole = [end for end in ends if len(end) == 3]
    rough = "".join(
        f"[{re.escape(''.join(sorted({end[at] for end in whole})))}%0-9A-F]" for at in range(3)
    )
    if any(len(name) < 3 for name in names):
        rough = "[^X][^X][^X]"
    behind = "|".join(
        f"(?<={rough}{tail}X)(?<={before}{tail}X)"
        for tail in ("", "[0-9'\" ]", "[0-9\\\\'\"][ \"']")
    )
    equals = re.compile(f"=(?:{behind.replace('X', '=')})")
    # Times and URLs have most of the colons.
    colon = re.compile(f":(?<=[A-Za-z0-9%'\" ]:)(?![0-9/]{{2}})(?:{behind.replace('X', ':')})")
    return equals.search, colon.search
