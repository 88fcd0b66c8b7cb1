"""What the file says of finding instances, as the plan has it."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.config import Config
from headgate.plan.build import build
from headgate.plan.plan import DiscoverPlan, DnsPlan


@pytest.mark.parametrize(
    ("said", "plan"),
    [
        (None, None),
        ("registry", DiscoverPlan(registry=True)),
        ({"directory": "x"}, DiscoverPlan(directory="x")),
        (
            {"dns": "_http._tcp.users.lan."},
            DiscoverPlan(dns=DnsPlan("_http._tcp.users.lan", "SRV", None)),
        ),
        (
            {"dns": {"name": "Users.LAN", "port": 80, "every": "5s"}, "zone": "a"},
            DiscoverPlan(dns=DnsPlan("users.lan", None, 80, every_s=5.0, zone="a")),
        ),
        (
            {
                "registry": True,
                "dns": {"name": "u", "type": "aaaa", "port": 80, "scheme": "https"},
            },
            DiscoverPlan(registry=True, dns=DnsPlan("u", "AAAA", 80, "https")),
        ),
    ],
    ids=["none", "registry", "directory", "srv", "addresses", "several"],
)
def test_the_ways_to_find_instances_are_those_of_the_file(said, plan):
    service: dict[str, Any] = {"instances": ["http://127.0.0.1:1"]} if said is None else {}
    if said is not None:
        service["discover"] = said
    built = build(Config.model_validate({"services": {"users": service}}))
    assert built.services["users"].discover == plan
    assert len(built.services["users"].members) == (said is None)


def test_a_service_may_have_both():
    service = {"instances": "http://127.0.0.1:1", "discover": "registry"}
    built = build(Config.model_validate({"services": {"users": service}}))
    assert [one.url for one in built.services["users"].instances] == ["http://127.0.0.1:1"]
    assert built.services["users"].discover == DiscoverPlan(registry=True)
