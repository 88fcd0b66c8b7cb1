"""Bans of several processes: what is told, what is believed of what is heard, and how much of it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.security.ban_news import RETAINED_MAX, SAY_BURST, SAY_PER_S
from headgate.security.ban_rules import BanRule, BanRules
from headgate.security.bans import Bans, Change

WALL = 1_700_000_000.0
IP = "198.51.100.1"
RULES = BanRules(rules=(BanRule("injections", ("injection",), 8, 60.0, 100.0),))
Message = Mapping[str, Any]


class Board:
    """As the real ones: others are told, not the one who says it; what is kept is told later too."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.kept: dict[tuple[str, str], str] = {}
        self.said: list[dict[str, Any]] = []

    def tell(self, origin: Member, topic: str, message: Message, retain: str | None) -> None:
        text = json.dumps(message)  # it leaves the process
        self.said.append(json.loads(text))
        if retain is not None:
            self.kept[topic, retain] = text
        for member in self.members:
            if member is not origin:
                member.hear(topic, json.loads(text))


class Member:
    """A process: its `Parts`, clock and bans."""

    def __init__(
        self,
        board: Board,
        rules: BanRules = RULES,
        started: float = 0.0,
        wall: float = WALL,
        *,
        tends: bool = False,
    ) -> None:
        self.board = board
        self.now = started
        """Processes share no monotonic clock."""
        self.wall = wall
        self.listeners: dict[str, Callable[[Message], None]] = {}
        self.work: list[Coroutine[object, object, None]] = []
        self.bans = Bans(rules, self.now, lambda: self.now, lambda: self.wall)
        self.changes: list[Change] = []
        self.bans.on_change = self.changes.append
        board.members.append(self)
        self.bans.attach(self, self.forget if tends else None)
        for spawned in self.work:
            spawned.close()

    def spawn(self, work: Coroutine[object, object, None]) -> object:
        self.work.append(work)
        return None

    def publish(self, topic: str, message: Message, retain: str | None = None) -> None:
        self.board.tell(self, topic, message, retain)

    def forget(self, topic: str, retain: str) -> None:
        self.board.kept.pop((topic, retain), None)

    def subscribe(self, topic: str, hear: Callable[[Message], None]) -> None:
        self.listeners[topic] = hear
        for (of, _), text in list(self.board.kept.items()):
            if of == topic:
                hear(json.loads(text))

    def hear(self, topic: str, message: Message) -> None:
        self.listeners[topic](message)

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds

    def offend(self, client_ip: str = IP, times: int = 9) -> None:
        for _ in range(times):
            self.bans.saw(client_ip, "injection")

    def is_out(self, client_ip: str = IP) -> bool:
        return self.bans.check(client_ip, self.now) is not None

    @property
    def remaining_s(self) -> float:
        return float(self.bans.snapshot(self.now)[0]["remaining_s"])


def pair(**more: Any) -> tuple[Board, Member, Member]:
    board = Board()
    rules = dataclasses.replace(RULES, **more)
    return board, Member(board, rules, 1000.0), Member(board, rules, 7.0)


def test_a_ban_holds_in_all_processes_whatever_their_clocks_say():
    _, one, other = pair()
    one.offend()
    assert other.is_out()
    assert other.remaining_s == 100
    assert other.changes[-1].is_heard
    other.later(100.0)
    assert not other.is_out()


def test_a_lift_holds_in_all_processes_and_forgets_what_was_done():
    _, one, other = pair()
    one.offend()
    other.offend(times=8)
    one.later(1)
    other.later(1)
    assert other.bans.lift(IP)
    assert not one.is_out()
    one.offend(times=8)
    assert not one.is_out()
    one.offend(times=1)
    assert one.is_out()
    assert one.remaining_s == 100  # and not grown


def test_a_lift_is_told_although_the_ban_is_not_known_here():
    board, one, _ = pair()
    assert not one.bans.lift("203.0.113.7")
    assert board.said[-1]["what"] == "lift"


def test_a_process_that_starts_later_hears_of_bans_with_the_time_that_is_left():
    board, one, _ = pair()
    one.offend()
    late = Member(board, started=5.0, wall=WALL + 40)
    assert late.remaining_s == 60


def test_the_next_ban_is_longer_in_whichever_process_it_comes():
    _, one, other = pair()
    one.offend()
    for member in (one, other):
        member.later(101)
    other.offend()
    assert other.remaining_s == 200
    assert one.remaining_s == 200


def ban(key: Any = IP, for_s: Any = 60.0, at: float = WALL, **more: Any) -> dict[str, Any]:
    return {"what": "ban", "key": key, "for_s": for_s, "at": at, "by": "hand", "why": "", **more}


