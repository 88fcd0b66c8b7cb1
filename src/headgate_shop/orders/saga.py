"""A checkout as a saga: steps that can each be undone, and what follows from how each came out.

Theory of operation
-------------------
    RESERVE -> PAY -> COMMIT -> DONE                 all is well: paid
       |        |        |
       |        |        +- the goods have gone -----> REFUND -> RELEASE -> DONE
       |        +- refused --------------------------> RELEASE -> DONE
       |        +- not known for too long, or no longer wanted -> VOID -> RELEASE -> DONE
       |                                                           +- was captured after all:
       |                                                              COMMIT, or REFUND
       +- short, another price, not known for too long -> RELEASE -> DONE

A step names what is to be done *next*. It is written into the database before it is done, and what
follows is written after: a process that dies in between leaves the step, and whoever finds it does
it again. So every action must be one that may be carried out twice, by ids that follow from the
order's; and `unknown` (no answer, a broken one, a 5xx) never moves a saga on by itself, because it
may have been done. A payment that is not known is either found out or made void at the payment
service; it is never left behind.

RELEASE undoes RESERVE and COMMIT alike: goods that were committed go back on the shelf. It is
carried out also where nothing may have been reserved.

The customer hears as soon as it is decided: `status` changes on the way into REFUND or RELEASE, and
what is left to be undone is done behind it. An editor must keep: a saga ends with the money taken
and the goods gone, or with neither.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Literal, assert_never

__all__ = [
    "GIVE_UP_MS",
    "Outcome",
    "Saga",
    "Status",
    "Step",
    "advance",
    "begin",
    "begin_cancel",
    "wait_ms",
]

Status = Literal["pending", "paid", "shipped", "cancelled", "refused"]

GIVE_UP_MS: Final = 600_000
"""After so long a checkout is not wanted any more. Reservations last longer: `steps.RESERVED_S`."""
WAIT_FIRST_MS: Final = 250
WAIT_MAX_MS: Final = 10_000


class Step(StrEnum):
    RESERVE = "reserve"
    PAY = "pay"
    VOID = "void"
    COMMIT = "commit"
    REFUND = "refund"
    RELEASE = "release"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an action came out.

    `refused` means: certainly not done. Of VOID it means that the payment had been captured.
    `unsure` is an answer to PAY that says neither, and will say nothing else next time.
    """

    kind: Literal["done", "refused", "unsure", "unknown"]
    reason: str = ""
    """Of a refusal: a word for programs."""


@dataclass(frozen=True, slots=True)
class Saga:
    step: Step
    status: Status
    reason: str = ""
    """Why it was refused or cancelled."""
    is_cancelled: bool = False
    """The customer wants it no more, whatever it comes to."""


def begin() -> Saga:
    return Saga(Step.RESERVE, "pending")


def begin_cancel(reason: str) -> Saga:
    """Of an order that was paid: its saga was at its end, and goes backwards now."""
    return Saga(Step.REFUND, "cancelled", reason, is_cancelled=True)


def advance(saga: Saga, outcome: Outcome, *, is_overdue: bool = False) -> Saga:
    """What is to be done now. The same saga: the same again, later."""
    kind = outcome.kind
    is_unwanted = saga.is_cancelled or is_overdue
    match saga.step:
        case Step.RESERVE:
            if kind == "refused":
                return _undone(saga, Step.RELEASE, outcome.reason or "out_of_stock")
            if kind == "done":
                return _undone(saga, Step.RELEASE) if saga.is_cancelled else _to(saga, Step.PAY)
            return _undone(saga, Step.RELEASE, "unavailable") if is_unwanted else saga
        case Step.PAY:
            if kind == "done":
                return _undone(saga, Step.REFUND) if saga.is_cancelled else _to(saga, Step.COMMIT)
            if kind == "refused":
                return _undone(saga, Step.RELEASE, outcome.reason or "refused")
            return _to(saga, Step.VOID) if is_unwanted or kind == "unsure" else saga
        case Step.VOID:
            if kind == "done":
                return _undone(saga, Step.RELEASE, "payment_unknown")
            if kind == "refused":
                return _undone(saga, Step.REFUND) if saga.is_cancelled else _to(saga, Step.COMMIT)
            return saga
        case Step.COMMIT:
            if kind == "refused":
                return _undone(saga, Step.REFUND, "out_of_stock")
            if saga.is_cancelled:
                return _undone(saga, Step.REFUND)
            return replace(saga, step=Step.DONE, status="paid") if kind == "done" else saga
        case Step.REFUND:
            return _to(saga, Step.RELEASE) if kind == "done" else saga
        case Step.RELEASE:
            return _to(saga, Step.DONE) if kind == "done" else saga
        case Step.DONE:
            return saga
    assert_never(saga.step)


def _to(saga: Saga, step: Step) -> Saga:
    return replace(saga, step=step)


def _undone(saga: Saga, step: Step, reason: str = "") -> Saga:
    if saga.is_cancelled:
        return replace(saga, step=step, status="cancelled", reason=saga.reason or "cancelled")
    return replace(saga, step=step, status="refused", reason=reason)


def wait_ms(tries: int, rng: random.Random) -> int:
    """Until the next try of the same step, after so many."""
    whole = min(WAIT_MAX_MS, WAIT_FIRST_MS << min(tries - 1, 10))
    return round(whole * rng.uniform(0.5, 1.0))
