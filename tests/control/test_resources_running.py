"""Resources and orders of the admin API, and `headgate ctl`, against a gateway with two workers."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from headgate.control.client import Refused, Told
from tests.control.running import Done, wait_until
from tests.control.serving import Instance, Serving, Visitor, serving

pytestmark = pytest.mark.integration

NAMES = ("a", "b", "c", "old", "new", "one", "two")


@pytest.fixture(scope="module")
def instances() -> Iterator[dict[str, Instance]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(Instance(name)) for name in NAMES}


def config(instances: dict[str, Instance], weight_of_a: int = 1) -> dict[str, Any]:
    def urls(*names: str) -> list[str]:
        return [instances[name].url for name in names]

    routes: list[dict[str, Any]] = [
        {
            "name": "limited",
            "match": {"path": "/limited/"},
            "respond": {"body": "in time"},
            "limit": {"rate": "3/24h", "by": "header:x-who", "name": "who"},
        },
        {"name": "canary", "match": {"path": "/canary/"}, "to": {"old": "100%", "new": "0%"}},
        {"name": "pair", "match": {"path": "/pair/"}, "to": "pair"},
        {"name": "users", "match": {"path": "/users/"}, "to": "users"},
    ]
    first, *others = urls("a", "b", "c")
    return {
        "services": {
            "users": {
                "instances": [{"url": first, "weight": weight_of_a}, *others],
                "balance": "round_robin",
                "breaker": True,
                "outlier": {"errors": 3, "eject": "1h"},
            },
            "pair": {"instances": urls("one", "two")},
            "old": {"instances": urls("old")},
            "new": {"instances": urls("new")},
        },
        "auth": {"api_key": {"file": "keys.yaml"}},
        "routes": routes,
    }


@pytest.fixture(scope="module")
def gateway(
    instances: dict[str, Instance], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("resources")
    (folder / "keys.yaml").write_text("keys: []\n")
    with serving(folder, **config(instances)) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def _nothing_stands(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    gateway: Serving = request.getfixturevalue("gateway")
    for row in gateway.ask("/api/orders"):
        gateway.admin.ask("DELETE", f"/api/orders/{row['id']}")


@pytest.fixture
def visitors(gateway: Serving) -> list[Visitor]:
    return list(gateway.visitors().values())


def bodies(visitors: list[Visitor], path: str, times: int = 6) -> set[str]:
    return {visitor.get(path)[1] for visitor in visitors for _ in range(times)}


def ctl(gateway: Serving, *words: str) -> Done:
    return gateway.command("ctl", *words)


def ctl_json(gateway: Serving, *words: str) -> Any:
    done = ctl(gateway, *words, "--json")
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def refusal(gateway: Serving, method: str, path: str, status: int) -> str:
    with pytest.raises(Refused) as refused:
        gateway.admin.ask(method, path)
    assert refused.value.status == status
    return str(refused.value)


def orders(gateway: Serving) -> dict[str, dict[str, Any]]:
    return {row["subject"]: row for row in gateway.ask("/api/orders")}


# -- lists


def test_lists_have_pages_orders_and_tags(gateway: Serving):
    rows = gateway.ask("/api/routes")
    assert [row["name"] for row in rows] == ["where", "limited", "canary", "pair", "users"]
    first = gateway.admin.ask("GET", "/api/routes?limit=2&sort=name")
    assert [row["name"] for row in first.content] == ["canary", "limited"]
    assert first.headers["x-total-count"] == "5"
    assert 'rel="next"' in first.headers["link"]
    everything = gateway.admin.listed("/api/routes?limit=2&sort=name")
    assert [row["name"] for row in everything] == sorted(row["name"] for row in rows)
    assert gateway.ask("/api/routes?q=user&sort=-figures.requests")[0]["name"] == "users"
    assert first.headers["etag"].startswith('"')
    said = refusal(gateway, "GET", "/api/routes?sort=nmae", 422)
    assert 'did you mean "name"?' in said


def test_a_route_shows_its_policies_and_its_figures(gateway: Serving, visitors: list[Visitor]):
    visitors[0].get("/users/")
    found = gateway.ask("/api/routes/users")
    assert found["target"] == "service users"
    assert found["figures"]["requests"] >= 1
    assert {row["policy"] for row in found["policies"]} >= {"breaker"}
    assert gateway.ask("/api/routes/limited")["limits"] == ["route/limited/who"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/api/routes/usres", 'no route named "usres"; did you mean "users"?'),
        ("/api/services/usres", 'no service named "usres"; did you mean "users"?'),
        ("/api/breakers/usres", 'no circuit breaker named "usres"; did you mean "users"?'),
        ("/api/limits/wo", 'no limit named "wo"; did you mean "who"?'),
        ("/api/instances?service=usres", 'no service named "usres"'),
        ("/api/instances/one?service=users&url=http://x", "no instance of users named"),
        ("/api/orders/breaker-1", 'no order that stands named "breaker-1"'),
        ("/api/keys/nobody", 'no key named "nobody"'),
        ("/api/consumers/nobody", 'no consumer named "nobody"'),
        ("/api/live/requests?route=usres", 'no route named "usres"; did you mean "users"?'),
    ],
)
def test_what_does_not_exist_is_not_found_with_a_suggestion(
    gateway: Serving, path: str, words: str
):
    assert words in refusal(gateway, "GET", path, 404)


# -- limits


def test_a_limit_shows_who_uses_most_and_forgets_a_key(gateway: Serving, visitors: list[Visitor]):
    def spent(who: str) -> list[int]:
        return [visitor.status("/limited/", x_who=who) for visitor in visitors * 2]

    # Workers that have just found their shared home count alone for a moment.
    probes = iter(range(1000))

    def is_shared() -> bool:
        who = f"probe-{next(probes)}"
        spent(who)
        (row,) = gateway.ask(f"/api/limits/who?top=0&key={who}")["key"]
        return bool(row["used"] == 3)

    wait_until(is_shared)
    assert spent("anna").count(200) == 3
    visitors[0].status("/limited/", x_who="bert")
    found = ctl_json(gateway, "limits", "show", "who", "--top", "1000")
    used = {row["key"]: (row["used"], row["is_refused"]) for row in found["top"]}
    assert used["header:x-who=anna"] == (3.0, True)
    assert used["header:x-who=bert"] == (1.0, False)
    assert found["top"][0]["used"] == 3.0
    one = ctl_json(gateway, "limits", "show", "who", "anna")["key"]
    assert [(row["remaining"], row["limit"]) for row in one] == [(0, 3)]
    assert (
        "header:x-who=anna of who begins anew"
        in ctl(gateway, "limits", "reset", "who", "anna").stdout
    )
    assert spent("anna").count(200) == 3
    assert "anna" in ctl(gateway, "limits", "show", "who").stdout


# -- orders


def test_a_drained_instance_is_told_of_everywhere_and_withdrawn(
    gateway: Serving, visitors: list[Visitor], instances: dict[str, Instance]
):
    url = instances["a"].url
    done = ctl(gateway, "instances", "drain", "users", url, "--why", "new disk")
    assert done.returncode == 0, done
    assert "2 of 2 workers have taken it" in done.stdout
    assert bodies(visitors, "/users/") == {"b", "c"}
    row = gateway.ask(f"/api/instances/one?service=users&url={url}")
    assert (row["state"], row["why_out"]) == ("drained", "new disk")
    assert url in ctl(gateway, "instances", "users").stdout
    (order,) = ctl_json(gateway, "orders")
    assert row["orders"] == [order["id"]]
    assert (order["workers"], order["workers_of"], order["why"]) == (2, 2, "new disk")
    assert order["by"].startswith("uid:")
    # The same again is the same order.
    again = gateway.post("/api/instances/drain", service="users", instance=url, why="new disk")
    assert again["is_new"] is False
    assert again["order"]["at"] == order["at"]
    assert "withdrawn" in ctl(gateway, "orders", "withdraw", order["id"]).stdout
    assert bodies(visitors, "/users/") == {"a", "b", "c"}
    assert ctl(gateway, "orders").stdout == "no orders stand\n"


def test_nobody_is_left_to_serve_only_by_force(gateway: Serving, instances: dict[str, Instance]):
    one, two = instances["one"].url, instances["two"].url
    gateway.post("/api/instances/drain", service="pair", instance=one)
    done = ctl(gateway, "instances", "drain", "pair", two)
    assert done.returncode == 1
    assert "the last instance of pair that is in work" in done.stderr
    assert ctl(gateway, "instances", "drain", "pair", two, "--force").returncode == 0


def test_a_weight_by_hand_stands_in_place_of_the_files_until_the_file_says_another(
    gateway: Serving, visitors: list[Visitor], instances: dict[str, Instance]
):
    url = instances["a"].url

    def weights() -> set[int]:
        return {
            member["weight"]
            for worker in gateway.policies().values()
            for member in worker["services"]["users"]["group"]["members"]
            if member["id"] == url
        }

    done = ctl(gateway, "instances", "weight", "users", url, "7")
    assert "has weight 7" in done.stdout
    assert weights() == {7}
    seen = [visitors[0].get("/users/")[1] for _ in range(18)]
    assert seen.count("a") == 14
    gateway.reload(**config(instances))  # the same weight in the file
    assert weights() == {7}
    row = gateway.ask(f"/api/instances/one?service=users&url={url}")
    assert (row["weight"], row["weight_of_file"]) == (7, 1)
    gateway.reload(**config(instances, weight_of_a=2))
    assert weights() == {2}
    assert not gateway.ask("/api/orders")
    gateway.reload(**config(instances))
    assert weights() == {1}


def test_an_instance_is_put_out_for_a_while_and_let_in_before_its_time(
    gateway: Serving, visitors: list[Visitor], instances: dict[str, Instance]
):
    url = instances["b"].url
    done = ctl(gateway, "instances", "eject", "users", url, "--for", "1h")
    assert "it ends in 60 min" in done.stdout
    assert bodies(visitors, "/users/") == {"a", "c"}
    assert ctl(gateway, "instances", "readmit", "users", url).returncode == 0
    assert bodies(visitors, "/users/") == {"a", "b", "c"}
    assert not gateway.ask("/api/orders")


def test_an_order_with_an_end_is_over_by_itself(
    gateway: Serving, visitors: list[Visitor], instances: dict[str, Instance]
):
    url = instances["c"].url
    gateway.post("/api/instances/drain", service="users", instance=url, hold="500ms")
    gateway.post("/api/breakers", name="users", do="open", hold="500ms")
    wait_until(lambda: bodies(visitors, "/users/") == {"a", "b", "c"})
    assert not gateway.ask("/api/orders")


def test_what_was_put_out_for_its_answers_is_let_in_by_hand(
    gateway: Serving, visitors: list[Visitor], instances: dict[str, Instance]
):
    bad = instances["b"]
    bad.status = 500
    gateway.post("/api/breakers", name="users", do="disable")

    def is_out() -> bool:
        visitors[0].get("/users/")
        return bool(
            gateway.ask(f"/api/instances/one?service=users&url={bad.url}")["state"] == "out"
        )

    wait_until(is_out)
    bad.status = 200
    assert bodies(visitors, "/users/") == {"a", "c"}
    gateway.post("/api/instances/readmit", service="users", instance=bad.url)
    wait_until(lambda: bodies(visitors, "/users/") == {"a", "b", "c"})
    gateway.post("/api/breakers", name="users", do="reset")
    kinds = [row["kind"] for row in gateway.ask("/api/events")]
    assert "ejection" in kinds
    assert "order" in kinds


def test_a_breaker_is_forced_and_reset(gateway: Serving, visitors: list[Visitor]):
    assert ctl(gateway, "breakers", "open", "users", "--why", "migration").returncode == 0
    assert {visitor.status("/users/") for visitor in visitors} == {503}
    found = ctl_json(gateway, "breakers", "users")
    assert set(found["states"].values()) == {"forced_open"}
    assert "migration" in ctl(gateway, "breakers").stdout
    assert ctl(gateway, "breakers", "reset", "users").returncode == 0
    assert {visitor.status("/users/") for visitor in visitors} == {200}
    assert not gateway.ask("/api/orders")


def test_a_shift_of_a_split_is_withdrawn(gateway: Serving, visitors: list[Visitor]):
    assert ctl(gateway, "splits", "shift", "canary", "old", "new").returncode == 0
    assert bodies(visitors, "/canary/", 3) == {"new"}
    assert "new 100.0%" in ctl(gateway, "splits").stdout
    (order,) = gateway.ask("/api/orders?what=split")
    gateway.admin.ask("DELETE", f"/api/orders/{order['id']}")
    assert bodies(visitors, "/canary/", 3) == {"old"}


def test_orders_given_at_once_all_stand(gateway: Serving, instances: dict[str, Instance]):
    def give(number: int) -> int:
        url = instances["abc"[number % 3]].url
        said = gateway.post(
            "/api/instances/weight", service="users", instance=url, weight=number + 2
        )
        return int(said["order"]["workers_of"])

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(give, range(12))) == {2}
    found = gateway.ask("/api/orders")
    assert len(found) == 3
    of_book = {row["order"]["instance"]: row["order"]["weight"] for row in found}
    for worker in gateway.policies().values():
        assert worker["services"]["users"]["weights"] == of_book
    assert all(row["workers"] == 2 for row in found)


def test_orders_outlive_a_worker_control_and_a_reload(
    gateway: Serving, instances: dict[str, Instance]
):
    url = instances["a"].url
    gateway.post("/api/instances/drain", service="users", instance=url, why="later")
    gateway.post("/api/instances/weight", service="users", instance=instances["b"].url, weight=5)
    gateway.post("/api/breakers", name="users", do="metrics_only")
    before = orders(gateway)
    assert len(before) == 3
    gateway.kill_worker(gateway.worker_pids()[0])
    wait_until(lambda: all(row["workers"] == 2 for row in gateway.ask("/api/orders")))
    control = gateway.control_pid()
    os.kill(control, signal.SIGKILL)
    wait_until(lambda: gateway.control_pid() not in (0, control))
    wait_until(lambda: gateway.health().get("workers_ready") == 2)
    gateway.wait_linked()
    wait_until(lambda: len(orders(gateway)) == 3)
    gateway.reload(**config(instances))
    wait_until(lambda: all(row["workers"] == 2 for row in gateway.ask("/api/orders")))
    after = orders(gateway)
    assert {name: row["at"] for name, row in after.items()} == {
        name: row["at"] for name, row in before.items()
    }
    for worker in gateway.policies().values():
        said = worker["services"]["users"]
        assert said["out"] == {url: "later"}
        assert said["weights"] == {instances["b"].url: 5}
        # Repeated, but taken once: a breaker is not moved again by what it has heard.
        assert [each["state"] for each in said["breakers"]] == ["metrics_only"]
        assert len([m for m in said["breakers"][0]["history"] if m["by"] == "hand"]) <= 12
    assert ctl(gateway, "orders", "withdraw", "--all").returncode == 0
    assert not orders(gateway)


def test_an_order_about_an_instance_that_the_file_loses_holds_when_it_is_back(
    gateway: Serving, instances: dict[str, Instance]
):
    url = instances["a"].url
    gateway.post("/api/instances/drain", service="users", instance=url)
    without = config(instances)
    del without["services"]["users"]["instances"][0]
    gateway.reload(**without)
    gateway.reload(**config(instances))
    row = gateway.ask(f"/api/instances/one?service=users&url={url}")
    assert row["state"] == "drained"


# -- keys


def test_keys_are_made_listed_rotated_and_revoked(gateway: Serving):
    made = ctl_json(gateway, "keys", "new", "acme", "--tier", "gold", "--expires", "90d")
    assert made["key"].startswith("hg_")
    (row,) = gateway.ask(f"/api/keys?prefix={made['key'][:12]}")
    assert (row["id"], row["tier"], row["state"]) == (made["id"], "gold", "live")
    new = ctl_json(gateway, "keys", "rotate", made["id"], "--grace", "1h")
    assert new["old_id"] == made["id"]
    done = ctl(gateway, "keys", "revoke", made["id"])
    assert done.stdout == f"{made['id']} is revoked\n"
    (consumer,) = gateway.ask("/api/consumers")
    assert (consumer["keys"], consumer["keys_live"]) == (2, 1)
    assert made["key"] not in (gateway.folder / "keys.yaml").read_text()
    assert made["key"] not in gateway.said
    assert made["key"] not in json.dumps(gateway.ask("/api/audit?limit=50"))


# -- live


class View(threading.Thread):
    """Reads a live view until it has seen enough."""

    def __init__(self, gateway: Serving, path: str, enough: int, kind: str) -> None:
        super().__init__(daemon=True)
        self.gateway, self.path, self.enough, self.kind = gateway, path, enough, kind
        self.told: list[Told] = []

    def run(self) -> None:
        for told in self.gateway.admin.stream(self.path, timeout_s=20):
            if told.event == self.kind:
                self.told.append(told)
            if len(self.told) >= self.enough:
                return


def test_the_overview_tells_what_is_going_on(gateway: Serving, visitors: list[Visitor]):
    view = View(gateway, "/api/live/overview", 3, "overview")
    view.start()
    while view.is_alive():
        visitors[0].get("/users/")
    view.join(20)
    last = view.told[-1].data
    assert last["requests_per_s"] > 0
    assert last["routes"][0]["route"] == "users"
    assert last["p50_ms"] is not None
    assert len(last["workers"]) == 2
    done = ctl(gateway, "top", "--count", "1")
    assert "requests/s" in done.stdout


def test_requests_are_told_as_they_end_to_whoever_looks(gateway: Serving, visitors: list[Visitor]):
    view = View(gateway, "/api/live/requests?route=limited&status=4xx", 1, "request")
    view.start()
    while view.is_alive():
        for visitor in visitors:
            visitor.get("/users/")
            visitor.status("/limited/?secret=1", x_who="carl")
    view.join(20)
    (told,) = view.told
    assert (told.data["route"], told.data["status"]) == ("limited", 429)
    assert told.data["path"] == "/limited/"
    assert "secret" not in json.dumps(told.data)


def test_events_are_kept_for_those_who_come_back(gateway: Serving):
    gateway.post("/api/breakers", name="users", do="open", why="first")
    gateway.post("/api/breakers", name="users", do="automatic", why="second")
    events = gateway.ask("/api/events?kind=order")
    at = next(n for n, row in enumerate(events) if row["why"] == "first")
    told = gateway.admin.stream("/api/live/events", last_id=events[at]["id"])
    after = next(each for each in told if each.event == "order")
    assert after.data["why"] == "second"
    foreign = gateway.admin.stream("/api/live/events", last_id="elsewhere-7")
    assert next(iter(foreign)).event == "gap"
    done = ctl(gateway, "events", "--kind", "order", "-f", "-n", "1")
    assert done.returncode == 0, done


def test_statuses_that_are_none_are_refused(gateway: Serving):
    with pytest.raises(Refused, match="write 404, 5xx or 400-499"):
        next(iter(gateway.admin.stream("/api/live/requests?status=many")))


# -- the command


@pytest.mark.parametrize(
    "words",
    [
        ["routes"],
        ["routes", "users"],
        ["services"],
        ["services", "users"],
        ["instances"],
        ["breakers"],
        ["breakers", "users"],
        ["limits"],
        ["bans"],
        ["cache"],
        ["keys"],
        ["consumers"],
        ["certs"],
        ["workers"],
        ["orders"],
        ["splits"],
        ["flags"],
        ["events"],
        ["health"],
        ["get", "gateway/stats"],
    ],
    ids=" ".join,
)
def test_each_noun_has_a_list_and_json(gateway: Serving, words: list[str]):
    done = ctl(gateway, *words)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout.strip()
    json.loads(ctl(gateway, *words, "--json").stdout)


def test_the_command_speaks_over_the_network_with_a_token(
    gateway: Serving, monkeypatch: pytest.MonkeyPatch
):
    url = f"http://127.0.0.1:{gateway.admin_port}"
    monkeypatch.setenv("HEADGATE_TOKEN", "wrong")
    done = ctl(gateway, "routes", "--url", url)
    assert done.returncode == 1
    assert "token" in done.stderr
    monkeypatch.delenv("HEADGATE_TOKEN")
    done = ctl(gateway, "--url", url, "routes", "--token", gateway.state.token() or "")
    assert done.returncode == 0, done


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["routes", "usres"], 1, 'did you mean "users"?'),
        (["breakers", "open", "usres"], 1, 'did you mean "users"?'),
        (["instances", "weight", "users", "http://x", "many"], 2, "a whole number"),
        (["nonsense"], 2, "No such command"),
        (["routes", "--every", "soon"], 2, "soon"),
        (["orders", "withdraw"], 2, "say which, or --all"),
    ],
    ids=["no-route", "no-breaker", "no-weight", "no-command", "no-time", "no-order"],
)
def test_what_is_wrong_is_said_with_the_way_out(
    gateway: Serving, words: list[str], code: int, said: str
):
    done = ctl(gateway, *words)
    assert done.returncode == code, done
    assert said in done.stderr


def test_what_has_not_changed_is_not_sent_again(gateway: Serving):
    connection = http.client.HTTPConnection("127.0.0.1", gateway.admin_port, timeout=20)
    try:
        token = gateway.state.token()
        connection.request("GET", "/api/orders", headers={"authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        answer.read()
        tag = answer.headers["etag"]
        assert answer.status == 200
        headers = {"authorization": f"Bearer {token}", "if-none-match": tag}
        connection.request("GET", "/api/orders", headers=headers)
        assert connection.getresponse().status == 304
    finally:
        connection.close()
