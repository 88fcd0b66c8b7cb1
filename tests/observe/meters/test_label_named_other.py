"""A label may be called `other` by itself, which is also what the overflow is called."""

from __future__ import annotations

import pytest

from headgate.observe import Registry
from headgate.observe.meters.asgi import route_of


def counts(labels: list[str], *, most: int) -> dict[tuple[str, ...], float]:
    jobs = Registry().counter("jobs", "", ("kind",), max_series=most)
    for label in labels:
        jobs.add(1, label)
    return {key: child.value for key, child in jobs.series().items()}


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param(["other"] * 9 + ["a", "b", "c"], id="before"),
        pytest.param(["a", "b", "c"] + ["other"] * 9, id="after"),
        pytest.param(["a", "other", "b", "other", "c"] + ["other"] * 7, id="between"),
    ],
)
def test_nothing_counted_under_other_is_lost(labels):
    found = counts(labels, most=2)
    assert sum(found.values()) == len(labels)
    assert found[("other",)] >= 9


def test_a_path_without_a_template_is_masked_segment_by_segment():
    scope = {
        "type": "http",
        "path": "/orders/1/lines/11",
        "endpoint": counts,
        "path_params": {"line": "11", "order": 1},
    }
    assert route_of(scope) == "/orders/{order}/lines/{line}"
