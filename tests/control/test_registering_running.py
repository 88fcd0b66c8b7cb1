"""The registry with its real processes: traffic comes and goes with those who register."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from headgate.control.client import AdminClient, NothingRuns, Refused, Silent, Told
from headgate.mesh.client.mesh import Mesh
from tests.control.running import PATIENCE_S, wait_until
from tests.control.serving import Instance, Serving, Visitor, soon

pytestmark = pytest.mark.integration

TOKEN = "the-token-that-every-service-carries"
OF_ORDERS = "the-token-that-orders-alone-carries-with-it"
CONFIG: dict[str, Any] = {
    "history": "off",
    "alerts": "off",
    "tracing": "off",
    "registry": {"ttl": "2min"},
    "services": {"users": {"discover": "registry"}, "orders": {"discover": "registry"}},
    "routes": [
        {"name": "users", "match": {"path": "/users"}, "to": "users"},
        {"name": "orders", "match": {"path": "/orders"}, "to": "orders"},
    ],
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    made = Serving(tmp_path_factory.mktemp("registry"))
    tokens: list[dict[str, Any]] = [
        {"name": "shop", "role": "service", "token": TOKEN},
        {"name": "orders", "role": "service", "token": OF_ORDERS, "services": "orders"},
    ]
    state_dir = str(made.state.path)
    made.write(
        **CONFIG,
        state_dir=state_dir,
        admin={"bind": f"127.0.0.1:{made.admin_port}", "tokens": tokens},
    )
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def service(gateway: Serving) -> AdminClient:
    """What a service has: the address of the admin API, and a token of its role."""
    return AdminClient(None, url=f"http://127.0.0.1:{gateway.admin_port}", token=TOKEN)


def register(client: AdminClient, name: str, instance: Instance, of: str = "users") -> int:
    body = {"port": instance.port, "zone": "a", "version": "1"}
    path = f"/api/registry/services/{of}/instances/{name}"
    fence: int = client.ask("PUT", path, body).content["fence"]
    return fence


def leave(client: AdminClient, name: str, fence: int, drain: str = "0s", of: str = "users") -> None:
    path = f"/api/registry/services/{of}/instances/{name}?fence={fence}&drain={drain}"
    client.ask("DELETE", path)


def of_each_worker(gateway: Serving, path: str) -> set[tuple[int, str]]:
    return {visitor.get(path) for visitor in gateway.visitors().values()}


class Load:
    """Requests without a pause to one path; what was no 200 is kept."""

    def __init__(self, gateway: Serving, path: str) -> None:
        self.gateway = gateway
        self.path = path
        self.failures: list[str] = []
        self.names: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            visitor = Visitor(self.gateway)
            try:
                for _ in range(5):
                    status, body = visitor.get(self.path)
                    if status == 200:
                        self.names.append(body)
                    else:
                        self.failures.append(f"{status} {body}")
                    time.sleep(0.002)
            except Exception as error:
                self.failures.append(repr(error))
            finally:
                visitor.close()

    def wait_for(self, *names: str, more: int = 20) -> None:
        """So many more answers, and one at least of each of these."""
        now = len(self.names)
        wait_until(lambda: len(self.names) >= now + more and {*names} <= {*self.names[now:]})


def test_who_registers_has_traffic_in_every_worker_in_a_moment(gateway, service):
    visitors = list(gateway.visitors().values())
    with Instance("fresh") as instance:
        fences: list[int] = []

        def come() -> None:
            fences.append(register(service, "fresh", instance))

        def is_seen() -> bool:
            return {visitor.get("/users") for visitor in visitors} == {(200, "fresh")}

        soon(come, is_seen, lambda: leave(service, "fresh", fences[-1]))
        (row,) = gateway.ask("/api/instances?service=users")
        assert (row["id"], row["source"], row["zone"], row["version"]) == (
            "fresh",
            "self",
            "a",
            "1",
        )
        assert row["url"] == instance.url
        assert row["state"] == "serving"
        leave(service, "fresh", fences[-1])
        wait_until(lambda: {visitor.status("/users") for visitor in visitors} == {503})


def test_a_token_of_a_service_opens_the_registry_and_nothing_else(gateway, service):
    assert service.ask("GET", "/api/registry/services").status == 200
    for method, path in (
        ("GET", "/api/workers"),
        ("GET", "/api/config"),
        ("POST", "/api/reload"),
        ("POST", "/api/instances/drain"),
        ("GET", "/api/registry/stats"),
    ):
        with pytest.raises(Refused) as refused:
            service.ask(method, path)
        assert refused.value.status == 403, path


def test_a_token_of_one_service_speaks_for_that_one(gateway):
    url = f"http://127.0.0.1:{gateway.admin_port}"
    own = AdminClient(None, url=url, token=OF_ORDERS)
    report = {"source": "users", "edges": []}
    with Instance("own") as instance:
        for method, path, body in (
            ("PUT", "/api/registry/services/users/instances/own", {"port": instance.port}),
            ("POST", "/api/registry/services/users/instances/own/beat", {"fence": 1}),
            ("DELETE", "/api/registry/services/users/instances/own?fence=1", None),
            ("POST", "/api/mesh/report", report),
        ):
            with pytest.raises(Refused, match="speaks for orders, and not for users") as refused:
                own.ask(method, path, body)
            assert refused.value.status == 403
        fence = register(own, "own", instance, "orders")
        assert own.ask("POST", "/api/mesh/report", {**report, "source": "orders"}).status == 202
        leave(own, "own", fence, of="orders")
    words = ("make", "users-only", "--role", "service", "--service", "users", "--format", "json")
    made = gateway.command("tokens", *words)
    assert made.returncode == 0, made.stderr
    said = json.loads(made.stdout)
    assert said["services"] == ["users"]
    assert "of users" in gateway.command("tokens", "list").stdout
    bound = AdminClient(None, url=url, token=said["token"])
    with Instance("own") as instance:
        leave(bound, "own", register(bound, "own", instance))
    refused_words = ("make", "nonsense", "--role", "viewer", "--service", "users")
    assert "only the role service" in gateway.command("tokens", *refused_words).stderr


def test_a_rolling_restart_fails_no_request(gateway, service):
    with contextlib.ExitStack() as stack:
        old = stack.enter_context(Instance("old"))
        fence = register(service, "one", old, "orders")
        wait_until(lambda: of_each_worker(gateway, "/orders") == {(200, "old")})
        with Load(gateway, "/orders") as load:
            load.wait_for("old")
            new = stack.enter_context(Instance("new"))
            other = register(service, "two", new, "orders")
            load.wait_for("old", "new")
            leave(service, "one", fence, "300ms", "orders")
            listed = "/api/registry/services/orders"
            wait_until(lambda: [i["id"] for i in gateway.ask(listed)["instances"]] == ["two"])
            wait_until(lambda: old.held == 0)
            served = old.served
            load.wait_for("new")
            assert old.served == served
        assert load.failures == []
        leave(service, "two", other, of="orders")


def test_a_process_that_was_taken_for_dead_cannot_speak_for_its_successor(gateway, service):
    with Instance("first") as first, Instance("second") as second:
        old = register(service, "one", first)
        register(service, "one", second)
        for method, path, body in (
            ("POST", "/api/registry/services/users/instances/one/beat", {"fence": old}),
            ("DELETE", f"/api/registry/services/users/instances/one?fence={old}", None),
        ):
            with pytest.raises(Refused) as refused:
                service.ask(method, path, body)
            assert refused.value.status == 409
        wait_until(lambda: of_each_worker(gateway, "/users") == {(200, "second")})
        gateway.admin.ask("DELETE", "/api/registry/services/users/instances/one?drain=0s")


def test_orders_reach_instances_that_registered(gateway, service):
    with Instance("a") as first, Instance("b") as second:
        fences = {"a": register(service, "a", first), "b": register(service, "b", second)}
        wait_until(lambda: len(gateway.ask("/api/instances?service=users")) == 2)
        done = gateway.command("drain", "users", "a")
        assert done.returncode == 0, done.stderr
        wait_until(lambda: of_each_worker(gateway, "/users") == {(200, "b")})
        assert "drained" in gateway.command("instances", "--service", "users").stdout
        assert gateway.command("instances", "undrain", "users", "a").returncode == 0
        assert gateway.command("weight", "users", "b", "7").returncode == 0
        rows = {row["id"]: row for row in gateway.ask("/api/instances?service=users")}
        assert (rows["b"]["weight"], rows["b"]["weight_of_file"]) == (7, 1)
        for words in (("registered",), ("registered", "users"), ("history", "users"), ("stats",)):
            done = gateway.command("services", *words)
            assert done.returncode == 0, done.stderr
            assert "users" in done.stdout
        said = json.loads(gateway.command("services", "registered", "--json").stdout)
        assert {row["service"]: row["up"] for row in said} == {"users": 2, "orders": 0}
        for name, fence in fences.items():
            leave(service, name, fence)


def test_orders_reach_python_clients_of_the_mesh(gateway, service):
    url = f"http://127.0.0.1:{gateway.admin_port}"

    async def run() -> None:
        async with Mesh(url, token=TOKEN, report=False) as mesh:
            users = mesh.service("users")

            async def seen(count: int = 16) -> set[str]:
                return {(await users.get("/")).text for _ in range(count)}

            async def until(wanted: set[str], *words: str) -> None:
                """After this command only these answer."""
                if words:
                    done = await asyncio.to_thread(gateway.command, *words)
                    assert done.returncode == 0, done.stderr
                async with asyncio.timeout(PATIENCE_S):
                    while await seen() != wanted:
                        await asyncio.sleep(0.01)

            await until({"a", "b"})
            await until({"b"}, "drain", "users", "a")
            await until({"a", "b"}, "instances", "undrain", "users", "a")
            await until({"a", "b"}, "weight", "users", "b", "1000")
            weights: dict[str, int] = {}
            async with asyncio.timeout(PATIENCE_S):
                while 1000 not in weights.values():
                    await asyncio.sleep(0.01)
                    weights = {
                        member.id: member.weight for member in users.snapshot()["group"].members
                    }

    with Instance("a") as first, Instance("b") as second:
        fences = {"a": register(service, "a", first), "b": register(service, "b", second)}
        wait_until(lambda: len(gateway.ask("/api/instances?service=users")) == 2)
        asyncio.run(run())
        gateway.command("weight", "users", "b", "file")
        for name, fence in fences.items():
            leave(service, name, fence)


def test_workers_that_start_while_control_stands_still_know_the_instances(gateway, service):
    with Instance("kept") as instance:
        fence = register(service, "kept", instance)
        wait_until(lambda: of_each_worker(gateway, "/users") == {(200, "kept")})
        kept = gateway.state.path / "registry" / "members.json"
        wait_until(lambda: kept.exists() and instance.url in kept.read_text())
        control, before = gateway.control_pid(), gateway.worker_pids()
        os.kill(control, signal.SIGSTOP)
        try:
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            found: set[tuple[int, str]] = set()

            def answers() -> bool:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    visitor = Visitor(gateway)
                    try:
                        found.add(visitor.get("/users"))
                    finally:
                        visitor.close()
                return bool(found)

            wait_until(answers)
            assert found == {(200, "kept")}  # and not first 503
        finally:
            os.kill(control, signal.SIGCONT)
        gateway.wait_linked()
        assert of_each_worker(gateway, "/users") == {(200, "kept")}
        leave(service, "kept", fence)
        visitors = list(gateway.visitors().values())
        wait_until(lambda: {visitor.status("/users") for visitor in visitors} == {503})


def next_of(events: Iterator[Told], kind: str) -> Told:
    return next(told for told in events if told.event == kind)


def test_a_watch_that_was_cut_resumes_where_it_left_off(gateway, service):
    path = "/api/registry/watch?services=users"
    events = service.stream(path)
    whole = next_of(events, "all")
    assert whole.data["instances"] == []
    with Instance("x") as instance:
        fence = register(service, "x", instance)
        came = next_of(events, "change")
        assert (came.data["what"], came.data["instance"]["id"]) == ("came", "x")
        events.close()
        leave(service, "x", fence)
        fence = register(service, "y", instance)
        back = service.stream(path, last_id=came.id)
        missed = [next(back) for _ in range(2)]
        assert [(told.data["what"], told.data["instance"]["id"]) for told in missed] == [
            ("went", "x"),
            ("came", "y"),
        ]
        back.close()
        leave(service, "y", fence)


def test_control_is_killed_and_nobody_notices(gateway, service):
    with Instance("kept") as instance:
        fence = register(service, "kept", instance)
        wait_until(lambda: of_each_worker(gateway, "/users") == {(200, "kept")})
        wait_until(lambda: _is_on_disk(gateway, "kept"))
        events = service.stream("/api/registry/watch?services=users")
        before = next_of(events, "all")
        killed = gateway.control_pid()
        with Load(gateway, "/users") as load:
            os.kill(killed, signal.SIGKILL)
            with pytest.raises((NothingRuns, Silent, StopIteration)):
                while True:
                    next(events)
            load.wait_for("kept")
            wait_until(lambda: gateway.control_pid() not in (0, killed))
            wait_until(lambda: gateway.health().get("workers_ready") == 2)
            wait_until(lambda: _is_listed(service, "kept"))
            beat = "/api/registry/services/users/instances/kept/beat"
            assert service.ask("POST", beat, {"fence": fence}).status == 200
            load.wait_for("kept")
        assert load.failures == []
        back = service.stream("/api/registry/watch?services=users", last_id=before.id)
        again = next_of(back, "all")
        assert again.data["epoch"] != before.data["epoch"]
        assert again.data["grace_s"] > 0
        assert [one["id"] for one in again.data["instances"]] == ["kept"]
        back.close()
        leave(service, "kept", fence)


def _is_on_disk(gateway: Serving, name: str) -> bool:
    path = gateway.state.path / "registry" / "registry.sqlite"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return any(name == found for (found,) in database.execute("SELECT id FROM leases"))


def _is_listed(client: AdminClient, name: str) -> bool:
    with contextlib.suppress(Refused, Silent):
        rows = client.ask("GET", "/api/registry/services/users").content["instances"]
        return name in {row["id"] for row in rows}
    return False
