"""What happens, in plain words: a line of the log for each thing that the gateway or the stage did.

Pure. `Names` calls an instance by what people see: `products` where there is one of it, `products
instance 2` where there are several. They are numbered as the gateway lists them, and those
that are gone are remembered, for they are what is talked of then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

__all__ = ["Names", "Tone", "between", "doing_of", "line", "spoken"]

Tone = Literal["bad", "good", "note", "play"]
Row = Mapping[str, Any]

REMEMBERED: Final = 500
_SHUT: Final = ("open", "forced_open")


def line(at: float, tone: Tone, text: str, kind: str) -> dict[str, Any]:
    return {"at": at, "tone": tone, "text": text, "kind": kind}


class Names:
    """What an instance is called."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}

    def learn(self, services: Iterable[Row]) -> None:
        for row in services:
            name = str(row.get("name", ""))
            urls = [str(each.get("url", "")) for each in row.get("instances", ())]
            for number, url in enumerate(urls, 1):
                # Taken out and put in again so that those who are gone are forgotten first.
                self._known.pop((name, url), None)
                self._known[name, url] = f"{name} instance {number}" if len(urls) > 1 else name
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]

    def of(self, service: str, url: str) -> str:
        return self._known.get((service, url)) or service

    def breaker(self, name: str) -> str:
        """A breaker is called by its service, and by its instance where each has one."""
        service, _, url = name.partition(" ")
        return self.of(service, url) if url else service


def spoken(kind: str, said: Row, names: Names) -> dict[str, Any] | None:
    """One event of the gateway as a line; None where it is nothing for people."""
    at = float(said.get("at") or 0.0)
    text = str(said.get("text", ""))
    who = names.of(str(said.get("service", "")), str(said.get("instance", "")))
    why = str(said.get("why", ""))
    match kind:
        case "health":
            if said.get("state") == "down":
                return line(at, "bad", f"{who} gets no more requests: {why or 'it is down'}", kind)
            if why.startswith("the first check"):
                return line(at, "good", f"{who} passed its first health check", kind)
            return line(at, "good", f"{who} gets requests again: {why or 'it is up'}", kind)
        case "ejection":
            if said.get("out"):
                return line(at, "bad", f"{who} ejected: {why}", kind)
            return line(at, "good", f"{who} may serve again: {why}", kind)
        case "breaker":
            return _breaker(at, names.breaker(str(said.get("breaker", ""))), said)
        case "registry" if said.get("what"):
            return _registry(at, said)
        case "alert":
            tone: Tone = "good" if said.get("state") == "resolved" else "bad"
            return line(at, tone, f"Alert {text}", kind)
        case "worker":
            tone = "bad" if said.get("state") == "ended" else "note"
            return line(at, tone, f"Gateway {text}", kind)
        case "ban":
            return line(at, "note", text, kind)
        case "order" | "reload" | "gateway":
            return line(at, "note", text, kind)
    return line(at, "note", text, kind) if text else None


def _registry(at: float, said: Row) -> dict[str, Any]:
    service, what = str(said.get("service", "")), str(said.get("what", ""))
    count = int(said.get("count") or 1)
    who = f"an instance of {service}" if count == 1 else f"{count} instances of {service}"
    _, _, why = str(said.get("text", "")).rstrip(")").rpartition("(")
    match what:
        case "came":
            return line(at, "good", f"Found {who}: {why}", "registry")
        case "went":
            return line(at, "bad", f"Lost {who}: {why}", "registry")
        case "draining":
            return line(at, "note", f"No new requests for {who}, which leaves", "registry")
        case "suspect":
            return line(at, "bad", f"Nothing is heard of {who}", "registry")
    return line(at, "bad", f"{who[0].upper()}{who[1:]} says that it is {what}", "registry")


