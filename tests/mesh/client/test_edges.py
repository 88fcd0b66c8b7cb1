from __future__ import annotations

from headgate.mesh.client.edges import MOST, OTHERS, Edges


def test_calls_are_counted_by_whom_they_go_to():
    edges = Edges()
    edges.to("users").ended(0.003, failed=False)
    edges.to("users").ended(60.0, failed=True)
    edges.to("orders").ended(0.1, failed=False)
    users, orders = edges.snapshot()
    assert (users.to, users.requests, users.errors, orders.requests) == ("users", 2, 1, 1)
    row = users.to_json()["duration_s"]
    assert (row["count"], row["sum"], sum(row["buckets"])) == (2, 60.003, 2)
    assert row["buckets"][-1] == 1  # longer than the last bound


def test_what_has_arrived_is_not_told_again():
    edges = Edges()
    edge = edges.to("users")
    edge.ended(0.1, failed=False)
    assert [each.requests for each in edges.take()] == [1]
    edge.ended(0.1, failed=True)
    # The first report did not arrive: its counts go along.
    assert [(each.requests, each.errors) for each in edges.take()] == [(2, 1)]
    edge.ended(0.1, failed=False)  # while the report is under way
    edges.taken()
    assert [(each.requests, each.errors) for each in edges.take()] == [(1, 0)]
    edges.taken()
    assert edges.take() == []


def test_services_without_end_share_an_edge():
    edges = Edges()
    for at in range(MOST + 5):
        edges.to(f"s{at}").ended(0.1, failed=False)
    assert len(edges.snapshot()) == MOST + 1
    assert {each.to: each.requests for each in edges.snapshot()}[OTHERS] == 5
