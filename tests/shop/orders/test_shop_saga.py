from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_shop.orders.saga import (
    WAIT_MAX_MS,
    Outcome,
    Saga,
    Step,
    advance,
    begin,
    begin_cancel,
    wait_ms,
)

DONE = Outcome("done")
UNKNOWN = Outcome("unknown")


def refused(reason=""):
    return Outcome("refused", reason)


PENDING = [
    # step, outcome, then, status, reason
    (Step.RESERVE, DONE, Step.PAY, "pending", ""),
    (Step.RESERVE, refused("out_of_stock"), Step.RELEASE, "refused", "out_of_stock"),
    (Step.RESERVE, refused("price_changed"), Step.RELEASE, "refused", "price_changed"),
    (Step.PAY, DONE, Step.COMMIT, "pending", ""),
    (Step.PAY, refused("payment_refused"), Step.RELEASE, "refused", "payment_refused"),
    (Step.PAY, Outcome("unsure"), Step.VOID, "pending", ""),
    (Step.VOID, DONE, Step.RELEASE, "refused", "payment_unknown"),
    (Step.VOID, refused("captured"), Step.COMMIT, "pending", ""),
    (Step.COMMIT, DONE, Step.DONE, "paid", ""),
    (Step.COMMIT, refused("ended"), Step.REFUND, "refused", "out_of_stock"),
]


@pytest.mark.parametrize(
    "step, outcome, then, status, reason",
    PENDING,
    ids=[f"{row[0]}-{row[1].kind}{number}" for number, row in enumerate(PENDING)],
)
def test_what_follows_from_how_a_step_came_out(step, outcome, then, status, reason):
    assert advance(Saga(step, "pending"), outcome) == Saga(then, status, reason)


@pytest.mark.parametrize("step", [step for step in Step if step is not Step.DONE])
def test_what_is_not_known_is_done_again(step):
    saga = Saga(step, "pending")
    assert advance(saga, UNKNOWN) == saga


@pytest.mark.parametrize(
    "step, then", [(Step.RESERVE, Step.RELEASE), (Step.PAY, Step.VOID)], ids=["reserve", "pay"]
)
def test_what_is_not_known_for_too_long_is_given_up(step, then):
    assert advance(Saga(step, "pending"), UNKNOWN, is_overdue=True).step is then


@pytest.mark.parametrize("step", [Step.VOID, Step.COMMIT, Step.REFUND, Step.RELEASE])
def test_what_must_be_settled_is_never_given_up(step):
    saga = Saga(step, "pending")
    assert advance(saga, UNKNOWN, is_overdue=True) == saga


@pytest.mark.parametrize(
    "step, outcome, then",
    [
        (Step.RESERVE, DONE, Step.RELEASE),
        (Step.RESERVE, UNKNOWN, Step.RELEASE),
        (Step.PAY, DONE, Step.REFUND),
        (Step.PAY, UNKNOWN, Step.VOID),
        (Step.VOID, DONE, Step.RELEASE),
        (Step.VOID, refused("captured"), Step.REFUND),
        (Step.COMMIT, DONE, Step.REFUND),
        (Step.COMMIT, UNKNOWN, Step.REFUND),
    ],
)
def test_a_customer_who_wants_it_no_more_turns_it_round(step, outcome, then):
    assert advance(Saga(step, "pending", is_cancelled=True), outcome).step is then


def test_a_captured_payment_is_not_kept_for_a_late_customer():
    """Overdue, but captured after all: the goods are still wanted."""
    saga = advance(Saga(Step.PAY, "pending"), DONE, is_overdue=True)
    assert saga.step is Step.COMMIT


# ---- everything that may happen, to everything that a saga touches


@dataclass
class World:
    card: str = "good"
    stock: str = "there"  # there, short, short later (the reservation ends)
    goods: str = "shelf"  # shelf, held, sold
    payment: str = "unseen"  # unseen, captured, refused, void
    refunds: int = 0
    captures: int = 0
    ended: bool = False
    log: list[str] = field(default_factory=list)

    def do(self, step: Step) -> Outcome:
        self.log.append(step)
        match step:
            case Step.RESERVE:
                if self.stock == "short" or self.ended:
                    return refused("out_of_stock")
                if self.goods == "shelf":
                    self.goods = "held"
                return DONE
            case Step.PAY:
                if self.payment == "unseen":
                    self.payment = "captured" if self.card == "good" else "refused"
                    self.captures += self.payment == "captured"
                return {
                    "captured": DONE,
                    "refused": refused("payment_refused"),
                    "void": Outcome("unsure"),
                }[self.payment]
            case Step.VOID:
                if self.payment == "unseen":
                    self.payment = "void"
                return refused("captured") if self.payment == "captured" else DONE
            case Step.COMMIT:
                if self.goods == "shelf":
                    return refused("ended")
                self.goods = "sold"
                return DONE
            case Step.REFUND:
                assert self.payment == "captured", "only what was taken is given back"
                self.refunds = 1
                return DONE
            case Step.RELEASE:
                self.goods, self.ended = "shelf", True
                return DONE
        raise AssertionError(step)

    def expire(self):
        if self.goods == "held":
            self.goods = "shelf"

    @property
    def money_kept(self) -> bool:
        return self.payment == "captured" and not self.refunds


@given(
    st.sampled_from(["good", "bad"]),
    st.sampled_from(["there", "short"]),
    st.lists(st.sampled_from(["lost", "unheard", "fine"]), max_size=40),
    st.integers(0, 45),
    st.integers(0, 45),
    st.integers(0, 45),
    st.booleans(),
)
def test_a_saga_ends_with_money_and_goods_exchanged_or_with_neither(
    card, stock, fates, cancelled_at, overdue_at, expires_at, cancel_after
):
    world = World(card, stock)
    saga = begin()
    for turn in range(200):
        if saga.step is Step.DONE:
            break
        if turn == cancelled_at and saga.status == "pending":
            saga = Saga(saga.step, saga.status, saga.reason, is_cancelled=True)
        if turn == expires_at:
            world.expire()
        fate = fates[turn] if turn < len(fates) else "fine"
        outcome = UNKNOWN if fate == "lost" else world.do(saga.step)
        if fate == "unheard":
            outcome = UNKNOWN
        saga = advance(saga, outcome, is_overdue=turn >= overdue_at)
    assert saga.step is Step.DONE
    assert world.captures <= 1
    if saga.status == "paid":
        assert world.money_kept and world.goods == "sold" and not saga.is_cancelled
    else:
        assert saga.status in ("refused", "cancelled") and saga.reason
        assert not world.money_kept and world.goods == "shelf"
    if saga.status == "paid" and cancel_after:
        saga = begin_cancel("cancelled")
        while saga.step is not Step.DONE:
            saga = advance(saga, world.do(saga.step))
        assert saga.status == "cancelled"
        assert not world.money_kept and world.goods == "shelf"


@given(st.integers(1, 10_000), st.integers())
def test_waits_grow_to_a_bound(tries, seed):
    rng = random.Random(seed)
    assert 100 <= wait_ms(tries, rng) <= WAIT_MAX_MS
    assert wait_ms(1, rng) < wait_ms(5, rng) <= wait_ms(10, rng) * 2
