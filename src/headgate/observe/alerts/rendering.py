"""Notifications in the words of each service: bytes and mappings, nothing is sent here.

Theory of operation. What an alert says comes from labels, and labels may come from outside: so each
form escapes by its own rules (Slack's three characters, HTML, JSON, header lines of mail), and the
length of everything is bounded below what the service refuses.
"""

from __future__ import annotations

import hashlib
import hmac
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any, Final
from urllib.parse import quote

from headgate.observe.alerts.alert import Alert, finite
from headgate.observe.alerts.notification import Notification
from headgate.observe.alerts.receivers import EmailChannel, HttpChannel, PagerDutyChannel
from headgate.observe.alerts.wording import fill

__all__ = [
    "BODY_NAMES",
    "Links",
    "email_message",
    "http_body",
    "pagerduty_event",
    "signature",
    "slack_body",
    "teams_body",
    "text_of",
    "webhook_body",
]

_SHOWN: Final = 10
_COLOURS: Final = {"critical": "#c62828", "warning": "#ef6c00", "info": "#1565c0"}
_FINE: Final = "#2e7d32"
BODY_NAMES: Final = ("subject", "text", "status", "level", "colour", "group", "note", "link", "id")
"""What the texts of an `http` body may name."""


@dataclass(frozen=True, slots=True)
class Links:
    """Where a reader sees more: templates of URLs over `expr`, `rule`, `route`, `service`, `from`
    and `to` (seconds since 1970).
    """

    templates: Mapping[str, str] = field(default_factory=dict)
    exprs: Mapping[str, str] = field(default_factory=dict)
    """Rule -> its expression."""

    def of(self, alert: Alert, now: float) -> dict[str, str]:
        labels = dict(alert.labels)
        values = {
            "expr": self.exprs.get(alert.rule, ""),
            "rule": alert.rule,
            "id": alert.id,
            "route": labels.get("route", ""),
            "service": labels.get("service", ""),
            "from": str(int(alert.since - 900)),
            "to": str(int((alert.resolved_at or now) + 300)),
        }
        quoted = {name: quote(value, safe="") for name, value in values.items()}
        return {name: fill(text, quoted) for name, text in self.templates.items()}


def text_of(said: Notification, links: Links) -> str:
    """The whole message as plain text."""
    lines = [said.subject]
    if said.note:
        lines.append(said.note)
    for alert in said.alerts[:_SHOWN]:
        lines += ["", f"{_word(alert)}: {alert.summary}"]
        if alert.description:
            lines.append(f"  {alert.description}")
        lines.append(f"  since {_time(alert.since)}; {_labels(alert)}")
        if alert.runbook:
            lines.append(f"  runbook: {alert.runbook}")
        lines += [f"  {name}: {url}" for name, url in links.of(alert, said.at).items()]
    if len(said.alerts) > _SHOWN:
        lines += ["", f"and {len(said.alerts) - _SHOWN} more"]
    return "\n".join(lines) + "\n"


def _word(alert: Alert) -> str:
    if alert.state != "firing":
        return "RESOLVED"
    return alert.level.upper() + (" (flapping)" if alert.is_flapping else "")


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _iso(at: float | None) -> str:
    if at is None:
        return "0001-01-01T00:00:00Z"  # as Alertmanager writes "not yet"
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _labels(alert: Alert) -> str:
    return ", ".join(f"{name}={value}" for name, value in alert.labels)


def _colour(said: Notification) -> str:
    return _FINE if said.kind == "resolved" or not said.firing else _COLOURS[said.level]


# ----------------------------------------------------------------------------------- webhook


def webhook_body(said: Notification, links: Links, external_url: str = "") -> dict[str, Any]:
    """The shape of Alertmanager's webhook, version 4."""
    alerts = [
        {
            "status": "firing" if each.state == "firing" else "resolved",
            "labels": each.matched,
            "annotations": _annotations(each, links.of(each, said.at)),
            "startsAt": _iso(each.fired_at if each.fired_at is not None else each.since),
            "endsAt": _iso(each.resolved_at),
            "generatorURL": links.of(each, said.at).get("history", ""),
            "fingerprint": each.id,
            "value": finite(each.value),
        }
        for each in said.alerts
    ]
    labels = [each["labels"] for each in alerts]
    notes = [each["annotations"] for each in alerts]
    return {
        "version": "4",
        "groupKey": said.dedup,
        "truncatedAlerts": 0,
        "status": "firing" if said.firing else "resolved",
        "receiver": said.receiver.partition("/")[0],
        "groupLabels": dict(said.group),
        "commonLabels": _common(labels),
        "commonAnnotations": _common(notes),
        "externalURL": external_url,
        "alerts": alerts,
        "kind": said.kind,
        "id": said.id,
        "note": said.note,
    }


