"""The keys that sign: kept sealed in the store, shared by all processes, exchanged in time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from headgate.security.accounts.gate import Gate
from headgate.security.accounts.ring import next_start, over, signing
from headgate.security.accounts.signing import Algorithm, Key, new_key, opened

__all__ = ["Keyring"]


class Keyring(Gate):
    algorithm: Algorithm = "EdDSA"
    _keys: dict[str, Key]

    def jwks(self) -> dict[str, Any]:
        """The public keys (RFC 7517), for `/.well-known/jwks.json`."""
        return {"keys": [dict(key.jwk) for key in self._loaded()]}

    def _loaded(self) -> list[Key]:
        if not self._keys:
            raise RuntimeError(
                "these accounts are not started: `async with accounts:` or `await accounts.start()`"
            )
        return sorted(self._keys.values(), key=lambda key: key.number)

    def _signing_key(self, wall: float) -> Key:
        key = signing(self._loaded(), wall)
        if key is None:
            raise RuntimeError("there is no key")  # _loaded has seen to it
        return key

    async def rotate_keys(self, *, is_compromised: bool = False) -> None:
        """Publish a new key now, to sign after `key_ahead_s`.

        With `is_compromised` it signs at once and the others are gone: every access token that
        is out is refused, here now and by others once they have read the key set again. Sessions
        go on by their refresh tokens.
        """
        wall = self._wall()
        if not is_compromised:
            await self._load_keys(wall, is_asked=True)
            return
        keys = self.tables.keys
        async with self._writing() as db:
            rows = (await db.execute(sa.select(keys.c.number).with_for_update())).all()
            # Numbers are not used again: another process tells a new key by its number.
            number = 1 + max((row.number for row in rows), default=0)
            await db.execute(sa.delete(keys))
            await db.execute(sa.insert(keys).values(**await self._new_row(number, wall)))
        self._emit("keys_rotated", reason="compromised")
        await self._load_keys(wall)

    async def tend(self) -> None:
        await super().tend()
        await self._load_keys(self._wall())

    async def _load_keys(self, wall: float, *, is_asked: bool = False) -> None:
        """Read the keys; make one when it is due; drop those that are over."""
        keys = self.tables.keys
        found = await self._read_keys()
        starts = next_start(found, wall, self.rules, is_asked=is_asked)
        if starts is not None:
            number = 1 + max((key.number for key in found), default=0)
            row = await self._new_row(number, starts)
            async with self._writing() as db:
                insert = self._insert(keys).values(**row).on_conflict_do_nothing()
                is_first = (await db.execute(insert.returning(keys.c.number))).first() is not None
            if is_first:  # else another process was quicker, and its key is as good
                self._emit("keys_rotated", reason="asked" if is_asked else "due")
            found = await self._read_keys()
        gone = over(found, wall, self.rules)
        if gone:
            numbers = [key.number for key in gone]
            async with self._writing() as db:
                await db.execute(sa.delete(keys).where(keys.c.number.in_(numbers)))
        fresh = {key.kid: key for key in found if key not in gone}
        if fresh.keys() != self._keys.keys():
            self._keys = fresh
            self._keys_changed()

    def _keys_changed(self) -> None:
        """What was verified with a key that is gone is to be forgotten."""

    async def _new_row(self, number: int, signs_from: float) -> dict[str, Any]:
        # In a thread: an RSA key takes up to a second to find.
        key = await asyncio.to_thread(new_key, self.algorithm, number, signs_from)
        return {
            "number": number,
            "kid": key.kid,
            "algorithm": key.algorithm,
            "signs_from": signs_from,
            "sealed": self._sealer.seal(key.private_bytes(), self._about_key(number, key.kid)),
        }

    @staticmethod
    def _about_key(number: int, kid: str) -> str:
        return f"key {number} {kid}"

    async def _read_keys(self) -> Sequence[Key]:
        async with self._reading() as db:
            rows = (await db.execute(sa.select(self.tables.keys))).all()
        found = []
        for row in rows:
            known = self._keys.get(row.kid)
            if known is not None and known.signs_from == row.signs_from:
                found.append(known)
                continue
            pkcs8 = self._sealer.open(row.sealed, self._about_key(row.number, row.kid))
            key = opened(pkcs8, row.algorithm, row.number, row.signs_from)
            if key.kid != row.kid:
                raise ValueError(f"the stored key {row.number} is not the one it says")
            found.append(key)
        return found
