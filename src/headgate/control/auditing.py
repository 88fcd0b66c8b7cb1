"""What control writes into the audit log.

Theory of operation
-------------------
Control alone writes. `record` is the one way in: it redacts, writes at once and wakes the task
that brings the entry to the disk, `BATCH_S` later together with what came meanwhile. Everything
that blocks (fsync, checkpoints, pruning) runs on a thread.

What comes in thousands (failed log-ins, refused tokens, hits of filters) is counted by kind and
address and written once a minute; workers count before they tell, see `security.audit.tally`.

The log may be unusable: another process holds it for a moment, or the disk is broken. Serving does
not depend on it. `record` counts what is lost, the task tries again, `health` says so, and with
`refuse_admin_changes` the admin API takes no changes meanwhile.

The state directory outlives reloads, and so does the book; a reload with other settings closes it
and opens it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from headgate.config.auditing import AuditSpec
from headgate.control.anchoring import Anchors, shown
from headgate.control.redaction import redact
from headgate.security.audit.book import Book, BookLocked
from headgate.security.audit.diff import changes
from headgate.security.audit.entry import Entry, Outcome, bounded
from headgate.security.audit.rules import AuditRules
from headgate.security.audit.tally import Tally, brief
from headgate.security.ban_list import BY_HAND
from headgate.security.redact import Redactor

__all__ = ["Auditing", "boot_id", "shown_changes"]

BATCH_S: Final = 0.05
TURN_S: Final = 1.0
MINUTE_S: Final = 60.0
RETRY_S: Final = 5.0
CHANGES_MAX: Final = 100
_PAIRS_MAX: Final = 100  # an attack from everywhere writes 65 MB a day at most
_BANS_A_MINUTE: Final = 60
_NEWS_S: Final = 10.0
_HEARD_MAX: Final = 4096
_LONGEST_VALUE: Final = 500

log = logging.getLogger("headgate.audit")


def boot_id() -> str:
    """A name of this boot of the machine; monotonic times are comparable within it."""
    with contextlib.suppress(OSError):
        text = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return text.replace("-", "")[:16]
    return ""


class Auditing:
    def __init__(
        self,
        state_dir: Path,
        spec: AuditSpec | Literal[False],
        redactor: Redactor | None = None,
        *,
        mono: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - when it was, for people
    ) -> None:
        self.folder = state_dir / "audit"
        self._redactor = redactor if redactor is not None else Redactor()
        self._mono = mono
        self._wall = wall
        self._rules = spec.rules() if isinstance(spec, AuditSpec) else None
        self._anchors = Anchors(self._rules.anchors if self._rules is not None else ())
        self._book = self._make(self._rules)
        self._tally = Tally(MINUTE_S, _PAIRS_MAX)
        self._heard: dict[str, None] = {}
        self._ban_minute = 0.0
        self._bans_said = 0
        self._dirty = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._why_closed = ""
        self._try_at = 0.0

    @property
    def is_on(self) -> bool:
        return self._book is not None

    @property
    def redactor(self) -> Redactor:
        return self._redactor

    def _make(self, rules: AuditRules | None) -> Book | None:
        if rules is None:
            return None
        return Book(
            self.folder,
            rules,
            boot=boot_id(),
            mono=self._mono,
            wall=self._wall,
            on_checkpoint=self._anchors.carry,
        )

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the log and tend it. On the running loop; blocks for some milliseconds."""
        self._try_open()
        self._task = asyncio.get_running_loop().create_task(self._tend(), name="audit")

    def take(self, spec: AuditSpec | Literal[False], redactor: Redactor) -> None:
        """After a reload: other settings. On the running loop."""
        self._redactor = redactor
        rules = spec.rules() if isinstance(spec, AuditSpec) else None
        if rules == self._rules:
            return
        if rules is None:
            self.record("audit.switched_off", "gateway", detail={"what": "the file says so"})
        if self._book is not None:
            self._book.close()
        self._anchors.close()
        self._rules = rules
        self._anchors = Anchors(rules.anchors if rules is not None else ())
        self._book = self._make(rules)
        self._why_closed = ""
        self._try_open()

    async def close(self) -> None:
        """Write what was counted, sign the end, let go."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._write_counts(self._tally.take_all())
        if self._book is not None:
            self._book.close()
        await asyncio.to_thread(self._anchors.close)

    def _try_open(self) -> None:
        book = self._book
        if book is None or book.is_open:
            return
        self._try_at = self._mono() + RETRY_S
        try:
            book.open()
        except (BookLocked, OSError, ValueError) as error:
            why = str(error) or type(error).__name__
            if why != self._why_closed:
                log.error("the audit log cannot be written: %s", why)  # noqa: TRY400
            self._why_closed = why
        else:
            self._why_closed = ""

    async def _tend(self) -> None:
        while True:
            try:
                async with asyncio.timeout(TURN_S):
                    await self._dirty.wait()
                await asyncio.sleep(BATCH_S)
            except TimeoutError:
                pass
            self._dirty.clear()
            try:
                await self._turn()
            except Exception:
                log.exception("the audit log could not be tended")

    async def _turn(self) -> None:
        book = self._book
        if book is None:
            return
        if not book.is_open:
            if self._mono() >= self._try_at:
                self._try_open()
            return
        await asyncio.to_thread(book.sync)
        await asyncio.to_thread(book.turn)
        self._write_counts(self._tally.take(self._mono()))

    # -- writing -------------------------------------------------------------------------------

    def record(
        self,
        action: str,
        actor: str,
        *,
        target: str = "",
        origin: str = "",
        outcome: Outcome = "ok",
        before: Any = None,
        after: Any = None,
        detail: Mapping[str, Any] | None = None,
        request_id: str = "",
    ) -> int | None:
        """Write one entry, redacted; its number, or None where it could not be."""
        if self._book is None:
            return None
        clean = self._redactor
        entry = Entry(
            action,
            clean.text(actor),
            clean.text(bounded(target)),
            origin,
            outcome,
            clean.value(before) if before is not None else None,
            clean.value(after) if after is not None else None,
            clean.fields(detail) if detail else {},
            clean.text(bounded(request_id, 100)),
        )
        was_fine = not self._book.trouble
        number = self._book.append(entry)
        if number is None and was_fine and self._book.trouble:
            log.error("an audit entry could not be written: %s", self._book.trouble)
        self._dirty.set()
        return number

    async def settle(self) -> None:
        """With `durable: always`, return when all that was recorded is on the disk."""
        if self._book is not None and self._rules is not None and self._rules.durable == "always":
            await asyncio.to_thread(self._book.sync)

    def refusal(self) -> str:
        """Why no change by the admin API is taken now; empty when it is."""
        book, rules = self._book, self._rules
        if book is None or rules is None or rules.on_full == "drop_and_count":
            return ""
        if not book.is_open:
            self._try_open()
        if book.is_taking():
            return ""
        why = self._why_closed or book.trouble or "it is not open"
        return (
            f"the audit log cannot be written ({why}), so no change is taken; mend that, or set "
            "audit.on_full to drop_and_count"
        )

    # -- what happens --------------------------------------------------------------------------

    def reloaded(
        self,
        reason: str,
        *,
        generation: int,
        before: Mapping[str, Any],
        after: Mapping[str, Any] | None,
        hidden: Sequence[tuple[str, str]] = (),
        faults: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """A reload: what it changed, or why it was refused. `hidden` is of both documents."""
        detail: dict[str, Any] = {"generation": generation}
        if after is None:
            detail["faults"] = [
                bounded(str(fault.get("message", "")), _LONGEST_VALUE) for fault in faults[:20]
            ]
            self.record("config.reloaded", reason, outcome="refused", detail=detail)
            return
        rows, count = shown_changes(before, after, hidden)
        detail["changes"] = rows
        detail["changed"] = count
        self.record("config.reloaded", reason, target=f"generation {generation}", detail=detail)

    def revocation_heard(self, message: Mapping[str, Any]) -> None:
        """News of a revocation, whoever made it. Each is told several times, and written once."""
        with contextlib.suppress(KeyError, TypeError):
            name = f"revoked {message['kind']} {message['value']} {message['until']}"
            if self._is_new(name):
                self.record(
                    "token.revoked",
                    "fleet",
                    target=f"{message['kind']} {message['value']}",
                    detail={"until": message["until"], "issuer": message.get("issuer", "")},
                )

    def ban_heard(self, message: Mapping[str, Any]) -> None:
        """News of a ban or a lift, by a rule or by hand. What is old was written when it was new:
        the board tells it again to every process that starts.
        """
        with contextlib.suppress(KeyError, TypeError):
            what = message["what"]
            if what not in {"ban", "lift"} or self._wall() - message["at"] > _NEWS_S:
                return
            key = str(message["key"])
            if what == "lift":
                if self._is_new(f"lift {key} {message['at']}"):
                    self.record("ban.lifted", "fleet", target=key)
                return
            if not self._is_new(f"ban {key} {message.get('since')}"):
                return
            if not self._may_say_ban():
                self.counted("ban_added", key, {"by": str(message["by"])})
                return
            names = ("for_s", "why", "times")
            detail = {name: message[name] for name in names if name in message}
            actor = "operator" if message["by"] == BY_HAND else f"rule:{message['by']}"
            self.record("ban.added", actor, target=key, detail=detail)

    def _may_say_ban(self) -> bool:
        """An attack from ten thousand addresses is counted after the first of them."""
        minute = self._mono() // MINUTE_S
        if minute != self._ban_minute:
            self._ban_minute, self._bans_said = minute, 0
        self._bans_said += 1
        return self._bans_said <= _BANS_A_MINUTE

    def _is_new(self, name: str) -> bool:
        if name in self._heard:
            return False
        while len(self._heard) >= _HEARD_MAX:
            del self._heard[next(iter(self._heard))]
        self._heard[name] = None
        return True

    def heard(self, worker: int, event: Mapping[str, Any]) -> None:
        """A worker's `{"event": "security", "counted": [...]}`."""
        rows = event.get("counted")
        for row in rows if isinstance(rows, list) else ():
            with contextlib.suppress(KeyError, TypeError, ValueError):
                count = int(row["count"])
                example = {**row.get("example", {}), "worker": worker}
                self.counted(str(row["kind"]), str(row["address"]), example, count=max(count, 1))

    def counted(
        self, kind: str, address: str, example: Mapping[str, Any], *, count: int = 1
    ) -> None:
        """Count what is written once a minute for each kind and address."""
        if self._book is None:
            return
        now, wall = self._mono(), self._wall()
        self._tally.see(kind[:100], address[:100], brief(example), now=now, wall=wall, count=count)

    def _write_counts(self, rows: list[Any]) -> None:
        for row in rows:
            self.record(
                f"security.{row.kind}",
                "client" if row.address else "gateway",
                origin=row.address,
                outcome="noted",
                detail={
                    "count": row.count,
                    "first": round(row.first, 3),
                    "last": round(row.last, 3),
                    "example": row.example,
                },
            )

    # -- asked ---------------------------------------------------------------------------------

    def worries(self) -> Iterator[str]:
        """For `/api/health`."""
        book = self._book
        if book is None:
            return
        if not book.is_open:
            yield f"the audit log is not written: {self._why_closed or 'it is not open yet'}"
        elif book.is_full or book.trouble:
            lost = f"; {book.dropped} entries are lost" if book.dropped else ""
            yield f"the audit log has trouble: {book.trouble or 'the disk is full'}{lost}"
        for place, why in sorted(self._anchors.failing.items()):
            yield f"checkpoints of the audit log do not reach {shown(place)}: {why}"

    def snapshot(self) -> dict[str, Any]:
        book = self._book
        if book is None:
            return {"on": False}
        return {
            "on": True,
            "last": book.last_seq,
            "signed_to": book.signed_seq,
            "written": book.written,
            "dropped": book.dropped,
            "full": book.is_full,
            "trouble": self._why_closed or book.trouble,
        }


def shown_changes(
    before: Mapping[str, Any], after: Mapping[str, Any], hidden: Sequence[tuple[str, str]]
) -> tuple[list[dict[str, Any]], int]:
    """The changes as they may be shown. A changed secret is a change whose values are not told."""
    rows, count = changes(before, after, CHANGES_MAX)
    shown_rows = []
    for row in rows:
        name = str(row["path"]).rpartition(".")[2].partition("[")[0]
        made: dict[str, Any] = {"path": row["path"]}
        for side in ("before", "after"):
            if side in row:
                made[side] = _short(redact(row[side], hidden, name))
        if "before" in made and made["before"] == made.get("after"):
            made = {"path": row["path"], "changed": "a secret"}
        shown_rows.append(made)
    return shown_rows, count


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return bounded(value, _LONGEST_VALUE)
    text = str(value)
    return value if len(text) <= 4 * _LONGEST_VALUE else bounded(text, _LONGEST_VALUE)