def _annotations(alert: Alert, links: Mapping[str, str]) -> dict[str, str]:
    said = {
        "summary": alert.summary,
        "description": alert.description,
        "runbook_url": alert.runbook,
    }
    said.update({f"link_{name}": url for name, url in links.items()})
    return {name: text for name, text in said.items() if text}


def _common(rows: Sequence[Any]) -> dict[str, str]:
    if not rows:
        return {}
    first = rows[0]
    return {
        name: value for name, value in first.items() if all(row.get(name) == value for row in rows)
    }


def signature(secret: str, body: bytes, at: float) -> str:
    """`t=SECONDS,v1=HEX`: HMAC-SHA256 over the seconds, a point and the body. The time is signed
    too, so that an old message cannot be sent again later.
    """
    seconds = str(int(at))
    mac = hmac.new(secret.encode(), seconds.encode() + b"." + body, hashlib.sha256)
    return f"t={seconds},v1={mac.hexdigest()}"


# -------------------------------------------------------------------------------------- chat


def _slack_text(text: str, most: int) -> str:
    clipped = text if len(text) <= most else text[: most - 1] + "…"
    return clipped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def slack_body(said: Notification, links: Links, channel: str = "") -> dict[str, Any]:
    """A message of blocks in a coloured attachment; `text` is what a phone shows."""
    blocks: list[dict[str, Any]] = [
        {
            "type": "header",
            "text": {"type": "plain_text", "text": said.subject[:150], "emoji": False},
        }
    ]
    if said.note:
        note = {"type": "mrkdwn", "text": _slack_text(said.note, 500)}
        blocks.append({"type": "context", "elements": [note]})
    for alert in said.alerts[:_SHOWN]:
        lines = [f"*{_word(alert)}* {_slack_text(alert.summary, 600)}"]
        if alert.description:
            lines.append(_slack_text(alert.description, 600))
        lines.append(f"_since {_time(alert.since)}_  {_slack_text(_labels(alert), 600)}")
        urls = dict(links.of(alert, said.at))
        if alert.runbook:
            urls["runbook"] = alert.runbook
        if urls:
            lines.append("  ".join(f"<{_slack_url(url)}|{name}>" for name, url in urls.items()))
        blocks.append(
            {"type": "section", "text": {"type": "mrkdwn", "text": "\n".join(lines)[:3000]}}
        )
    if len(said.alerts) > _SHOWN:
        more = f"and {len(said.alerts) - _SHOWN} more"
        blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": more}]})
    body: dict[str, Any] = {
        "text": _slack_text(said.subject, 500),
        "attachments": [{"color": _colour(said), "blocks": blocks}],
    }
    if channel:
        body["channel"] = channel
    return body


def _slack_url(url: str) -> str:
    return _slack_text(url, 1500).replace("|", "%7C")


def teams_body(said: Notification, links: Links) -> dict[str, Any]:
    """An adaptive card, as workflows of Microsoft Teams take it."""
    body: list[dict[str, Any]] = [
        {
            "type": "TextBlock",
            "text": said.subject[:300],
            "weight": "Bolder",
            "size": "Medium",
            "wrap": True,
            "color": "Good" if not said.firing else "Attention",
        }
    ]
    if said.note:
        body.append({"type": "TextBlock", "text": said.note[:500], "isSubtle": True, "wrap": True})
    for alert in said.alerts[:_SHOWN]:
        facts = [{"title": name, "value": value[:200]} for name, value in alert.labels]
        body.append({"type": "TextBlock", "text": alert.summary[:600], "wrap": True})
        body.append({"type": "FactSet", "facts": facts[:20]})
    urls = links.of(said.alerts[0], said.at) if said.alerts else {}
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
        "actions": [
            {"type": "Action.OpenUrl", "title": name, "url": url} for name, url in urls.items()
        ],
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
    return {"type": "message", "attachments": [attachment]}


