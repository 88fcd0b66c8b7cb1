"""Leases as they stand in Redis, and what else is read there: one key, one text for the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from headgate.mesh.registry.asked import Lost
from headgate.mesh.registry.remembered import UNREADABLE, LeaseRow, judged_lease
from headgate.policy.registering import RegistryRules

__all__ = ["Key", "field_of", "followed", "key_of", "number_of", "pairs_of", "read_row", "said_of"]

Key = tuple[str, str]
"""Service and id."""


def followed(key: Key) -> Lost:
    """The log has not told yet by whom."""
    return Lost("fenced", f"{key[0]}/{key[1]} was registered again since, at another control")


def field_of(key: Key) -> str:
    return f"{key[0]}/{key[1]}"  # neither may hold a stroke


def key_of(field: bytes) -> Key | None:
    service, _, instance_id = field.decode("utf-8", "replace").partition("/")
    return (service, instance_id) if instance_id else None


def said_of(row: LeaseRow) -> str:
    """What does not change with the one who tells it, so that the same is the same text."""
    instance = replace(row.instance, fence=0, revision=0, since=0.0)
    said = replace(row, instance=instance, beaten=0.0).to_json()
    for name in ("suspect_since", "drain_until"):
        if said[name] is not None:
            said[name] = round(said[name], 3)
    return json.dumps(said, separators=(",", ":"), sort_keys=True)


def pairs_of(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def number_of(text: bytes | None) -> int:
    try:
        return int(text or 0)
    except ValueError:
        return 0


def read_row(field: bytes, fence: bytes, said: bytes, rules: RegistryRules) -> LeaseRow | None:
    """None for what is none of ours: anybody may write to a Redis."""
    try:
        row = LeaseRow.of_json(json.loads(said))
        row = replace(row, instance=replace(row.instance, fence=int(fence)))
        row = judged_lease(row, rules)
        if field_of((row.instance.service, row.instance.id)) != field.decode():
            raise ValueError("it is another's")
    except UNREADABLE:
        return None
    return row
