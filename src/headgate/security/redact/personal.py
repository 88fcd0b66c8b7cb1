"""Where people can be found: e-mail addresses, telephone numbers, IP addresses.

Every expression is linear in the text: what may be long is entered at its beginning only.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final

__all__ = ["replace_addresses", "replace_emails", "replace_phones", "truncated"]

_EMAIL: Final = re.compile(
    r"(?<![\w.+'%-])((?:[\w.+'-]|%(?!40)[0-9A-Fa-f]{2})++)(?:@|%40)"
    r"((?:[\w-]++\.)++[^\W\d_]{2,63})(?![\w-])"
)
_PHONE: Final = re.compile(
    r"(?<![0-9A-Za-z+%])(?:\+|%2[Bb])[1-9][0-9]{0,3}(?:[ ().-]{0,2}[0-9]{1,6}){2,7}(?![0-9A-Za-z])"
)
_V4: Final = re.compile(r"(?<![0-9A-Za-z.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9A-Za-z]|\.[0-9])")
_V6: Final = re.compile(r"(?<![0-9A-Za-z:.])[0-9A-Fa-f:]{2,45}+(?![0-9A-Za-z:])")


def replace_emails(text: str, shown: Callable[[str], str]) -> str:
    return _EMAIL.sub(lambda found: shown(found[0]), text)


def replace_phones(text: str, shown: Callable[[str], str]) -> str:
    """Numbers in the international form, +49 30 1234567; others look like anything."""

    def one(found: re.Match[str]) -> str:
        number = found[0].replace("%2B", "+").replace("%2b", "+")
        digits = sum(char.isdigit() for char in number)
        return shown(number) if 8 <= digits <= 15 else found[0]

    return _PHONE.sub(one, text)


def replace_addresses(text: str, shown: Callable[[str], str]) -> str:
    def one(found: re.Match[str]) -> str:
        try:
            ipaddress.ip_address(found[0])
        except ValueError:
            return found[0]
        return shown(found[0])

    text = _V4.sub(one, text)
    return _V6.sub(one, text) if text.count(":") > 1 else text


def truncated(address: str) -> str:
    """The network of an address: /24, or /48 of IPv6."""
    version = ipaddress.ip_address(address).version
    network = ipaddress.ip_network(f"{address}/{24 if version == 4 else 48}", strict=False)
    return str(network.network_address)