@pytest.mark.parametrize(
    ("message", "left_s"),
    [
        (ban(), 60),
        (ban(at=WALL - 50), 10),
        (ban(at=WALL - 60), None),
        (ban(at=WALL - 1e9), None),
        (ban(at=WALL + 1e9), 60),  # a clock that is ahead lengthens nothing
        (ban(for_s=0), None),
        (ban(for_s=-5), None),
        (ban(for_s=1e12), 366 * 86_400),
    ],
)
def test_of_what_is_heard_only_what_is_left_counts(message: dict[str, Any], left_s: float | None):
    member = Member(Board())
    member.bans.hear(message, member.now)
    rows = member.bans.snapshot(member.now)
    assert [row["remaining_s"] for row in rows] == ([] if left_s is None else [left_s])


def test_a_ban_that_is_heard_never_shortens_a_longer_one():
    member = Member(Board())
    member.bans.hear(ban(for_s=600), member.now)
    member.bans.hear(ban(for_s=60), member.now)
    assert member.remaining_s == 600
    member.bans.hear(ban(for_s=900), member.now)
    assert member.remaining_s == 900


def test_a_ban_from_before_the_lift_is_not_believed_and_one_from_after_it_is():
    member = Member(Board())
    member.bans.lift(IP)
    member.bans.hear(ban(at=WALL + 5, since=WALL - 5), member.now)
    assert not member.is_out()
    member.bans.hear(ban(at=WALL + 5, since=WALL + 5), member.now)
    # Its clock is ahead of ours, which is no reason not to believe it.
    assert member.is_out()


def test_a_lift_that_is_heard_again_does_not_undo_what_came_after_it():
    member = Member(Board())
    lift = {"what": "lift", "key": IP, "at": WALL}
    member.bans.hear(lift, member.now)
    member.later(1)
    member.bans.ban(IP, 60, "again")
    for at in (WALL, WALL - 1, WALL - 5000):
        member.bans.hear({**lift, "at": at}, member.now)
    assert member.is_out()
    member.bans.hear({**lift, "at": WALL + 1}, member.now)
    assert not member.is_out()


def test_a_clock_that_is_set_back_loses_neither_bans_nor_lifts():
    _, one, other = pair()
    for member in (one, other):
        member.bans.lift(IP)
        member.wall -= 7200
    for _ in range(3):
        one.bans.ban(IP, 60, "noise")
        assert other.is_out()
        other.bans.lift(IP)
        assert not one.is_out()
    one.offend()
    assert other.is_out()


def test_a_lift_is_heard_in_either_spelling_of_an_address():
    member = Member(Board())
    member.bans.hear(ban("2001:DB8:0::/64"), member.now)
    assert member.is_out("2001:db8::1")
    member.bans.hear({"what": "lift", "key": "2001:db8::/64", "at": WALL}, member.now)
    assert not member.is_out("2001:db8::1")


def test_where_there_are_no_rules_bans_by_rules_of_others_are_not_taken_over():
    member = Member(Board(), BanRules())
    member.bans.hear(ban(by="injections"), member.now)
    assert not member.is_out()
    member.bans.hear(ban(by="hand"), member.now)
    assert member.is_out()


def test_who_is_exempt_here_is_not_banned_by_what_is_heard():
    member = Member(Board(), dataclasses.replace(RULES, exempt=(IP,)))
    member.bans.hear(ban(), member.now)
    assert member.bans.snapshot(member.now) == []


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"what": "ban"},
        {"what": "ban", "key": "nonsense", "at": WALL},
        ban(for_s=float("nan")),
        ban(at=float("inf")),
        ban(for_s="soon"),
        ban(for_s=None),
        ban(times="often"),
        ban(key=7),
        {"what": "lift", "key": "10.0.0.1/8", "at": WALL},
        {"what": "saw", "counts": 5},
        {"what": "saw", "counts": [["a"]]},
        {"what": "saw", "counts": [[IP, "injections", float("nan")]]},
        {"what": "saw", "counts": [[IP, "injections", "many"]]},
        {"what": "saw", "counts": [[[], "injections", 1]]},
    ],
)
def test_a_message_that_makes_no_sense_is_refused_and_changes_nothing(message: dict[str, Any]):
    member = Member(Board())
    with pytest.raises((ValueError, KeyError, TypeError)):
        member.bans.hear(message, member.now)
    assert member.bans.snapshot(member.now) == []
    assert member.bans.figures()["counted"] == 0


def test_news_of_a_later_version_is_passed_over():
    member = Member(Board())
    member.bans.hear({"what": "amnesty", "key": IP, "at": WALL}, member.now)


# -- counts


def test_a_client_whose_connections_are_spread_over_processes_is_one():
    board = Board()
    members = [Member(board, started=10.0 * index) for index in range(4)]
    for second in range(5):
        for member in members:
            member.offend(times=1)
            member.later(1)
            member.bans.sweep(member.now)
        if any(member.is_out() for member in members):
            break
    assert all(member.is_out() for member in members)
    assert second <= 4  # 16 to 20 in all: alone each would have waited for 9


def test_what_is_heard_only_adds_up_and_bans_when_something_happens_here():
    member = Member(Board())
    member.bans.hear({"what": "saw", "counts": [[IP, "injections", 50]]}, member.now)
    assert not member.is_out()
    member.offend(times=1)
    assert member.is_out()


