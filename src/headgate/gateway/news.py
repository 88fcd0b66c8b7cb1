"""What a worker tells the others about its traffic, and what it hears from them.

Theory of operation
-------------------
Topics of the shared board (`state.home`):

    breaker   one has opened here by its own judgement: open yours for as long
    outlier   an instance was put out here: put it out there
    health    control's checks: an instance is up or down; retained
    order     an operator's word (`control.orders` has judged it); retained

News may come before the plan that it is about, because what is retained is told when the link
comes. What finds nothing to act upon is kept, the last of each subject, and looked at again with
the next plan.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from headgate.gateway.states import States
    from headgate.policy.breaker import Breaker, Transition
    from headgate.policy.degrade import Degrade
    from headgate.policy.outlier import Ejected
    from headgate.policy.split import Split
    from headgate.state.home import Board

log: Final = logging.getLogger("headgate.gateway")

Message = Mapping[str, Any]

_KEPT: Final = 10_000
"""Messages that wait for their plan; more are about nothing that will come."""
_IDENTIFYING: Final = ("what", "name", "service", "instance", "id")


class News:
    def __init__(self, states: States, board: Callable[[], Board | None]) -> None:
        self._states = states
        self._board = board
        self._shifted: dict[str, tuple[tuple[int, list[Any]] | None, int]] = {}
        """How many steps of each split's order have been taken, and of which split."""
        self._early: dict[tuple[object, ...], tuple[Callable[[Message], bool], Message]] = {}

    def listen(self, board: Board) -> None:
        """Take what others tell. Once for each board."""
        board.subscribe("breaker", self._heard(self._on_breaker))
        board.subscribe("outlier", self._heard(self._on_outlier))
        board.subscribe("health", self._heard(self._on_health, keeps=True))
        board.subscribe("order", self._heard(self._on_order, keeps=True))

    def tell_again(self) -> None:
        """A new plan: act on what came too early for the last one."""
        early, self._early = self._early, {}
        for subject, (act, message) in early.items():
            try:
                done = act(message)
            except Exception:
                log.exception("news that makes no sense: %.300s", ascii(message))
                continue
            if not done:
                self._early[subject] = (act, message)

    def _heard(
        self, act: Callable[[Message], bool], *, keeps: bool = False
    ) -> Callable[[Message], None]:
        def heard(message: Message) -> None:
            done = act(message)
            if keeps:
                subject = (act.__name__, *(str(message.get(part)) for part in _IDENTIFYING))
                self._early.pop(subject, None)
                if not done and len(self._early) < _KEPT:
                    self._early[subject] = (act, message)

        return heard

    # -- what is told --------------------------------------------------------------------------

    def breaker_changed(self, name: str, moved: Transition) -> None:
        board = self._board()
        if board is not None and moved.after == "open" and moved.by in ("calls", "clock"):
            board.publish("breaker", {"name": name, "for_s": moved.for_s, "why": moved.why})

    def ejected(self, service: str, news: Ejected) -> None:
        board = self._board()
        if board is not None:
            message = {
                "service": service,
                "instance": news.id,
                "for_s": max(news.until - news.at, 0.0),
                "why": news.why,
            }
            board.publish("outlier", message)

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

    def _on_health(self, message: Message) -> bool:
        service = self._states.services.get(str(message.get("service")))
        url = str(message.get("instance"))
        if service is None or not service.has(url):
            return False
        why = None if message.get("up", True) else str(message.get("why", "unhealthy"))
        service.say(service.down, url, why, monotonic())
        return True

    def _on_order(self, message: Message) -> bool:
        now = monotonic()
        match message.get("what"):
            case "breaker":
                return self._order_breaker(message, now)
            case "instance":
                service = self._states.services.get(str(message.get("service")))
                url = str(message.get("instance"))
                if service is None or not service.has(url):
                    return False
                service.drain(url, str(message["why"]) if message.get("out") else None, now)
                return True
            case "split":
                split = self._states.splits.get(str(message.get("id")))
                if split is None:
                    return False
                self._order_split(split, message, now)
                return True
            case "level" | "flag":
                degrade = self._states.degrade
                if degrade is None:
                    return False
                _order_degrade(degrade, message, now)
                return True
            case _:
                return True  # of a newer version, perhaps; there is no use in keeping it

    def _order_split(self, split: Split, message: Message, now: float) -> None:
        """Take the steps that are new; a worker that has just started takes all of them."""
        parts = [list(part) for part in split.rules.parts]
        if message["parts"] != parts:
            return  # the file has spoken since
        steps = message["steps"]
        of, done = self._shifted.get(str(message["id"]), (None, 0))
        if of != (id(split), parts):
            done = 0
        for step in steps[done:]:
            over_s = _seconds(step["over_s"]) if step is steps[-1] else 0.0
            share = float(step["share"])
            split.shift(str(step["source"]), str(step["target"]), over_s, now, share)
        self._shifted[str(message["id"])] = ((id(split), parts), len(steps))

    def _order_breaker(self, message: Message, now: float) -> bool:
        breaker = self._breaker(message)
        if breaker is None:
            return False
        order = {
            "open": breaker.force_open,
            "close": breaker.force_close,
            "disable": breaker.disable,
            "metrics_only": breaker.metrics_only,
            "automatic": breaker.automatic,
        }.get(str(message.get("do")))
        if order is not None:
            order(now, str(message.get("why", "by hand")))
        return True


def _seconds(said: Any) -> float:
    """A time that ends: JSON has words for some that do not."""
    seconds = float(said)
    if not 0.0 <= seconds < inf:
        raise ValueError(f"{seconds} is no time")
    return seconds


def _order_degrade(degrade: Degrade, message: Message, now: float) -> None:
    why = str(message.get("why", "by hand"))
    for_s = message.get("for_s")
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
