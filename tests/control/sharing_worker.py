"""An echo worker that also shares limits and news, and does what a path says with them.

    /shared/I/state                   is it away, how many share, what was heard
    /shared/I/take/RULE/ALGORITHM/N   ask for N of a limit of 10 an hour
    /shared/I/say/TOPIC/N[/RETAIN]    publish

I is the index of the worker that is meant; another one only says who it is.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from headgate.policy.limiter.lease import Ask
from headgate.policy.limiter.rules import LimitRules
from headgate.state.home import HomeAway, LimitAsk
from headgate.state.hub import HubShared
from tests.control.echo_worker import EchoWorker


class SharingWorker(EchoWorker):
    shared: HubShared

    def take_shared(self, shared: HubShared) -> None:
        self.shared = shared
        self.heard: list[int] = []
        shared.subscribe("t", lambda message: self.heard.append(message["n"]))

    async def answer(self, path: str, writer: asyncio.StreamWriter, close: bool) -> None:
        if not path.startswith("/shared/"):
            await super().answer(path, writer, close)
            return
        index, *words = path.split("/")[2:]
        said = {"pid": os.getpid(), "index": self.index}
        if index == str(self.index):
            said.update(await self.do(*words))
        text = json.dumps(said)
        writer.write(
            f"HTTP/1.1 200 OK\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n"
            f"{text}".encode()
        )
        await writer.drain()

    async def do(self, what: str, *words: str) -> dict[str, Any]:
        if what == "take":
            rule, algorithm, n = words
            rules = LimitRules(limit=10, period_s=3600.0, algorithm=algorithm)  # type: ignore[arg-type]  # a test's own
            try:
                (grant,) = await self.shared.take([LimitAsk(rule, rules, Ask("k", int(n), int(n)))])
            except HomeAway as away:
                return {"away": str(away)}
            return {"granted": grant.granted}
        if what == "say":
            retain = words[2] if len(words) > 2 else None
            self.shared.publish(words[0], {"n": int(words[1])}, retain=retain)
        return {
            "is_away": self.shared.is_away,
            "holders": self.shared.holders,
            "heard": self.heard,
        }
