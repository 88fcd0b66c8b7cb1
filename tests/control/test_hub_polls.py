"""How often control asks workers for their figures by its own accord."""

from __future__ import annotations

import asyncio

import pytest

from headgate.control.hub import Hub, WorkerLink
from headgate.control.shared import Shared
from headgate.control.state_dir import StateDir


@pytest.mark.parametrize(
    ("costs", "pause_s"),
    [([], 1.0), ([None], 1.0), ([{"rows": {}}], 1.0), ([{"cost_s": 0.002}, {"cost_s": 0.05}], 5.0)],
    ids=["nobody", "silent", "unsaid", "costly"],
)
def test_polls_go_by_what_a_snapshot_costs_and_not_by_how_long_it_is_waited_for(
    tmp_path, monkeypatch, costs, pause_s
):
    """On a machine that is busy an answer takes long; that is when the figures are wanted."""
    paused: list[float] = []

    async def scenario():
        hub = Hub(StateDir(tmp_path), "run", Shared())
        for at, cost in enumerate(costs):
            link = WorkerLink(at, at + 1)
            link.snapshot = cost
            hub.links[at + 1] = link

        async def slow():
            await real_sleep(0.05)

        monkeypatch.setattr(hub, "refresh", slow)
        polling = asyncio.create_task(hub.poll())
        while len(paused) < 2:
            await real_sleep(0.001)
        polling.cancel()

    real_sleep = asyncio.sleep

    async def sleep(delay_s):
        paused.append(delay_s)
        await real_sleep(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(scenario())
    assert paused[:2] == [pytest.approx(pause_s)] * 2