def test_counts_that_are_far_from_a_ban_are_not_told():
    board, one, _ = pair()
    one.offend(times=1)
    one.bans.sweep(one.now)
    assert board.said == []


def test_each_count_is_told_once():
    board, one, other = pair()
    one.offend(times=6)
    for _ in range(3):
        one.bans.sweep(one.now)
    (said,) = board.said
    assert said == {"what": "saw", "counts": [[IP, "injections", 5]]}  # of 6, 1 was far from it
    one.offend(times=1)
    one.bans.sweep(one.now)
    assert board.said[1:] == [{"what": "saw", "counts": [[IP, "injections", 1]]}]
    other.offend(times=2)
    assert not other.is_out()
    other.offend(times=1)
    assert other.is_out()


def test_one_message_holds_so_many_counts_and_a_longer_one_is_not_taken_whole():
    board, one, other = pair()
    for number in range(5000):
        one.offend(f"9.0.{number >> 8}.{number & 255}", times=6)
    one.bans.sweep(one.now)
    (said,) = board.said
    assert len(said["counts"]) == 200
    said["counts"] *= 10
    other.bans.hear(said, other.now)


# -- bounds


def test_a_storm_of_bans_is_told_at_a_bounded_rate_and_all_of_it_in_the_end():
    board, one, other = pair()
    for number in range(2000):
        one.offend(f"9.0.{number >> 8}.{number & 255}")
    assert len(board.said) == SAY_BURST
    for _ in range(20):
        before = len(board.said)
        one.later(1)
        other.later(1)
        one.bans.sweep(one.now)
        assert len(board.said) - before <= SAY_PER_S
    for _ in range(30):
        one.later(1)
        one.bans.sweep(one.now)
    assert other.bans.figures()["banned"] == 2000
    assert one.bans.figures()["unsaid"] == 0


def test_what_waits_to_be_told_is_bounded_and_what_has_ended_meanwhile_is_not_told():
    board, one, _ = pair()
    for number in range(12_000):
        one.offend(f"9.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert one.bans.figures()["unsaid"] == 12_000 - SAY_BURST
    one.later(200)
    one.bans.sweep(one.now)
    assert len(board.said) == SAY_BURST


def test_the_board_keeps_no_more_than_its_share_and_lets_go_of_what_has_ended():
    board, one, _ = pair()
    control = Member(board, tends=True)
    for number in range(int(RETAINED_MAX * 1.5)):
        one.offend(f"9.0.{number >> 8}.{number & 255}")
        one.later(0.02)
        one.bans.sweep(one.now)
    assert RETAINED_MAX <= len(board.kept) <= RETAINED_MAX + 1
    one.later(101)
    one.bans.sweep(one.now)
    assert board.kept  # it is not for each worker to take them off
    control.later(200)
    control.bans.sweep(control.now)
    assert board.kept == {}


def test_what_has_ended_or_is_an_old_lift_is_taken_off_the_board_by_who_tends_it():
    board, one, _ = pair()
    one.offend()
    one.bans.lift("203.0.113.7")
    assert len(board.kept) == 2
    late = Member(board, wall=WALL + 500, tends=True)
    assert not late.is_out()
    late.bans.sweep(late.now)
    assert list(board.kept) == [("ban", "203.0.113.7")]
    late.later(3600)
    late.bans.sweep(late.now)
    assert board.kept == {}


def test_who_is_attached_sweeps_by_itself_until_it_is_closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("headgate.security.bans.SWEEP_EVERY_S", 0.0)
    member = Member(Board())

    async def run() -> None:
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[None]] = []
        monkeypatch.setattr(member, "spawn", lambda work: tasks.append(loop.create_task(work)))
        member.offend()
        member.bans.attach(member)
        member.later(500)
        async with asyncio.timeout(5):
            while member.bans.figures()["banned"]:
                await asyncio.sleep(0)
        member.bans.close()
        await tasks[0]
        member.hear("ban", ban())
        assert not member.is_out()
        member.bans.attach(member)
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]

    asyncio.run(run())


@settings(max_examples=100, deadline=None)
@given(
    script=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(["offend", "ban", "lift", "wait", "sweep"]),
            st.sampled_from([IP, "203.0.113.7", "203.0.113.0/24"]),
        ),
        max_size=30,
    )
)
def test_processes_that_hear_each_other_agree(script: list[tuple[int, str, str]]):
    board = Board()
    members = [Member(board, started=100.0 * index) for index in range(3)]
    for index, what, key in script:
        for member in members:
            member.later(0.5)
        match what:
            case "offend" if "/" not in key:
                members[index].offend(key)
            case "ban":
                members[index].bans.ban(key, 40.0 + index, "by hand")
            case "lift":
                members[index].bans.lift(key)
            case "wait":
                for member in members:
                    member.later(30)
            case _:
                members[index].bans.sweep(members[index].now)
        for client_ip in (IP, "203.0.113.7", "203.0.113.8"):
            assert len({member.is_out(client_ip) for member in members}) == 1
