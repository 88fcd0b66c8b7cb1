"""`alerts: receivers:`, the ways in which somebody is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from headgate.config.fields import (
    Count,
    FilePath,
    Flag,
    HeaderValue,
    Positive,
    Spec,
    Text,
    Words,
)
from headgate.config.forms import OneOrMore, Shorthand
from headgate.config.naming import Url
from headgate.observe.alerts.receivers import (
    Channel,
    CommandChannel,
    EmailChannel,
    FileChannel,
    HttpChannel,
    LogChannel,
    PagerDutyChannel,
    Receiver,
    SlackChannel,
    TeamsChannel,
    WebhookChannel,
)
from headgate.observe.alerts.rules import AlertDefaults

__all__ = ["LOG", "ReceiverSpec", "receiver_from", "receivers_from"]

_D: Final = AlertDefaults()
LOG: Final = "log"
"""A receiver that is there without being written: the log of the control process."""


def _text_as(name: str) -> Shorthand:
    return Shorthand(
        lambda value: {name: value} if isinstance(value, str) else value,
        {"type": "string"},
        f"or text, which is `{name}`",
    )


class SlackSpec(Spec):
    """A Slack channel, by an incoming webhook. Text is `url`."""

    url: Url
    """The webhook. It is a secret: write `${env:NAME}`."""

    channel: Text = ""
    """Another channel than that of the webhook, where it may be chosen."""

    ca_file: FilePath | None = None
    """The authority that signed the server's certificate; by default those of the system."""


class TeamsSpec(Spec):
    """A channel of Microsoft Teams, by a workflow. Text is `url`."""

    url: Url
    """The workflow's address. It is a secret: write `${env:NAME}`."""

    ca_file: FilePath | None = None
    """The authority that signed the server's certificate; by default those of the system."""


class WebhookSpec(Spec):
    """Any program that takes the JSON of Alertmanager's webhook (version 4). Text is `url`."""

    url: Url
    """Where it is sent to (POST)."""

    secret: Text = ""
    """With it each message is signed: `x-headgate-signature: t=SECONDS,v1=HEX`, the HMAC-SHA256
    of the seconds, a point and the body. Write `${env:NAME}`."""

    headers: dict[Text, HeaderValue] = Field(default_factory=dict)
    """Headers to add."""

    ca_file: FilePath | None = None
    """The authority that signed the server's certificate; by default those of the system."""


class HttpSpec(Spec):
    """Any service that takes JSON of its own shape."""

    url: Url
    """Where it is sent to (POST)."""

    body: Annotated[Any, Words("any JSON")] = None
    """The message. Its texts are templates over `subject`, `text`, `status`, `level`, `colour`,
    `group`, `note`, `link` and `id`."""

    headers: dict[Text, HeaderValue] = Field(default_factory=dict)
    """Headers to add."""

    ca_file: FilePath | None = None
    """The authority that signed the server's certificate; by default those of the system."""


class PagerDutySpec(Spec):
    """Incidents by the Events API v2 of PagerDuty, or a service that speaks it. Text is `key`."""

    key: Text
    """The integration key. It is a secret: write `${env:NAME}`."""

    url: Url = "https://events.pagerduty.com/v2/enqueue"
    """Where events go."""

    ca_file: FilePath | None = None
    """The authority that signed the server's certificate; by default those of the system."""


class EmailSpec(Spec):
    """Mail, as text and HTML. Needs `aiosmtplib`."""

    host: Text
    """The mail server."""

    port: Annotated[Positive, Field(le=65535)] | None = None
    """587 with `starttls`, 465 with `tls`, 25 with `none`."""

    from_: Annotated[Text, Field(alias="from")]
    """The sender."""

    to: Annotated[tuple[Text, ...], OneOrMore]
    """Who gets it."""

    tls: Literal["starttls", "tls", "none"] = "starttls"
    """How the connection is secured; `none` is for a server on this machine."""

    username: Text = ""
    """To log in with."""

    password: Text = ""
    """Write `${env:NAME}`."""

    ca_file: FilePath | None = None
    """The authority that signed the server's certificate; by default those of the system."""


class ReceiverSpec(Spec):
    """Who is told, by one way or several. Each way fails and is tried again on its own."""

    slack: Annotated[SlackSpec, _text_as("url")] | None = None
    """A channel of Slack."""

    teams: Annotated[TeamsSpec, _text_as("url")] | None = None
    """A channel of Microsoft Teams."""

    email: EmailSpec | None = None
    """Mail."""

    webhook: Annotated[WebhookSpec, _text_as("url")] | None = None
    """A program of your own."""

    http: HttpSpec | None = None
    """Another service."""

    pagerduty: Annotated[PagerDutySpec, _text_as("key")] | None = None
    """Incidents."""

    command: Annotated[tuple[Text, ...], OneOrMore] | None = None
    """A program to run for each notification, without a shell. It reads the webhook's JSON from
    its standard input."""

    file: Text | None = None
    """A file that gets a line of JSON for each."""

    log: Flag = False
    """The log of the control process."""

    per_hour: Count | None = None
    """So many notifications in an hour; what comes after is one digest later. 60 unless said, and
    0 (no bound) with `pagerduty` or `webhook`, which keep order by themselves."""

    resolved: Flag = True
    """Whether ends are told."""


def receivers_from(written: Mapping[str, ReceiverSpec]) -> dict[str, Receiver]:
    found = {name: receiver_from(name, said) for name, said in written.items()}
    found.setdefault(LOG, Receiver(LOG, (LogChannel(),)))
    return found


def receiver_from(name: str, said: ReceiverSpec) -> Receiver:
    ways: list[Channel] = []
    if (slack := said.slack) is not None:
        ways.append(SlackChannel(slack.url, slack.channel, _path(slack.ca_file)))
    if (teams := said.teams) is not None:
        ways.append(TeamsChannel(teams.url, _path(teams.ca_file)))
    if (mail := said.email) is not None:
        port = mail.port or {"starttls": 587, "tls": 465, "none": 25}[mail.tls]
        ways.append(
            EmailChannel(
                host=mail.host,
                sender=mail.from_,
                to=mail.to,
                port=port,
                tls=mail.tls,
                username=mail.username,
                password=mail.password,
                ca_file=_path(mail.ca_file),
            )
        )
    if (hook := said.webhook) is not None:
        ways.append(WebhookChannel(hook.url, hook.secret, hook.headers, _path(hook.ca_file)))
    if (other := said.http) is not None:
        ways.append(HttpChannel(other.url, other.body, other.headers, _path(other.ca_file)))
    if (pager := said.pagerduty) is not None:
        ways.append(PagerDutyChannel(pager.key, pager.url, _path(pager.ca_file)))
    if said.command:
        ways.append(CommandChannel(said.command))
    if said.file is not None:
        ways.append(FileChannel(said.file))
    if said.log:
        ways.append(LogChannel())
    per_hour = said.per_hour
    if per_hour is None:
        keeps_order = said.pagerduty is not None or said.webhook is not None
        per_hour = 0 if keeps_order else _D.per_hour
    return Receiver(name, tuple(ways), per_hour, said.resolved)


def _path(name: Any) -> str | None:
    return None if name is None else str(name)