def http_body(channel: HttpChannel, said: Notification, links: Links) -> Any:
    """The channel's own body, its texts filled in. Filled texts stay texts: a label cannot add a
    field.
    """
    urls = links.of(said.alerts[0], said.at) if said.alerts else {}
    values = {
        "subject": said.subject,
        "text": text_of(said, links),
        "status": "firing" if said.firing else "resolved",
        "level": said.level,
        "colour": _colour(said),
        "group": ", ".join(f"{name}={value}" for name, value in said.group.items()),
        "note": said.note,
        "link": urls.get("history", ""),
        "id": said.dedup,
    }
    if channel.body is None:
        return {name: values[name] for name in ("subject", "text", "status", "level", "id")}
    return _filled(channel.body, values)


def _filled(body: Any, values: Mapping[str, str]) -> Any:
    if isinstance(body, str):
        return fill(body, values)
    if isinstance(body, Mapping):
        return {str(name): _filled(each, values) for name, each in body.items()}
    if isinstance(body, (list, tuple)):
        return [_filled(each, values) for each in body]
    return body


# --------------------------------------------------------------------------------- PagerDuty


def pagerduty_event(
    channel: PagerDutyChannel, said: Notification, links: Links, source: str
) -> dict[str, Any]:
    """Events API v2: one incident a group, by its dedup key."""
    action = "trigger"
    if said.kind == "resolved":
        action = "resolve"
    elif said.kind == "acknowledged":
        action = "acknowledge"
    event: dict[str, Any] = {
        "routing_key": channel.routing_key,
        "event_action": action,
        "dedup_key": said.dedup,
    }
    if action == "trigger":
        event["client"] = "Headgate"
        event["payload"] = {
            "summary": said.subject[:1024],
            "source": source or "headgate",
            "severity": said.level,
            "timestamp": _iso(said.at),
            "group": ", ".join(f"{name}={value}" for name, value in said.group.items())[:250],
            "custom_details": {"alerts": text_of(said, links)[:20_000], "note": said.note},
        }
        urls = links.of(said.alerts[0], said.at) if said.alerts else {}
        if urls:
            event["links"] = [{"href": url, "text": name} for name, url in urls.items()]
    return event


# -------------------------------------------------------------------------------------- mail


def email_message(channel: EmailChannel, said: Notification, links: Links) -> EmailMessage:
    """Text and HTML. Notifications of one group make one thread in a reader."""
    message = EmailMessage()
    message["Subject"] = " ".join(said.subject.split())[:200]
    message["From"] = channel.sender
    message["To"] = ", ".join(channel.to)
    message["Date"] = format_datetime(datetime.fromtimestamp(said.at, UTC))
    host = channel.sender.rpartition("@")[2].strip("> ") or "headgate"
    message["Message-ID"] = f"<{said.id.replace('/', '.').replace(' ', '_')}@{host}>"
    message["References"] = f"<{said.dedup}@{host}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
    if said.level == "critical" and said.firing:
        message["Importance"] = "high"
    message.set_content(text_of(said, links))
    message.add_alternative(_html(said, links), subtype="html")
    return message


def _html(said: Notification, links: Links) -> str:
    rows = []
    for alert in said.alerts[:_SHOWN]:
        urls = dict(links.of(alert, said.at))
        if alert.runbook:
            urls["runbook"] = alert.runbook
        anchors = " ".join(
            f'<a href="{html.escape(url)}">{html.escape(name)}</a>'
            for name, url in urls.items()
            if url.startswith(("http://", "https://"))
        )
        rows.append(
            f"<tr><td><b>{html.escape(_word(alert))}</b></td>"
            f"<td>{html.escape(alert.summary)}<br>{html.escape(alert.description)}<br>"
            f"<small>since {_time(alert.since)}; {html.escape(_labels(alert))}</small><br>"
            f"{anchors}</td></tr>"
        )
    more = len(said.alerts) - _SHOWN
    return (
        f'<html><body><h3 style="color:{_colour(said)}">{html.escape(said.subject)}</h3>'
        f"<p>{html.escape(said.note)}</p>"
        f'<table cellpadding="6">{"".join(rows)}</table>'
        + (f"<p>and {more} more</p>" if more > 0 else "")
        + "</body></html>\n"
    )
