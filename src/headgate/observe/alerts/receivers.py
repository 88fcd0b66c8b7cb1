"""Who is told, and by what way: values, with the secrets kept out of every repr.

A receiver is a name with one or more channels. Each channel sends on its own: a mail server that is
away does not hold up the chat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "Channel",
    "CommandChannel",
    "EmailChannel",
    "FileChannel",
    "HttpChannel",
    "LogChannel",
    "PagerDutyChannel",
    "Receiver",
    "SlackChannel",
    "TeamsChannel",
    "WebhookChannel",
]


@dataclass(frozen=True, slots=True)
class SlackChannel:
    url: str = field(repr=False)
    channel: str = ""
    ca_file: str | None = None
    kind: Literal["slack"] = "slack"


@dataclass(frozen=True, slots=True)
class TeamsChannel:
    url: str = field(repr=False)
    ca_file: str | None = None
    kind: Literal["teams"] = "teams"


@dataclass(frozen=True, slots=True)
class WebhookChannel:
    url: str = field(repr=False)
    secret: str = field(default="", repr=False)
    """Signs each message; see `rendering.signature`."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: str | None = None
    kind: Literal["webhook"] = "webhook"


@dataclass(frozen=True, slots=True)
class HttpChannel:
    """Any other service that takes JSON: `body` is the message with templates for its texts."""

    url: str = field(repr=False)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: str | None = None
    kind: Literal["http"] = "http"


@dataclass(frozen=True, slots=True)
class PagerDutyChannel:
    routing_key: str = field(repr=False)
    url: str = "https://events.pagerduty.com/v2/enqueue"
    ca_file: str | None = None
    kind: Literal["pagerduty"] = "pagerduty"


@dataclass(frozen=True, slots=True)
class EmailChannel:
    host: str
    sender: str
    to: tuple[str, ...]
    port: int = 587
    tls: Literal["starttls", "tls", "none"] = "starttls"
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: str | None = None
    kind: Literal["email"] = "email"


@dataclass(frozen=True, slots=True)
class CommandChannel:
    argv: tuple[str, ...]
    """Run without a shell; the message comes on standard input as the webhook's JSON."""
    kind: Literal["command"] = "command"


@dataclass(frozen=True, slots=True)
class FileChannel:
    path: str
    kind: Literal["file"] = "file"


@dataclass(frozen=True, slots=True)
class LogChannel:
    kind: Literal["log"] = "log"


Channel = (
    SlackChannel
    | TeamsChannel
    | WebhookChannel
    | HttpChannel
    | PagerDutyChannel
    | EmailChannel
    | CommandChannel
    | FileChannel
    | LogChannel
)


@dataclass(frozen=True, slots=True)
class Receiver:
    name: str
    channels: tuple[Channel, ...]
    per_hour: int = 0
    tells_resolved: bool = True

    def channel_ids(self) -> dict[str, Channel]:
        """`ops/slack`, and `ops/slack-2` for a second one of a kind."""
        found: dict[str, Channel] = {}
        for each in self.channels:
            base = f"{self.name}/{each.kind}"
            ident, count = base, 1
            while ident in found:
                count += 1
                ident = f"{base}-{count}"
            found[ident] = each
        return found
