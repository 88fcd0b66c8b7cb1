"""What a worker tells the others about its traffic, and what it hears from them.

Theory of operation
-------------------
Topics of the shared board (`state.home`):

    breaker   one has opened here by its own judgement: open yours for as long
    outlier   an instance was put out here: put it out there
    open      a breaker that opened, and until when by wall time; retained while that lasts, for
              workers that start meanwhile
    ejected   an instance that was put out, in the same way
    health    control's checks: an instance is up or down; retained
    members   the instances of a service that discovery finds (`members`); retained
    order     an operator's word (`control.orders` has judged it); retained, but for what happens
              once
    moved     for control alone: a breaker's other moves, and instances that are let in again

News may come before the plan that it is about, because what is retained is told when the link
comes, and before the instance that it is about. What finds nothing to act upon is kept, the last of
each subject, and looked at again with the next plan, and when instances of its service have come.

What checks said last of an instance holds until they say that they no longer look, though the
instance has gone meanwhile: one that goes and comes again at once may not be told of anew.

An order has a revision (`at`) and may have an end (`until`, in wall time). One that has been taken
is not taken again when it is merely repeated, as it is after a new start of control; it is taken
again where a plan has brought back, or made anew, what it is about. At its end it is undone here,
so that it ends in time while control is away as well.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from headgate.gateway.states import States
    from headgate.policy.breaker import Breaker, Transition
    from headgate.policy.degrade import Degrade
    from headgate.policy.outlier import Ejected, Restored
    from headgate.policy.split import Split
    from headgate.state.home import Board

log: Final = logging.getLogger("headgate.gateway")

Message = Mapping[str, Any]

_KEPT: Final = 10_000
"""Messages that wait for their plan; more are about nothing that will come."""
_IDENTIFYING: Final = ("what", "name", "service", "instance", "id")


# What undoes an order that is over.
_UNDOING: Final[dict[str, Message]] = {
    "breaker": {"do": "automatic"},
    "instance": {"out": False},
    "eject": {"out": False},
    "weight": {"weight": None},
    "flag": {"share": None},
    "level": {"level": None},
}
_ONCE: Final = frozenset({"limit"})


_Early = tuple[Callable[[Message], bool], Message]


@dataclass(slots=True)
class _Taken:
    message: Message
    target: object
    """What it was taken by; None while the plan has no such thing."""
    ends: float
    """By the monotonic clock."""


class News:
    def __init__(self, states: States, board: Callable[[], Board | None]) -> None:
        self.on_members: Callable[[Message], object] | None = None
        """Who takes the instances that are found."""
        self._states = states
        self._board = board
        self._shifted: dict[str, tuple[tuple[int, list[Any]] | None, int]] = {}
        """How many steps of each split's order have been taken, and of which split."""
        self._early: dict[str, dict[tuple[object, ...], _Early]] = {}
        """By service, "" where it is about none."""
        self._early_count = 0
        self._checked: dict[tuple[str, str], Message] = {}
        """What checks said last of each instance, by service and URL."""
        self._taken: dict[tuple[str, ...], _Taken] = {}
        self._next_end = inf

    def listen(self, board: Board) -> None:
        """Take what others tell. Once for each board."""
        board.subscribe("breaker", self._heard(self._on_breaker))
        board.subscribe("outlier", self._heard(self._on_outlier))
        board.subscribe("open", self._heard(self._on_open, keeps=True))
        board.subscribe("ejected", self._heard(self._on_ejected, keeps=True))
        board.subscribe("health", self._heard(self._on_health))
        board.subscribe("order", self._heard(self._on_order, keeps=True))
        board.subscribe("members", self._on_members)

    def tell_again(self, service: str | None = None, came: Collection[str] = ()) -> None:
        """A new plan, or instances that came to this service: act on what came too early."""
        if service is None:
            for (name, url), message in self._checked.items():
                self._say_checked(name, url, message)
        else:
            for url in came:
                known_of_it = self._checked.get((service, url))
                if known_of_it is not None:
                    self._say_checked(service, url, known_of_it)
        for known in list(self._taken.values()):
            if service is not None and _service_of(known.message) != service:
                continue
            try:
                self._on_order(known.message)
            except Exception:
                log.exception("an order that makes no sense: %.300s", ascii(known.message))
        for about in [service] if service is not None else list(self._early):
            early = self._early.pop(about, {})
            self._early_count -= len(early)
            for subject, (act, message) in early.items():
                try:
                    done = act(message)
                except Exception:
                    log.exception("news that makes no sense: %.300s", ascii(message))
                    continue
                if not done:
                    self._put_by(subject, act, message)

    def _put_by(
        self, subject: tuple[object, ...], act: Callable[[Message], bool], message: Message
    ) -> None:
        if self._early_count < _KEPT:
            self._early_count += 1
            self._early.setdefault(_service_of(message), {})[subject] = (act, message)

    def _heard(
        self, act: Callable[[Message], bool], *, keeps: bool = False
    ) -> Callable[[Message], None]:
        def heard(message: Message) -> None:
            done = act(message)
            if keeps:
                subject = (act.__name__, *(str(message.get(part)) for part in _IDENTIFYING))
                about = _service_of(message)
                early = self._early.get(about)
                if early is not None and early.pop(subject, None) is not None:
                    self._early_count -= 1
                    if not early:
                        del self._early[about]
                if not done:
                    self._put_by(subject, act, message)

        return heard

    # -- what is told --------------------------------------------------------------------------

    def breaker_changed(self, name: str, moved: Transition) -> None:
        board = self._board()
        if board is None:
            return
        if moved.before == "open":
            board.forget("open", name)
        if moved.by not in ("calls", "clock"):
            return
        if moved.after == "open":
            told = {"name": name, "for_s": moved.for_s, "why": moved.why}
            board.publish("breaker", told)
            lasting = {**told, "service": name.partition(" ")[0], "until": _wall() + moved.for_s}
            board.publish("open", lasting, retain=name)
        else:
            what = {"breaker": name, "before": moved.before, "after": moved.after}
            board.publish("moved", {**what, "why": moved.why})

    def restored(self, service: str, news: Restored) -> None:
        board = self._board()
        if board is not None:
            board.publish("moved", {"service": service, "instance": news.id, "why": news.why})
            board.forget("ejected", f"{service} {news.id}")

    def ejected(self, service: str, news: Ejected) -> None:
        board = self._board()
        if board is not None:
            for_s = max(news.until - news.at, 0.0)
            told = {"service": service, "instance": news.id, "for_s": for_s, "why": news.why}
            board.publish("outlier", told)
            lasting = {**told, "until": _wall() + for_s}
            board.publish("ejected", lasting, retain=f"{service} {news.id}")

    # -- what is heard: each says whether there was something to act upon ------------------------

    def _breaker(self, message: Message) -> Breaker | None:
        name = str(message.get("name"))
        service = self._states.services.get(name.partition(" ")[0])
        if service is None:
            return None
        return next((found for found in service.all_breakers() if found.name == name), None)

    def _on_breaker(self, message: Message) -> bool:
        breaker = self._breaker(message)
        if breaker is None:
            return False
        for_s = min(_seconds(message["for_s"]), breaker.rules.reset_max_s * 2.0)
        breaker.trip(monotonic(), for_s, f"a peer: {message.get('why', '')}")
        return True

    def _on_outlier(self, message: Message) -> bool:
        service = self._states.services.get(str(message.get("service")))
        if service is None:
            return False
        why = f"a peer: {message.get('why', '')}"
        for_s = _seconds(message["for_s"])
        service.eject(str(message.get("instance")), for_s, why, monotonic())
        return True

    def _on_open(self, message: Message) -> bool:
        """As `_on_breaker`, for those who were not there: only what is left of its time."""
        left_s = _left_s(message)
        breaker = self._breaker(message)
        if left_s <= 0.0 or breaker is None:
            return left_s <= 0.0
        left_s = min(left_s, breaker.rules.reset_max_s * 2.0)
        breaker.trip(monotonic(), left_s, f"a peer: {message.get('why', '')}")
        return True

    def _on_ejected(self, message: Message) -> bool:
        left_s = _left_s(message)
        service = self._states.services.get(str(message.get("service")))
        url = str(message.get("instance"))
        if left_s <= 0.0 or service is None or not service.has(url):
            return left_s <= 0.0
        service.eject(url, left_s, f"a peer: {message.get('why', '')}", monotonic())
        return True

    def _on_health(self, message: Message) -> bool:
        place = (str(message.get("service")), str(message.get("instance")))
        if message.get("gone"):
            self._checked.pop(place, None)
        elif place in self._checked or len(self._checked) < _KEPT:
            self._checked[place] = message
        self._say_checked(*place, message)
        return True

    def _say_checked(self, name: str, url: str, message: Message) -> None:
        service = self._states.services.get(name)
        if service is not None and service.has(url):
            why = None if message.get("up", True) else str(message.get("why", "unhealthy"))
            service.say(service.down, url, why, monotonic())

    def _on_members(self, message: Message) -> None:
        if self.on_members is not None:
            self.on_members(message)

    def turn(self, now: float) -> None:
        """A few times a second: undo what is over."""
        if now < self._next_end:
            return
        over = [known for known in self._taken.values() if known.ends <= now]
        self._next_end = min(
            (known.ends for known in self._taken.values() if known.ends > now), default=inf
        )
        for known in over:
            known.ends = inf
            undone = {**known.message, **_UNDOING.get(str(known.message["what"]), {})}
            known.message = {**undone, "until": None}
            if known.target is not None:
                self._act(known.target, known.message, None, now)

    def taken(self) -> dict[str, float]:
        """The revision of each order that holds here, by the order's id."""
        return {
            str(known.message["order"]): known.message["at"]
            for known in self._taken.values()
            if known.target is not None and "order" in known.message
        }

    def _on_order(self, message: Message) -> bool:
        now = monotonic()
        what = str(message.get("what"))
        left_s = None
        if message.get("until") is not None:
            left_s = float(message["until"]) - _wall()
            if left_s <= 0.0:
                message = {**message, **_UNDOING.get(what, {}), "until": None}
        target = self._target(what, message)
        if "at" not in message or what in _ONCE:
            if target is not None:
                self._act(target, message, left_s, now)
            return target is not None
        subject = tuple(str(message.get(part)) for part in _IDENTIFYING)
        known = self._taken.get(subject)
        is_new = (
            known is None
            or known.message.get("at") != message["at"]
            or (known.target is not target and target is not None)
        )
        if target is None or is_new:
            ends = now + left_s if left_s is not None and left_s > 0.0 else inf
            self._taken.pop(subject, None)
            self._taken[subject] = _Taken(message, target, ends)
            self._next_end = min(self._next_end, ends)
            if len(self._taken) > _KEPT:
                del self._taken[next(iter(self._taken))]
        again = what in ("instance", "weight") or (what == "eject" and bool(message.get("out")))
        if target is not None and (is_new or again):
            # Of these a service forgets what its plan has no more; so they are said again.
            self._act(target, self._taken[subject].message, left_s, now)
        return True

    def _target(self, what: str, message: Message) -> object:
        """What an order is about, as this plan has it; itself where nobody knows such orders."""
        states = self._states
        match what:
            case "breaker":
                return self._breaker(message)
            case "instance" | "weight" | "eject":
                service = states.services.get(str(message.get("service")))
                url = str(message.get("instance"))
                return service if service is not None and service.has(url) else None
            case "split":
                return states.splits.get(str(message.get("id")))
            case "level" | "flag":
                return states.degrade
            case "limit":
                return states.limits.get(str(message.get("id")))
            case _:
                return message  # of a newer version, perhaps; there is no use in keeping it

    def _act(self, target: Any, message: Message, left_s: float | None, now: float) -> None:
        why = str(message.get("why", "by hand"))
        url = str(message.get("instance"))
        match message.get("what"):
            case "breaker":
                _order_breaker(target, message, now)
            case "instance":
                target.drain(url, why if message.get("out") else None, now)
            case "weight":
                weight = message.get("weight")
                of_file = int(message.get("of_file") or 0)
                target.weigh(url, None if weight is None else int(weight), of_file, now)
            case "eject":
                if message.get("out"):
                    target.say(target.put_out, url, why, now)
                elif message.get("readmit"):
                    target.readmit(url, why, now)
                else:
                    target.say(target.put_out, url, None, now)
            case "split":
                self._order_split(target, message, now)
            case "level" | "flag":
                _order_degrade(target, message, left_s, now)
            case "limit":
                target.forget(str(message["key"]))

    def _order_split(self, split: Split, message: Message, now: float) -> None:
        """Take the steps that are new; a worker that has just started takes all of them."""
        parts = [list(part) for part in split.rules.parts]
        if message["parts"] != parts:
            return  # the file has spoken since
        steps = message["steps"]
        of, done = self._shifted.get(str(message["id"]), (None, 0))
        if of != (id(split), parts):
            done = 0
        if len(steps) < done or (not steps and of is not None):
            split.restore(now)  # taken back
            done = 0
        for step in steps[done:]:
            over_s = _seconds(step["over_s"]) if step is steps[-1] else 0.0
            share = float(step["share"])
            split.shift(str(step["source"]), str(step["target"]), over_s, now, share)
        self._shifted[str(message["id"])] = ((id(split), parts), len(steps))


