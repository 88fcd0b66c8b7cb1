"""A mesh without a file goes by the one that control has."""

from __future__ import annotations

import asyncio
import logging

import pytest

from headgate.errors import ConfigInvalid
from headgate.mesh import Mesh
from headgate.mesh.client.policies import plans_of
from tests.mesh.client.control_rig import ControlRig
from tests.mesh.client.mesh_rig import instances, says, until

QUICK = {"attempts": 2, "wait": "1ms"}


@pytest.mark.integration
def test_the_policies_of_control_hold_and_change_without_a_word(caplog):
    async def work() -> None:
        async with instances(says(503), says(200, "static")) as found, ControlRig() as control:
            control.add("users", found[0])
            control.portion = {
                "services": {
                    "users": {"discover": {"registry": True}, "retry": False},
                    "old": {"instances": [found[1].url]},
                }
            }
            async with Mesh(control.url, report=False) as mesh:
                users = mesh.service("users")
                await until(lambda: mesh.services == ["old", "users"])
                assert (await users.get("/")).attempts == 1
                # What the file names itself is called too, and nobody may register for it.
                control.add("old", found[0])
                assert {(await mesh.service("old").get("/")).json() for _ in range(4)} == {"static"}

                control.portion = {
                    "services": {"users": {"discover": {"registry": True}}},
                    "retry": QUICK,
                }
                plan = mesh.caller("users")
                await until(lambda: plan.plan.retry is not None)
                assert (await users.get("/")).attempts == 2

                with caplog.at_level(logging.WARNING, "headgate.mesh"):
                    control.portion = {"services": {"users": {"nonsense": 1}}}
                    await until(lambda: "cannot be used" in caplog.text)
                assert (await users.get("/")).attempts == 2

    asyncio.run(work())


@pytest.mark.integration
def test_control_that_knows_of_no_policies_leaves_the_defaults():
    async def work() -> None:
        async with instances(says(200, "a")) as found, ControlRig() as control:
            control.add("users", found[0])
            async with Mesh(control.url, report=False, zone="b") as mesh:
                assert (await mesh.service("users").get("/")).json() == "a"
                plan = mesh.caller("users").plan
                assert plan.retry is not None
                assert plan.balance_rules.zone == "b"

    asyncio.run(work())


def test_a_part_of_a_file_becomes_plans():
    assert plans_of({}) == {}
    assert plans_of({"services": {}}) == {}
    portion = {
        "services": {"users": {"instances": "http://10.0.0.1:1"}},
        "timeout": "3s",
        "mesh": {"trust_domain": "shop.example", "access": {}},
        "redaction": {},
    }
    plan = plans_of(portion)["users"]
    assert plan.timeouts.first_byte_s == 3.0
    with pytest.raises(ValueError, match="no part of a file"):
        plans_of([])
    with pytest.raises(ConfigInvalid):
        plans_of({"services": {"users": {"instances": 5}}})
