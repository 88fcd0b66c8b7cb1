"""Files of credentials in YAML or JSON: entries with known fields, judged precisely.

Theory of operation. A document is parsed into plain values first; only when an entry is wrong is
it parsed a second time, for the line. Messages name the entry and the field and never show the
value of a field, because any of them may hold a secret that was put in the wrong place.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class BadEntry(ValueError):
    """What is wrong with one field of an entry: the path to it and the rule."""

    def __init__(self, where: Sequence[str | int], rule: str) -> None:
        self.where = tuple(where)
        self.rule = rule
        super().__init__(f"{_written(self.where)}: {rule}" if where else rule)


def parse_document(content: bytes) -> Any:
    """The plain values of a file; ValueError with the line where it is no YAML or JSON."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text (byte {error.start})") from None
    if text.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(text)
        except ValueError:
            pass  # YAML has a flow style that begins likewise; its message has a line too
        except RecursionError:
            raise ValueError("is nested too deeply") from None
    import yaml  # for the few files that are not JSON; a sidecar has none

    try:
        return yaml.load(text, Loader=_loader())  # noqa: S506 - a safe one
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}: " if mark is not None else ""
        # Not the snippet of the message, which quotes the file.
        raise ValueError(f"{line}is not valid YAML") from None
    except (yaml.YAMLError, ValueError):
        raise ValueError("is not valid YAML") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def _loader() -> Any:
    """A safe loader whichever it is: the one of C is ten times as quick."""
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def with_line(content: bytes, error: BadEntry) -> str:
    """The words of a fault with its line, where one is found."""
    import yaml

    try:
        node: Any = yaml.compose(content.decode("utf-8-sig"), Loader=_loader())
        for step in error.where:
            if isinstance(step, int):
                node = node.value[step]
            else:
                found = [pair for pair in node.value if pair[0].value == step]
                if not found:
                    break
                node = found[0][1] if step != error.where[-1] else found[0][0]
        return f"line {node.start_mark.line + 1}: {error}"
    except (yaml.YAMLError, AttributeError, IndexError, TypeError, ValueError, RecursionError):
        return str(error)


class Fields:
    """One entry, whose fields are asked for one by one."""

    def __init__(
        self, given: object, where: Sequence[str | int], known: Iterable[str], plain: str = ""
    ) -> None:
        """With `plain`, say this of fields that look like a credential in plain."""
        self.where = tuple(where)
        if not isinstance(given, Mapping):
            raise BadEntry(where, "must be a mapping")
        self.given: dict[str, Any] = {str(key): value for key, value in given.items()}
        allowed = list(known)
        for key in self.given:
            if key not in allowed:
                if plain and key in {"key", "secret", "password", "token", "plain", "value"}:
                    raise BadEntry((*where, key), plain)
                near = difflib.get_close_matches(key, allowed, 1)
                hint = f'; did you mean "{near[0]}"?' if near else ""
                raise BadEntry((*where, key), f"is not a field that is known{hint}")

    def fault(self, name: str, rule: str) -> BadEntry:
        return BadEntry((*self.where, name), rule)

    def text(self, name: str, default: str = "") -> str:
        value = self.given.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise self.fault(name, "must be text")
        return str(value)

    def needed(self, name: str) -> str:
        value = self.text(name)
        if not value:
            raise BadEntry(self.where, f"has no {name}")
        return value

    def flag(self, name: str) -> bool:
        value = self.given.get(name, False)
        if value is None:
            return False
        if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
            return value.strip().lower() == "true"
        if not isinstance(value, bool):
            raise self.fault(name, "is neither true nor false")
        return value

    def words(self, name: str) -> frozenset[str]:
        return frozenset(self.texts(name))

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.given.get(name)
        if value is None:
            return ()
        items = value if isinstance(value, (list, tuple)) else [value]
        for item in items:
            if isinstance(item, bool) or not isinstance(item, (str, int, float)):
                raise self.fault(name, "must be text or a list of texts")
        return tuple(str(item) for item in items)

    def networks(self, name: str) -> tuple[IPNetwork, ...]:
        found = []
        for text in self.texts(name):
            try:
                found.append(ipaddress.ip_network(text.strip()))
            except ValueError:
                raise self.fault(
                    name, "holds what is not an address or network; write 10.0.0.0/8"
                ) from None
        return tuple(found)

    def time(self, name: str) -> float | None:
        """Wall time in seconds; None when nothing is said."""
        value = self.given.get(name)
        if value is None:
            return None
        try:
            return wall_of(value)
        except ValueError as error:
            raise self.fault(name, str(error)) from None


def wall_of(value: object) -> float:
    """The wall time of an ISO 8601 text, a date or datetime of YAML, or seconds since 1970."""
    if isinstance(value, bool):
        raise ValueError("is not a time; write 2027-01-31T12:00:00Z")
    if isinstance(value, (int, float)):
        if not 0 <= value < 1e11:  # nor what is no number at all
            raise ValueError("is not a time; write 2027-01-31T12:00:00Z")
        return float(value)
    if isinstance(value, str):
        text = value.strip()
        try:
            value = date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(text)
        except ValueError:
            raise ValueError("is not a time; write 2027-01-31T12:00:00Z") from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("has no time zone; write 2027-01-31T12:00:00Z")
        return value.timestamp()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    raise ValueError("is not a time; write 2027-01-31T12:00:00Z")


def is_within(client_ip: str, networks: Sequence[IPNetwork]) -> bool:
    """Whether an address is in one of these; an IPv4 address in IPv6 clothes is that address."""
    try:
        address = ipaddress.ip_address(client_ip)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def _written(where: Sequence[str | int]) -> str:
    text = ""
    for step in where:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text
