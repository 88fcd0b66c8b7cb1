"""Attempts are charged in the store before they are looked at; see `throttle.py` for the rules.

The names of lanes are keyed hashes: the table tells neither addresses nor networks.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate.security.accounts.core import Core
from headgate.security.accounts.errors import TooManyAttempts
from headgate.security.accounts.throttle import (
    EMPTY,
    Count,
    Lane,
    Slowed,
    admit,
    lanes_of,
    network_of,
    refunded,
)

__all__ = ["Attempt", "Gate"]

DEVICE: Final = "hgd_"
LOUD_S: Final = 10.0
"""A delay from which on it is worth an event."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A charged attempt: what to take back when it was right."""

    keys: Mapping[Lane, str]
    charges: Mapping[Lane, Count] = field(default_factory=dict)
    device_id: str = ""
    """Of a device that is known to this account."""


class Gate(Core):
    def _lane_key(self, lane: Lane, *about: str) -> str:
        return self._sealer.mac("lane", "\0".join((lane, *about)).encode("utf-8", "replace")).hex()[
            :48
        ]

    # ---- devices

    def _device_token(self, account: str, device_id: str, wall: float) -> str:
        body = bytes.fromhex(device_id) + int(wall).to_bytes(8, "big")
        mac = self._sealer.mac("device", body + account.encode())
        return DEVICE + base64.urlsafe_b64encode(body + mac).decode()

    def _known_device(self, account: str, token: str | None, wall: float) -> str:
        """Its id, where it has logged in to this account before; else empty."""
        if not token or len(token) > 100 or not token.startswith(DEVICE):
            return ""
        try:
            raw = base64.urlsafe_b64decode(token[len(DEVICE) :])
        except (binascii.Error, ValueError):
            return ""
        body, mac = raw[:24], raw[24:]
        if len(raw) != 56 or base64.urlsafe_b64encode(raw).decode() != token[len(DEVICE) :]:
            return ""
        if not self._sealer.is_mac("device", body + account.encode(), mac):
            return ""
        age_s = wall - int.from_bytes(body[16:], "big")
        is_fresh = -86400 < age_s < self.rules.throttle.device_s
        return body[:16].hex() if is_fresh else ""

    # ---- attempts

    async def _admit_login(self, account: str, ip: str, device: str | None, wall: float) -> Attempt:
        """Charge an attempt to log in, or raise `TooManyAttempts`."""
        network = network_of(ip, self.rules.throttle)
        known = self._known_device(account, device, wall)
        keys: dict[Lane, str] = {
            "device": self._lane_key("device", account, known or "none"),
            "pair": self._lane_key("pair", account, network),
            "network": self._lane_key("network", network),
            "account": self._lane_key("account", account),
            "fresh": self._lane_key("fresh", account),
        }
        return await self._charge(keys, ip, wall, known, is_login=True)

    async def _admit(self, ip: str, wall: float, **keys: str) -> Attempt:
        """Charge the given lanes, or raise `TooManyAttempts`."""
        return await self._charge(keys, ip, wall, "", is_login=False)  # type: ignore[arg-type] # lanes by name

    async def _charge(
        self, keys: Mapping[Lane, str], ip: str, wall: float, device_id: str, *, is_login: bool
    ) -> Attempt:
        rules = self.rules.throttle

        def chosen(stored: Mapping[str, Count]) -> dict[Lane, Count]:
            pair = stored.get(keys["pair"], EMPTY) if is_login else EMPTY
            lanes = lanes_of(bool(device_id), pair, wall, rules) if is_login else tuple(keys)
            return {lane: stored.get(keys[lane], EMPTY) for lane in lanes}

        # Once without a lock: whoever hammers is turned away for the price of one SELECT and
        # leaves no row behind.
        async with self._reading() as db:
            stored = await self._counts(db, keys.values(), is_locking=False)
        answer = admit(chosen(stored), wall, rules)
        if not isinstance(answer, Slowed):
            async with self._writing() as db:
                # All that may come to be chosen: another attempt may have changed the choice.
                wanted = [keys[lane] for lane in keys if (lane == "device") == bool(device_id)]
                await self._reserve(db, wanted)
                stored.update(await self._counts(db, wanted, is_locking=True))
                answer = admit(chosen(stored), wall, rules)
                if not isinstance(answer, Slowed):
                    await self._keep(db, {keys[k]: count for k, count in answer.counts.items()})
        if isinstance(answer, Slowed):
            if answer.retry_after_s >= LOUD_S:
                self._emit("locked", ip=ip, lane=answer.lane, retry_after_s=answer.retry_after_s)
            raise TooManyAttempts(answer.retry_after_s)
        return Attempt(keys, answer.counts, device_id)

    async def _refund(
        self, db: AsyncConnection, attempt: Attempt, wall: float, *, is_login: bool = True
    ) -> None:
        """The attempt was right. Without `is_login`, only its charges are taken back."""
        wanted = [attempt.keys[lane] for lane in attempt.charges]
        stored = await self._counts(db, wanted, is_locking=True)
        after: dict[str, Count] = {}
        for lane, charge in attempt.charges.items():
            count = stored.get(attempt.keys[lane], charge)
            back = refunded(lane, count, charge, wall, self.rules.throttle, is_login=is_login)
            after[attempt.keys[lane]] = back
        await self._keep(db, after)

    async def _give_back(self, attempt: Attempt, wall: float, *, is_login: bool = True) -> None:
        async with self._writing() as db:
            await self._refund(db, attempt, wall, is_login=is_login)

    # ---- rows

    async def _counts(
        self, db: AsyncConnection, keys: Iterable[str], *, is_locking: bool
    ) -> dict[str, Count]:
        counts = self.tables.counts
        query = sa.select(counts).where(counts.c.key.in_(sorted(keys)))
        if is_locking:
            query = query.order_by(counts.c.key).with_for_update()  # one order: no deadlock
        rows = (await db.execute(query)).all()
        return {row.key: Count(row.level, row.at, row.free_at, row.succeeded_at) for row in rows}

    async def _reserve(self, db: AsyncConnection, keys: Sequence[str]) -> None:
        """Make rows that can be locked."""
        blank = {"level": 0.0, "at": 0.0, "free_at": 0.0, "succeeded_at": 0.0}
        rows = [{"key": key, **blank} for key in sorted(keys)]
        await db.execute(self._insert(self.tables.counts).values(rows).on_conflict_do_nothing())

    async def _keep(self, db: AsyncConnection, after: Mapping[str, Count]) -> None:
        counts = self.tables.counts
        rows = [
            {
                "key": key,
                "level": count.level,
                "at": count.at,
                "free_at": count.free_at,
                "succeeded_at": count.succeeded_at,
            }
            for key, count in sorted(after.items())
        ]
        insert = self._insert(counts).values(rows)
        changed = {
            name: insert.excluded[name] for name in ("level", "at", "free_at", "succeeded_at")
        }
        await db.execute(insert.on_conflict_do_update(index_elements=["key"], set_=changed))
