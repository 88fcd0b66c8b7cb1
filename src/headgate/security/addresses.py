"""Which client addresses may come in: lists of networks to allow and to deny.

Theory of operation
-------------------
    denied?  -> refused
    allowed? -> let in
    neither  -> let in where there is no list of whom to allow, else refused

So deny always wins, however narrow the network that allows: taking somebody out must not depend on
what else the file says. An address that cannot be read is in no list.

An IPv4 address in IPv6 form (`::ffff:192.0.2.1`, RFC 4291 section 2.5.5.2) is the IPv4 address, in
lists too: or else whoever comes over IPv6 sockets walks around a list.

`Networks` answers by binary search: networks are sorted, and what lies inside another one is
dropped, so the only candidate for an address is the last network that begins at or before it. Each
network keeps its text, for logs; the longer of two equal ones is never looked at.

Files are read when this is built, that is when the configuration is loaded, and not again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Final

from headgate.security.denied import Denied

__all__ = [
    "NAMED",
    "NETWORKS_MAX",
    "AddressRules",
    "Addresses",
    "Networks",
    "address_of",
    "network_of",
    "network_text",
    "read_networks",
]

NETWORKS_MAX: Final = 1_000_000
"""Of one list; more are refused where the list is read."""
_MEMO_MAX: Final = 8192
_FAULTS_TOLD: Final = 5
_MAPPED: Final = bytes(10) + b"\xff\xff"
_BITS: Final = {4: 32, 6: 128}

NAMED: Final = {
    "loopback": ("127.0.0.0/8", "::1"),
    "link-local": ("169.254.0.0/16", "fe80::/10"),
    # RFC 1918, RFC 6598 (between a carrier and its customers), RFC 4193.
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"),
}
"""Words for networks. `private` holds neither loopback nor link-local."""

Address = tuple[int, int]
"""Version (4 or 6) and number."""
Network = tuple[int, int, int]
"""Version, first address, bits of the prefix."""


def address_of(text: str) -> Address | None:
    """The address; None if this is none."""
    try:
        if ":" not in text:
            return 4, int.from_bytes(inet_pton(AF_INET, text))
        packed = inet_pton(AF_INET6, text.partition("%")[0])
    except (OSError, ValueError):
        return None
    if packed.startswith(_MAPPED):
        return 4, int.from_bytes(packed[12:])
    return 6, int.from_bytes(packed)


def network_of(text: str) -> Network:
    """The network, or ValueError with a rule that reads on after the value."""
    said, slash, length = text.partition("/")
    mapped = ":" in said and "." in said
    address = address_of(said) if "%" not in said else None
    if address is None:
        raise ValueError(
            "is not an address or network; write 192.0.2.0/24, 192.0.2.7 or 2001:db8::/32"
        )
    version, number = address
    bits = _BITS[version]
    if not slash:
        return version, number, bits
    if not (length.isascii() and length.isdigit() and len(length) <= 3):
        raise ValueError("does not end in the length of a prefix; write 192.0.2.0/24")
    prefix = int(length)
    if version == 4 and (mapped or ":" in said):
        prefix -= 96  # the IPv4 part of an address in IPv6 form
    if not 0 <= prefix <= bits:
        raise ValueError(f"has no prefix of 0 to {bits} bits")
    if number & ((1 << (bits - prefix)) - 1):
        right = network_text((version, number >> (bits - prefix) << (bits - prefix), prefix))
        raise ValueError(f"has bits set beyond its prefix; write {right}")
    return version, number, prefix


def network_text(network: Network) -> str:
    """As it is written: an address alone where it is only one."""
    version, number, prefix = network
    bits = _BITS[version]
    family = AF_INET if version == 4 else AF_INET6
    text = inet_ntop(family, number.to_bytes(bits // 8))
    return text if prefix == bits else f"{text}/{prefix}"


def read_networks(path: str) -> Iterator[Network]:
    """The networks of a file: one a line, `#` and `;` begin a comment.

    ValueError names the first few lines that are wrong.
    """
    faults: list[str] = []
    try:
        text = Path(path).read_text("utf-8-sig")
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read: {(error.strerror or str(error)).lower()}"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text") from error
    for number, line in enumerate(text.splitlines(), 1):
        said = line.partition("#")[0].partition(";")[0].strip()
        if not said:
            continue
        try:
            yield network_of(said)
        except ValueError as error:
            if len(faults) == _FAULTS_TOLD:
                faults.append("and more")
                break
            faults.append(f'{path}:{number}: "{said[:60]}" {error}')
    if faults:
        raise ValueError("; ".join(faults))


class Networks:
    """A set of networks, for asking which one an address is in."""

    __slots__ = ("_ends", "_names", "_starts", "count")

    def __init__(self, networks: Iterable[Network]) -> None:
        self._starts: dict[int, list[int]] = {4: [], 6: []}
        self._ends: dict[int, list[int]] = {4: [], 6: []}
        self._names: dict[int, list[Network]] = {4: [], 6: []}
        self.count = 0
        # The wider of two that begin at the same address comes first, and swallows the other.
        for network in sorted(networks):
            version, number, prefix = network
            ends = self._ends[version]
            last = number | ((1 << (_BITS[version] - prefix)) - 1)
            if ends and last <= ends[-1]:
                continue
            self._starts[version].append(number)
            ends.append(last)
            self._names[version].append(network)
            self.count += 1
            if self.count > NETWORKS_MAX:
                raise ValueError(f"a list may have {NETWORKS_MAX:,} networks and this has more")

    def find(self, address: Address) -> Network | None:
        """The network that this address is in."""
        version, number = address
        at = bisect_right(self._starts[version], number) - 1
        if at >= 0 and number <= self._ends[version][at]:
            return self._names[version][at]
        return None

    def __bool__(self) -> bool:
        return self.count > 0


@dataclass(frozen=True, slots=True)
class AddressRules:
    """Networks are texts: `192.0.2.0/24`, `2001:db8::1`, or a word of `NAMED`."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    allow_files: tuple[str, ...] = ()
    deny_files: tuple[str, ...] = ()
    status: int = 403
    is_cut: bool = False
    """Close the connection without an answer."""


