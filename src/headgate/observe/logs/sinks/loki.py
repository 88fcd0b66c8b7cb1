"""Grafana Loki, by its push API as JSON.

Labels make streams, and streams are what Loki is short of: there are those that the operator named,
the service, the host and the level, and nothing that a request could make more of.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from headgate.observe.logs.formats import Identity
from headgate.observe.logs.pump import Line, Sent
from headgate.observe.logs.rules import SinkRules, level_name
from headgate.observe.logs.sinks.posting import Poster

__all__ = ["LokiCarrier"]


class LokiCarrier:
    is_local = False

    def __init__(self, rules: SinkRules, who: Identity) -> None:
        self.name = rules.name
        self._poster = Poster(rules.url, "/loki/api/v1/push", dict(rules.headers), rules.ca_file)
        own = {"service": who.service, "host": who.host}
        self._labels = {name: value for name, value in own.items() if value} | dict(rules.labels)

    def send(self, lines: Sequence[Line], deadline: float) -> Sent:
        streams: dict[str, list[tuple[str, str]]] = {}
        for line in lines:
            values = streams.setdefault(level_name(line.level), [])
            values.append((str(int(line.wall * 1e9)), line.data.decode("utf-8", "replace")))
        body = json.dumps(
            {
                "streams": [
                    {"stream": {**self._labels, "level": level}, "values": values}
                    for level, values in streams.items()
                ]
            },
            ensure_ascii=False,
            separators=(",", ":"),
        )
        answer = self._poster.post(body.encode(), "application/json", deadline)
        if answer.status in {200, 204}:
            return Sent(len(lines))
        if answer.is_busy or answer.status in {401, 403}:
            why = f"it answers {answer.status}"
            return Sent(0, 0, tuple(lines), answer.retry_after_s, why)
        reason = answer.body[:200].decode("utf-8", "replace")
        return Sent(0, len(lines), why=f"it refuses a batch with {answer.status}: {reason}")

    def reopen(self) -> None:
        """It has no file."""

    def close(self) -> None:
        self._poster.close()