def _service_of(message: Message) -> str:
    """Whose instances it may be about; a breaker's name begins with it."""
    said = message.get("service")
    if said is None and message.get("what") == "breaker":
        said = str(message.get("name")).partition(" ")[0]
    return "" if said is None else str(said)


def _order_breaker(breaker: Breaker, message: Message, now: float) -> None:
    order = {
        "open": breaker.force_open,
        "close": breaker.force_close,
        "reset": breaker.force_close,
        "disable": breaker.disable,
        "metrics_only": breaker.metrics_only,
        "automatic": breaker.automatic,
    }.get(str(message.get("do")))
    if order is not None:
        order(now, str(message.get("why", "by hand")))


def _seconds(said: Any) -> float:
    """A time that ends: JSON has words for some that do not."""
    seconds = float(said)
    if not 0.0 <= seconds < inf:
        raise ValueError(f"{seconds} is no time")
    return seconds


def _wall() -> float:
    return time.time()  # noqa: TID251  told between machines


def _left_s(message: Message) -> float:
    """How long it still holds. A clock of another machine that is ahead makes it no longer."""
    return min(_seconds(message["for_s"]), float(message["until"]) - _wall())


def _order_degrade(degrade: Degrade, message: Message, left_s: float | None, now: float) -> None:
    why = str(message.get("why", "by hand"))
    for_s = left_s if left_s is not None else message.get("for_s")
    if for_s is not None:
        for_s = _seconds(for_s)
    if message["what"] == "flag":
        name = str(message.get("name"))
        share = message.get("share")
        if share is None:
            degrade.clear_flag(name, now)
        else:
            degrade.set_flag(name, float(share), now, why, for_s)
    elif message.get("level") is None:
        degrade.clear("hand", now)
    else:
        degrade.set("hand", int(message["level"]), now, why, for_s)