def _breaker(at: float, who: str, said: Row) -> dict[str, Any]:
    after, why = str(said.get("after", "")), str(said.get("why", ""))
    because = f": {why}" if why else ""
    canary = ": the canary is taken out" if who.partition(" ")[0].endswith("-next") else ""
    match after:
        case "open":
            return line(at, "bad", f"Breaker of {who} opened{canary}{because}", "breaker")
        case "half_open":
            text = f"Breaker of {who} lets a few calls through, to see"
            return line(at, "note", text, "breaker")
        case "closed":
            return line(at, "good", f"Breaker of {who} closed: calls pass again", "breaker")
        case "forced_open":
            return line(at, "bad", f"Breaker of {who} is held open by hand", "breaker")
    return line(at, "note", f"Breaker of {who}: {after}{because}", "breaker")


def between(at: float, before: Row, now: Row) -> Iterator[dict[str, Any]]:
    """What has changed between two looks at what nobody tells: processes, mesh breakers, splits.

    Both are `{"processes": [...], "breakers": [...], "splits": [...]}`, as the page has them.
    """
    yield from _processes(at, before.get("processes") or (), now.get("processes") or ())
    yield from _mesh_breakers(at, before.get("breakers") or (), now.get("breakers") or ())
    yield from _splits(at, before.get("splits") or (), now.get("splits") or ())


def _processes(at: float, before: Sequence[Row], now: Sequence[Row]) -> Iterator[dict[str, Any]]:
    were = {row.get("name"): row for row in before}
    for row in now:
        was = were.get(row.get("name"))
        if was is None:
            continue
        name, state = str(row.get("name")), str(row.get("state"))
        again = int(row.get("restarts") or 0) > int(was.get("restarts") or 0)
        if state == "stopped" and was.get("state") != "stopped":
            yield line(at, "bad", f"The process of {name} is gone, and stays away", "process")
        elif state == "failed" and was.get("state") != "failed":
            yield line(at, "bad", f"The process of {name} does not start", "process")
        elif again or (state == "starting" and was.get("state") == "running"):
            text = f"The process of {name} ended, and is started again"
            if was.get("state") != "starting" or again:
                yield line(at, "note", text, "process")
        if state == "running" and was.get("state") in ("starting", "stopped", "failed"):
            yield line(at, "good", f"{name} runs again (pid {row.get('pid')})", "process")


def _mesh_breakers(
    at: float, before: Sequence[Row], now: Sequence[Row]
) -> Iterator[dict[str, Any]]:
    def by_key(rows: Sequence[Row]) -> dict[tuple[str, str], str]:
        return {
            (str(row.get("at")), str(row.get("name"))): str(row.get("state"))
            for row in rows
            if row.get("at") != "gateway"
        }

    were, are = by_key(before), by_key(now)
    for (source, name), state in are.items():
        if state in _SHUT and were.get((source, name)) not in _SHUT:
            text = f"{source} stops calling {name}: its breaker there opened"
            yield line(at, "bad", text, "breaker")
    for source, name in were.keys() - are.keys():
        text = f"{source} calls {name} again: its breaker there closed"
        yield line(at, "good", text, "breaker")


def _splits(at: float, before: Sequence[Row], now: Sequence[Row]) -> Iterator[dict[str, Any]]:
    were = {row.get("route"): row.get("shares") or {} for row in before}
    for row in now:
        was, shares = were.get(row.get("route")), row.get("shares") or {}
        if was and any(abs(share - was.get(name, 0.0)) >= 0.01 for name, share in shares.items()):
            said = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
            yield line(at, "note", f"Traffic of {row.get('route')} is split: {said}", "split")


_DOING: Final = {
    "retries": "Headgate tries requests again that an instance failed",
    "fallbacks": "Headgate answers from elsewhere what a service cannot (fallback)",
    "rejected": "Headgate keeps requests away from what is known to be down (breaker)",
    "stale": "Headgate answers from its cache what a service cannot",
    "shed": "Headgate turns away what matters least",
    "limited": "Headgate holds back whoever asks too much (rate limit)",
}


def doing_of(at: float, before: Row, now: Row) -> Iterator[dict[str, Any]]:
    """A line when Headgate begins to do something that it did not a minute ago."""
    for name, text in _DOING.items():
        if (now.get(name) or 0) >= 1 and not (before.get(name) or 0) >= 1:
            yield line(at, "note", text, "policy")
