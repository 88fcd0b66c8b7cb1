"""What a hand-over has to know of one gateway, as values taken from its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from headgate.config import Config
from headgate.config.alerting import AlertsSpec, receivers_of, routing_of, rules_of
from headgate.config.budgets import generated_rules
from headgate.config.history import HistorySpec
from headgate.observe.alerts.built_in import BUILT_IN
from headgate.observe.alerts.receivers import Receiver
from headgate.observe.alerts.routing import Node, Routing
from headgate.observe.alerts.rules import Rule

__all__ = ["Site", "Watched", "site_of"]


@dataclass(frozen=True, slots=True)
class Watched:
    """A service with figures of its own."""

    service: str
    path: str
    scheme: str
    addresses: tuple[str, ...]


_TO_LOG: Final = Routing(Node("root", "log"))


@dataclass(frozen=True, slots=True)
class Site:
    admin: str = "127.0.0.1:9900"
    """Where Prometheus reaches the admin API; empty where it cannot."""
    is_tls: bool = False
    services: tuple[Watched, ...] = ()
    rules: tuple[Rule, ...] = BUILT_IN
    routing: Routing = _TO_LOG
    receivers: tuple[Receiver, ...] = ()
    access_log: str = "/var/log/headgate/access.log"
    log: str = "/var/log/headgate/headgate.log"
    log_format: str = "json"
    prometheus: str = "http://localhost:9090"
    alertmanager: str = "127.0.0.1:9093"
    jaeger: str = "http://localhost:16686"


_DEFAULT: Final = Site()


def site_of(config: Config, *, admin: str = "") -> Site:
    """Of a file. `admin` is where others reach the admin API, if not where it listens."""
    alerts = config.alerts if isinstance(config.alerts, AlertsSpec) else None
    access = config.access_log.path
    logs = [one for one in config.logging.sinks if one.kind == "file" and one.path]
    return Site(
        admin=admin or _reachable(config.admin.bind),
        is_tls=config.admin.tls is not None,
        services=_watched(config),
        rules=_rules(config, alerts) if alerts is not None else (),
        routing=routing_of(alerts) if alerts is not None else _DEFAULT.routing,
        receivers=tuple(receivers_of(alerts).values()) if alerts is not None else (),
        access_log=_DEFAULT.access_log if access in ("stdout", "stderr") else str(access),
        log=str(logs[0].path) if logs else _DEFAULT.log,
        log_format=str((logs[0].format or config.logging.format) if logs else "json"),
    )


def _rules(config: Config, alerts: AlertsSpec) -> tuple[Rule, ...]:
    """Those of the file, and those that follow from its objectives and forecasts."""
    made = rules_of(alerts)
    names = {rule.name for rule in made} | {n for n, said in alerts.rules.items() if said is False}
    more = [replace(rule, every_s=alerts.every) for rule in generated_rules(config)]
    return (*made, *(rule for rule in more if rule.name not in names))


def _reachable(bind: str) -> str:
    if bind == "off" or bind.startswith("unix:"):
        return ""
    host, _, port = bind.rpartition(":")
    return f"127.0.0.1:{port}" if host in ("0.0.0.0", "[::]", "", "*") else bind  # noqa: S104


def _watched(config: Config) -> tuple[Watched, ...]:
    if not isinstance(config.history, HistorySpec):
        return ()
    found = []
    for scrape in config.history.scrape:
        urls = [urlsplit(url) for url in _urls(config, scrape.service)]
        for scheme in sorted({url.scheme for url in urls} & {"http", "https"}):
            addresses = tuple(url.netloc for url in urls if url.scheme == scheme)
            found.append(Watched(scrape.service, scrape.path, scheme, addresses))
    return tuple(found)


def _urls(config: Config, service: str) -> Sequence[str]:
    spec = config.services.get(service)
    return [str(one.url) for one in spec.instances] if spec is not None else []
