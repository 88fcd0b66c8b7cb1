"""Which names say that their value is a secret.

Theory of operation. A name is taken apart at anything that is no letter or digit, and where a small
letter meets a capital: `stripe_secret_key`, `accessToken` and `X-Api-Key` are words. The last words
decide, since that is where names say what a value is: a `db_password` is one, a `password_file` and
a `token_type` are not. What an operator adds is compared whole, without regard to case and to `-`,
`_` and `.`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["SecretNames"]

_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_LONGEST: Final = 100
_CACHE_MAX: Final = 4096
# fmt: off
_LAST: Final = frozenset(
    {
        "password", "passwords", "passwd", "pwd", "passphrase", "pin", "cvv", "cvc", "otp",
        "totp", "secret", "secrets", "token", "jwt", "authorization", "cookie", "cookies",
        "credential", "credentials", "apikey", "privatekey", "signature", "assertion",
        "mnemonic", "passcode", "verifier", "dsn",
    }
)
_KEYS: Final = (
    "api", "access", "secret", "private", "signing", "encryption", "client", "auth", "account",
    "master", "shared", "consumer", "license", "hmac",
)
_CODES: Final = ("auth", "authorization", "recovery", "backup", "device", "security")
# fmt: on
_LAST_TWO: Final = frozenset(
    {
        *(f"{word} key" for word in _KEYS),
        *(f"{word} code" for word in _CODES),
        "card number",
        "pass word",
    }
)
_SQUEEZE: Final = re.compile(r"[-_. ]")


class SecretNames:
    def __init__(self, more: Iterable[str] = ()) -> None:
        self._more = frozenset(_SQUEEZE.sub("", name).lower() for name in more)
        self._known: dict[str, bool] = {}

    @property
    def more(self) -> frozenset[str]:
        return self._more

    def has(self, name: str) -> bool:
        known = self._known.get(name)
        if known is None:
            known = self._judge(name[-_LONGEST:])
            if len(self._known) >= _CACHE_MAX:
                self._known.clear()
            if len(name) <= _LONGEST:
                self._known[name] = known
        return known

    def _judge(self, name: str) -> bool:
        if self._more and _SQUEEZE.sub("", name).lower() in self._more:
            return True
        words = [word.lower() for word in _WORDS.findall(name)]
        while words and words[-1].isdigit():
            words.pop()  # password2
        if not words:
            return False
        return words[-1] in _LAST or " ".join(words[-2:]) in _LAST_TWO
