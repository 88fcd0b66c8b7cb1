"""Encryption of fields by a key that never leaves Vault.

Texts go and come in batches, so that a page of a hundred rows is one request. `about` says what a
text belongs to (a table, a row): it is authenticated with it, and what was encrypted about one row
does not decrypt about another. A key with `derived` takes a `context` instead, which makes a key of
its own for each.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from headgate.security.secrets.errors import VaultAway, VaultRefused

__all__ = ["Transit"]

MAX_ITEMS: Final = 256
MAX_BYTES: Final = 4 * 1024 * 1024
Ask = Callable[..., Awaitable[Any]]


class Transit:
    """One key of the transit engine."""

    def __init__(self, ask: Ask, key: str, mount: str) -> None:
        self._ask = ask
        self._key = key
        self._mount = mount

    def __repr__(self) -> str:
        return f"Transit({self._key!r})"

    async def encrypt(self, plain: bytes | str, *, about: str = "", context: str = "") -> str:
        return (await self.encrypt_many([plain], about=about, context=context))[0]

    async def decrypt(self, sealed: str, *, about: str = "", context: str = "") -> bytes:
        return (await self.decrypt_many([sealed], about=about, context=context))[0]

    async def encrypt_many(
        self, plains: Sequence[bytes | str], *, about: str = "", context: str = ""
    ) -> list[str]:
        """Texts such as `vault:v1:...`, in the same order."""
        rows = [
            {"plaintext": _base64(one.encode() if isinstance(one, str) else one)} for one in plains
        ]
        return await self._batch("encrypt_data", rows, "ciphertext", about, context)

    async def decrypt_many(
        self, sealed: Sequence[str], *, about: str = "", context: str = ""
    ) -> list[bytes]:
        """What was encrypted. VaultRefused when any of them does not open."""
        rows = [{"ciphertext": one} for one in sealed]
        found = await self._batch("decrypt_data", rows, "plaintext", about, context)
        try:
            return [base64.b64decode(one, validate=True) for one in found]
        except binascii.Error:
            raise VaultAway(f"transit key {self._key}: answered something else") from None

    async def rewrap_many(
        self, sealed: Sequence[str], *, about: str = "", context: str = ""
    ) -> list[str]:
        """The same under the newest version of the key; the plain text stays in Vault."""
        rows = [{"ciphertext": one} for one in sealed]
        return await self._batch("rewrap_data", rows, "ciphertext", about, context)

    async def _batch(
        self, method: str, rows: list[dict[str, str]], field: str, about: str, context: str
    ) -> list[str]:
        for row in rows:
            if about:
                row["associated_data"] = _base64(about.encode())
            if context:
                row["context"] = _base64(context.encode())
        answers: list[str] = []
        for part in _parts(rows):
            answers += await self._one(method, part, field, len(answers))
        return answers

    async def _one(
        self, method: str, rows: list[dict[str, str]], field: str, before: int
    ) -> list[str]:
        what = f"transit key {self._key}"
        single: dict[str, Any] = {
            "encrypt_data": {"plaintext": ""},
            "decrypt_data": {"ciphertext": ""},
            "rewrap_data": {"ciphertext": ""},
        }[method]

        def call(client: Any) -> Any:
            import hvac  # type: ignore[import-untyped]  # no stubs

            try:
                return getattr(client.secrets.transit, method)(
                    name=self._key, batch_input=rows, mount_point=self._mount, **single
                )
            except hvac.exceptions.InvalidRequest as error:
                # One bad row makes the whole answer a 400; which one is in its body.
                found = error.json if isinstance(error.json, dict) else {}
                if isinstance(found.get("data"), dict) and "batch_results" in found["data"]:
                    return found
                raise

        answer = await self._ask(call, what)
        try:
            results = answer["data"]["batch_results"]
            bad = [before + at for at, one in enumerate(results) if one.get("error")]
            if bad:
                raise VaultRefused(
                    f"{what}: number {', '.join(map(str, bad[:10]))} of the batch was refused: it "
                    "is damaged, of another key, or about something else"
                )
            found = [str(one.get(field, "")) for one in results]
        except (KeyError, TypeError, AttributeError):
            raise VaultAway(f"{what}: answered something else") from None
        if len(found) != len(rows):
            raise VaultAway(f"{what}: answered {len(found)} of {len(rows)}")
        return found


def _parts(rows: list[dict[str, str]]) -> list[list[dict[str, str]]]:
    """Rows in requests of a bounded size."""
    parts: list[list[dict[str, str]]] = []
    size = MAX_BYTES + 1
    for row in rows:
        weight = sum(map(len, row.values())) + 64
        if size + weight > MAX_BYTES or len(parts[-1]) >= MAX_ITEMS:
            parts.append([])
            size = 0
        parts[-1].append(row)
        size += weight
    return parts


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
