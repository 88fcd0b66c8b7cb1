"""What is to be forecast, and the alerts that come of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from headgate.observe.alerts.rules import Rule

__all__ = ["Planning", "ServicePlan", "capacity_rules"]

_DAY_S: Final = 86400.0


@dataclass(frozen=True, slots=True)
class ServicePlan:
    service: str
    latency_s: float = 0.5
    headroom: float = 0.3
    spare: int = 1


@dataclass(frozen=True, slots=True)
class Planning:
    every_s: float = 900.0
    horizon_s: float = 30 * _DAY_S
    history_s: float = 56 * _DAY_S
    disk_s: float = 3 * _DAY_S
    memory_s: float = _DAY_S
    headroom: float = 0.3
    spare: int = 1
    services: tuple[ServicePlan, ...] = ()

    def of(self, service: str) -> ServicePlan:
        for each in self.services:
            if each.service == service:
                return each
        return ServicePlan(service, headroom=self.headroom, spare=self.spare)


def capacity_rules(planning: Planning) -> list[Rule]:
    """Alerts on what will be full, by the middle of the forecast."""
    made = []
    for resource, within_s, what in (
        ("disk", planning.disk_s, "The disk of {name}"),
        ("memory", planning.memory_s, "Memory of this machine"),
    ):
        if within_s > 0:
            made.append(
                Rule(
                    name=f"capacity-{resource}",
                    expr=(
                        f'headgate_capacity_full_seconds{{resource="{resource}",bound="likely"}}'
                        f" < {within_s:g}"
                    ),
                    level="warning",
                    for_s=1800.0,
                    keep_firing_s=600.0,
                    summary=f"{what} is full in {{value}} if it goes on like this",
                    description="By the forecast from the history: headgate capacity shows it.",
                    unit="seconds",
                    every_s=60.0,
                    is_built_in=True,
                )
            )
    return made
