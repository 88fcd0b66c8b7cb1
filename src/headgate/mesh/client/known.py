"""What a process knows of the services it calls: instances as the registry told them last.

Theory of operation
-------------------
`Known` holds the instances of the services that are watched and no others. The registry says all of
it once (`take_all`) and then what changes (`take_change`); a change that is not newer than what is
known is passed over, so that a stream may repeat itself. `position` is where a new stream is to go
on. What was told last stays in force while nobody tells anything: a registry that is away is no
reason to stop calling.

What is missing in `all` is gone, and that is believed: it is the registry's business to tell a
network that died from services that ended. Only a registry that has just begun and remembers little
says that what is missing may be late; then it is kept (`late`) until `drop_late`.

How instances of the file and of the registry become one list is the gateway's rule: `plan.members`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from headgate.mesh.registry.model import Change, Instance
from headgate.plan.members import NO_MEMBERS, Members, read
from headgate.wire.instance_url import parse_instance_url

__all__ = ["Known", "instance_of", "members_of"]

FORMAT: Final = 1


class Known:
    """Instances by service and id."""

    def __init__(self) -> None:
        self.epoch = ""
        self.revision = 0
        self._services: dict[str, dict[str, Instance]] = {}
        self.late: set[tuple[str, str]] = set()
        """Services and ids that were known before and are still to come, if they do."""

    @property
    def position(self) -> str:
        """Where a stream is to go on; "" before anything was told."""
        return f"{self.epoch}-{self.revision}" if self.epoch else ""

    @property
    def services(self) -> Collection[str]:
        """Those that something was told of."""
        return self._services.keys()

    def of(self, service: str) -> tuple[Instance, ...] | None:
        """Its instances; None when nobody has said anything of it yet."""
        found = self._services.get(service)
        return None if found is None else tuple(found.values())

    def take_all(
        self,
        services: Iterable[str],
        epoch: str,
        revision: int,
        instances: Iterable[Instance],
        *,
        may_be_late: bool = False,
    ) -> set[str]:
        """All instances of these services; answers the services that differ from before."""
        fresh: dict[str, dict[str, Instance]] = {name: {} for name in services}
        for each in instances:
            if each.service in fresh:
                fresh[each.service][each.id] = each
        self.epoch, self.revision = epoch, revision
        self.late = set()
        if may_be_late:
            for name, found in fresh.items():
                for id_, each in self._services.get(name, {}).items():
                    if id_ not in found:
                        found[id_] = each
                        self.late.add((name, id_))
        changed = {name for name, found in fresh.items() if self._services.get(name) != found}
        self._services.update(fresh)
        return changed

    def take_change(self, change: Change) -> str | None:
        """One change; answers the service that differs from before."""
        if change.revision <= self.revision:
            return None
        self.revision = change.revision
        instance = change.instance
        found = self._services.get(instance.service)
        if found is None:
            return None  # not watched, or not any more
        self.late.discard((instance.service, instance.id))
        before = found.get(instance.id)
        if change.what == "went":
            return instance.service if found.pop(instance.id, None) is not None else None
        found[instance.id] = instance
        return instance.service if before != instance else None

    def drop_late(self) -> set[str]:
        """What was late has not come; answers the services that it was of."""
        late, self.late = self.late, set()
        for name, id_ in late:
            self._services.get(name, {}).pop(id_, None)
        return {name for name, _ in late}

    # -- kept on the disk ----------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "services": {
                name: [each.to_json() for each in found.values()]
                for name, found in self._services.items()
            },
        }

    @classmethod
    def of_json(cls, content: object) -> Known:
        """What `to_json` wrote; raises ValueError for anything else. Its instances are known, its
        place in the row of changes is not: whoever watches asks for everything again.
        """
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError("is no list of instances of this version")
        known = cls()
        try:
            for name, rows in content["services"].items():
                instances = [instance_of(row) for row in rows]
                known._services[str(name)] = {each.id: each for each in instances}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"is no list of instances: {type(error).__name__}") from None
        return known


def instance_of(row: object) -> Instance:
    """An instance as it was told. Raises ValueError, TypeError or KeyError for what is none."""
    if not isinstance(row, Mapping):
        raise TypeError("an instance is an object")
    found = Instance.of_json(row)
    for name in ("service", "id", "url", "zone"):
        if not isinstance(getattr(found, name), str):
            raise TypeError(f"{name} is text")
    for name in ("weight", "priority", "revision"):
        value = getattr(found, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise TypeError(f"{name} is a whole number")
    parse_instance_url(found.url)
    return found


def members_of(found: Sequence[Instance], before: Members = NO_MEMBERS) -> Members:
    """The same as the gateway is told it; what has not changed keeps its objects."""
    rows = [
        {
            "url": each.url,
            "weight": each.weight,
            "priority": each.priority,
            "zone": each.zone,
            "draining": not each.takes_requests,
        }
        for each in found
    ]
    revision = before.revision + 1
    message = {"service": "", "epoch": "", "revision": revision, "members": rows}
    return read(message, before) or before
