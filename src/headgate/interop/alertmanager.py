"""For Alertmanager: the routes of the file, and receivers whose secrets come from files.

Theory of operation. Routes, inhibitions and mute windows are those of `observe.alerts.exporting`.
Receivers are filled in as far as Alertmanager has the like, and never with a secret: what is one
here is the name of a file there, which whoever installs it writes. Ways that Alertmanager has not
(a command, a file, the log) are left out; a receiver that has no other is there without any.
"""

from __future__ import annotations

from typing import Any, Final

from headgate.interop.site import Site
from headgate.interop.writing import as_yaml, note
from headgate.observe.alerts.exporting import to_alertmanager
from headgate.observe.alerts.receivers import (
    EmailChannel,
    PagerDutyChannel,
    Receiver,
    SlackChannel,
    WebhookChannel,
)

__all__ = ["configuration", "files"]

KIND: Final = "alertmanager"
BRIDGE: Final = "http://127.0.0.1:9/"
"""Where nobody listens: the address of a webhook may be a secret, so it does not go out."""


def files(site: Site) -> dict[str, str]:
    made = configuration(site)
    wanted = sorted(_secrets(made))
    lines = [note(KIND)]
    if wanted:
        lines += [
            "Secrets are read from files beside this one; each holds one and nothing else:",
            *(f"    {name}" for name in wanted),
        ]
    if BRIDGE in str(made):
        lines.append(f"{BRIDGE} stands where an address has to be filled in.")
    lines.append("`amtool check-config alertmanager.yml` asks for Alertmanager 0.25 or later.")
    return {"alertmanager.yml": as_yaml(made, *lines)}


def configuration(site: Site) -> dict[str, Any]:
    made = to_alertmanager(site.routing, site.receivers)
    # There may be several gateways there: what is wrong with one explains nothing of another.
    made["inhibit_rules"][0]["equal"].insert(1, "instance")
    known = {one.name: one for one in site.receivers}
    made["receivers"] = [
        _receiver(one["name"], known.get(one["name"])) for one in made["receivers"]
    ]
    return made


def _receiver(name: str, receiver: Receiver | None) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name}
    if receiver is None:
        return made
    tells = {"send_resolved": receiver.tells_resolved}
    for each in receiver.channels:
        match each:
            case SlackChannel():
                one: dict[str, Any] = {"api_url_file": f"secrets/{name}-slack-url", **tells}
                if each.channel:
                    one["channel"] = each.channel
                one["title"] = "{{ .CommonAnnotations.summary }}"
                one["text"] = (
                    "{{ range .Alerts }}{{ .Annotations.summary }}\n"
                    "{{ .Annotations.description }}\n{{ end }}"
                )
                made.setdefault("slack_configs", []).append(one)
            case PagerDutyChannel():
                one = {"routing_key_file": f"secrets/{name}-pagerduty-key", **tells}
                one["severity"] = "{{ .CommonLabels.severity }}"
                made.setdefault("pagerduty_configs", []).append(one)
            case EmailChannel():
                made.setdefault("email_configs", []).extend(_mails(name, each, tells))
            case WebhookChannel():
                made.setdefault("webhook_configs", []).append({"url": BRIDGE, **tells})
            case _:
                pass  # Alertmanager has nothing like it
    return made


def _mails(name: str, each: EmailChannel, tells: dict[str, bool]) -> list[dict[str, Any]]:
    made: dict[str, Any] = {
        "from": each.sender,
        "smarthost": f"{each.host}:{each.port}",
        "require_tls": each.tls != "none",
        **tells,
    }
    if each.username:
        made["auth_username"] = each.username
        made["auth_password_file"] = f"secrets/{name}-mail-password"
    return [{"to": to, **made} for to in each.to]


def _secrets(content: Any) -> set[str]:
    if isinstance(content, dict):
        return {name for value in content.values() for name in _secrets(value)}
    if isinstance(content, list):
        return {name for value in content for name in _secrets(value)}
    return {content} if isinstance(content, str) and content.startswith("secrets/") else set()