def _networks(texts: tuple[str, ...], files: tuple[str, ...]) -> Iterator[Network]:
    for text in texts:
        for each in NAMED.get(text, (text,)):
            try:
                yield network_of(each)
            except ValueError as error:
                raise ValueError(f'"{each[:60]}" {error}') from None
    for path in files:
        yield from read_networks(path)


class Addresses:
    """Built from rules, ValueError if they or their files cannot be used; then it only answers."""

    __slots__ = ("_allow", "_deny", "_has_allow", "_memo", "_refusal", "rules")

    def __init__(self, rules: AddressRules) -> None:
        self.rules = rules
        self._allow = Networks(_networks(rules.allow, rules.allow_files))
        self._deny = Networks(_networks(rules.deny, rules.deny_files))
        # An empty file of whom to allow allows nobody: it does not switch the list off.
        self._has_allow = bool(rules.allow or rules.allow_files)
        self._memo: dict[str, Denied | None] = {}
        self._refusal = self._denied("is in no allowed network")

    def check(self, client_ip: str) -> Denied | None:
        memo = self._memo
        try:
            return memo[client_ip]
        except KeyError:
            pass
        found = self._look(client_ip)
        if len(memo) >= _MEMO_MAX:
            memo.clear()  # to let go of the oldest each time would cost more than to ask again
        memo[client_ip] = found
        return found

    def _look(self, client_ip: str) -> Denied | None:
        address = address_of(client_ip)
        if address is None:
            return self._refusal if self._has_allow else None
        denied = self._deny.find(address)
        if denied is not None:
            return self._denied(f"is in {network_text(denied)}, which is denied")
        if not self._has_allow or self._allow.find(address) is not None:
            return None
        return self._refusal

    def _denied(self, detail: str) -> Denied:
        return Denied(
            "addresses",
            "this address is not let in",
            f"the address {detail}",
            status=self.rules.status,
            is_cut=self.rules.is_cut,
        )

    def snapshot(self) -> dict[str, object]:
        return {
            "allow": self._allow.count if self._has_allow else None,
            "deny": self._deny.count,
        }
