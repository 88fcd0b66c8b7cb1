"""Checking a file without its secrets: what is not known, and what therefore may be good."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from headgate.config.faults import Faults, Place
from headgate.config.nodes import Mapping as MappingNode
from headgate.config.nodes import Node, Scalar, Sequence
from headgate.errors import Fault

__all__ = ["judged", "tell_unknown"]


def tell_unknown(unknown: Mapping[Place, str], faults: Faults) -> None:
    """Warn once for each kind of reference that was not asked for."""
    for scheme in ("vault", "secret"):
        places = [place for place, kind in unknown.items() if kind == scheme]
        if places:
            many = f"{len(places)} references are" if len(places) > 1 else "1 reference is"
            faults.add(
                min(places),
                f"${{{scheme}:...}} is not asked for offline: {many} unknown",
                warning=True,
            )


def judged(
    faults: Iterable[Fault], unknown: frozenset[Place], root: Node | None
) -> tuple[Fault, ...]:
    """The faults, those about what holds an unknown value as warnings."""
    return tuple(
        replace(fault, level="warning", hint="a value in it is not known offline: it may be good")
        if fault.level == "error" and _holds_any(root, fault, unknown)
        else fault
        for fault in faults
    )


def _holds_any(root: Node | None, fault: Fault, unknown: frozenset[Place]) -> bool:
    """Whether one of the places lies in what the fault stands at."""
    if not unknown:
        return False
    at = Place(fault.file, fault.line, fault.column)
    seen: set[tuple[int, bool]] = set()
    stack: list[tuple[Node | None, bool]] = [(root, False)]
    while stack:
        node, is_inside = stack.pop()
        if node is None or (id(node), is_inside) in seen:
            continue  # an alias shares its node
        seen.add((id(node), is_inside))
        is_inside = is_inside or node.place == at
        if isinstance(node, Scalar):
            if is_inside and node.place in unknown:
                return True
        elif isinstance(node, Sequence):
            stack += [(item, is_inside) for item in node.items]
        elif isinstance(node, MappingNode):
            pairs = (node.entries or {}).values()
            stack += [(item, is_inside or key.place == at) for key, item in pairs]
    return False
