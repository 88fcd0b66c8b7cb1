"""The departments of a control process, made and wired to what they hear.

Control names them for its endpoints; what each is made of, and which news it lives on, stands here.
A new department is an attribute, its wiring and a place in `observing`: those before it may be
asked by it, and outlive it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from headgate.control.certificates import Certificates
from headgate.control.fleet import Fleet
from headgate.control.hub import Hub
from headgate.control.observing.alerts import Alerts
from headgate.control.observing.capacity import Capacity
from headgate.control.observing.history import History
from headgate.control.observing.live_views import LiveViews
from headgate.control.observing.logs import Logs
from headgate.control.observing.machine import Machine
from headgate.control.observing.monitors import Monitors
from headgate.control.observing.observing import Observing, Surroundings
from headgate.control.observing.pushing import MetricsPushing
from headgate.control.observing.slos import Slos
from headgate.control.observing.traces import Traces
from headgate.control.process_logs import LEVELS_TOPIC
from headgate.control.registering import Registering
from headgate.control.reload import ReloadResult
from headgate.control.shared import Shared
from headgate.control.topology import Topology
from headgate.security.ban_news import TOPIC as BANS
from headgate.wire.resolve import Resolver

__all__ = ["Departments"]


class Departments:
    def __init__(
        self,
        around: Surroundings,
        hub: Hub,
        shared: Shared,
        fleet: Fleet,
        *,
        certificates: Certificates,
        resolver: Resolver,
        workers: Callable[[], list[dict[str, Any]]],
        last_reload: Callable[[], ReloadResult | None],
    ) -> None:
        self.live = LiveViews(
            refresh=around.refresh,
            merged=around.merged,
            health=around.health,
            workers=workers,
            last_reload=last_reload,
            publish=shared.publish,
        )
        hub.hear("requests", self.live.requests_heard)
        shared.subscribe("breaker", self.live.breaker_heard)
        shared.subscribe("outlier", self.live.outlier_heard)
        shared.subscribe("moved", self.live.moved_heard)
        fleet.subscribe(BANS, self.live.ban_heard)
        self.logs = Logs(around, shared.publish)
        hub.hear("logs", self.logs.heard)
        shared.subscribe(LEVELS_TOPIC, self.logs.levels_heard)
        self.traces = Traces(around)
        hub.hear("spans", self.traces.heard)
        self.history = History(around)
        self.machine = Machine(around.state_dir, certificates.snapshot)
        self.alerts = Alerts(
            around,
            self.history.ask_briefly,
            self.history.mark,
            self.history.ask_range,
            tell=self.live.tell,
        )
        self.slos = Slos(around, self.history)
        self.capacity = Capacity(around, self.history)
        self.monitors = Monitors(around, resolver, self._mark_and_tell)
        self.registry = Registering(around, shared, resolver, self.live.tell)
        self.topology = Topology(record=around.record, tell=self.live.tell)
        self.pushing = MetricsPushing(around)
        self.observing = Observing(
            (
                self.machine,
                self.history,
                self.alerts,
                self.logs,
                self.traces,
                self.live,
                self.slos,
                self.capacity,
                self.monitors,
                self.registry,
                self.topology,
                self.pushing,
            )
        )

    def _mark_and_tell(
        self, at: float, kind: str, text: str, attributes: Mapping[str, str]
    ) -> None:
        """For whoever looks at the history later, and for whoever looks now."""
        self.history.mark(at, kind, text, attributes)
        self.live.tell(kind, text, **attributes)
