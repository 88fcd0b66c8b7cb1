"""One trace as a tree: whose child is whose, where the time went, and what the end waited for.

Theory of operation
-------------------
Spans come from several processes, in any order, some not at all. A span whose parent is not there
is a root, marked as torn off; so is one span of each circle of parents (which only a faulty sender
makes). Of two spans with one id the first counts.

*Self time* is the part of a span in which none of its children ran: its duration less the union of
theirs, each cut to the span's own bounds (clocks of two machines differ).

The *critical path* is found from the end backwards: the child that ended last, the one that had
ended when that one began, and so on, each searched in turn. A shorter span on it would have made
the whole shorter, one beside it would not. Of a trace with several roots it is that of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headgate.observe.tracing.record import SpanRecord

__all__ = ["Node", "Tree", "tree"]


@dataclass(frozen=True, slots=True)
class Node:
    span: SpanRecord
    depth: int
    self_s: float
    is_critical: bool
    is_torn: bool
    """Its parent is said to exist, and is not there."""
    children: tuple[str, ...]
    """Their ids, by their beginnings."""


@dataclass(frozen=True, slots=True)
class Tree:
    trace_id: str
    nodes: tuple[Node, ...]
    """Parents before children, siblings by their beginnings: the order in which it is drawn."""
    start: float
    duration_s: float
    services: tuple[str, ...]


def tree(spans: Sequence[SpanRecord]) -> Tree:
    """The tree of one trace; an empty one of no spans."""
    by_id: dict[str, SpanRecord] = {}
    for span in spans:
        by_id.setdefault(span.span_id, span)
    ordered = sorted(by_id.values(), key=lambda span: (span.start, -span.duration_s, span.span_id))
    children: dict[str, list[SpanRecord]] = {}
    roots: list[SpanRecord] = []
    for span in ordered:
        if span.parent_id in by_id and span.parent_id != span.span_id:
            children.setdefault(span.parent_id, []).append(span)
        else:
            roots.append(span)
    drawn = _drawn(roots, children)
    if len(drawn) < len(ordered):  # circles: cut each open where it begins
        seen = {span.span_id for span, _ in drawn}
        for span in ordered:
            if span.span_id in seen:
                continue
            _cut(children, span)
            more = _drawn([span], children)
            seen.update(one.span_id for one, _ in more)
            drawn += more
            roots.append(span)
    critical: set[str] = set()
    if roots:
        longest = max(roots, key=lambda span: span.duration_s)
        critical = _critical(longest, children)
    start = min((span.start for span in ordered), default=0.0)
    end = max((span.start + span.duration_s for span in ordered), default=0.0)
    nodes = tuple(
        Node(
            span,
            depth,
            _self_s(span, children.get(span.span_id, ())),
            span.span_id in critical,
            bool(span.parent_id) and depth == 0,
            tuple(child.span_id for child in children.get(span.span_id, ())),
        )
        for span, depth in drawn
    )
    services = tuple(dict.fromkeys(span.service for span, _ in drawn if span.service))
    return Tree(ordered[0].trace_id if ordered else "", nodes, start, end - start, services)


def _drawn(
    roots: Sequence[SpanRecord], children: dict[str, list[SpanRecord]]
) -> list[tuple[SpanRecord, int]]:
    """Depth first, without recursion: a trace may be a chain of thousands."""
    found: list[tuple[SpanRecord, int]] = []
    todo = [(root, 0) for root in reversed(roots)]
    while todo:
        span, depth = todo.pop()
        found.append((span, depth))
        todo += [(child, depth + 1) for child in reversed(children.get(span.span_id, ()))]
    return found


def _cut(children: dict[str, list[SpanRecord]], span: SpanRecord) -> None:
    siblings = children.get(span.parent_id, [])
    children[span.parent_id] = [one for one in siblings if one is not span]


def _self_s(span: SpanRecord, children: Sequence[SpanRecord]) -> float:
    end = span.start + span.duration_s
    covered, upto = 0.0, span.start
    for child in children:  # by their beginnings
        begin = max(child.start, upto)
        until = min(child.start + child.duration_s, end)
        if until > begin:
            covered += until - begin
            upto = until
    return max(0.0, span.duration_s - covered)


def _critical(root: SpanRecord, children: dict[str, list[SpanRecord]]) -> set[str]:
    found: set[str] = set()
    todo = [(root, root.start + root.duration_s)]
    while todo:
        span, before = todo.pop()
        found.add(span.span_id)
        at = min(before, span.start + span.duration_s)
        is_first = True
        for child in sorted(
            children.get(span.span_id, ()), key=lambda one: -(one.start + one.duration_s)
        ):
            if child.start >= at or at <= span.start:
                continue
            if child.start + child.duration_s > at and not is_first:
                continue  # it ran beside the one that ended later, which was waited for
            todo.append((child, at))
            at = child.start
            is_first = False
    return found
