"""Requests, responses and routes that say something of caching, for Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from headgate.cache.http.asked import Asked
from headgate.cache.http.judging import NotStored, judge_response
from headgate.cache.http.rules import CacheRules
from headgate.cache.http.stored import Stored
from tests.cache.http.rig import WALL, fields

SECONDS = st.sampled_from(["0", "1", "30", "60", "600", "x", "-1", '"60"', "1.5", "9" * 30])
RESPONSE_DIRECTIVES = st.lists(
    st.sampled_from(
        ["public", "private", "no-store", "no-cache", "must-revalidate", "proxy-revalidate", "must-understand", "immutable", "no-transform", 'private="x-a"', 'no-cache="x-a"', "s-maxage=60", "max-age=60", "unknown=1"]
    )
    | st.builds("{}={}".format, st.sampled_from(["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"]), SECONDS),
    max_size=5,
)  # fmt: skip
REQUEST_DIRECTIVES = st.lists(
    st.sampled_from(["no-cache", "no-store", "only-if-cached", "no-transform", "max-stale"])
    | st.builds("{}={}".format, st.sampled_from(["max-age", "min-fresh", "max-stale", "stale-if-error"]), SECONDS),
    max_size=3,
)  # fmt: skip
VALIDATORS = st.lists(
    st.sampled_from(['ETag: "a"', 'ETag: W/"a"', "ETag: a", "Last-Modified: @-1000"]), max_size=2
)
TIMES = st.lists(
    st.sampled_from(
        ["Date: @0", "Date: @-50", "Date: @50", "Age: 30", "Age: x", "Expires: @60", "Expires: 0"]
    ),
    max_size=3,
)
RULES_OF_ROUTES = st.builds(
    CacheRules,
    ttl_s=st.sampled_from([None, 0.0, 30.0]),
    ttl_by_status=st.sampled_from([{}, {200: 5.0}, {404: 5.0}]),
    overrides=st.booleans(),
    stale_while_revalidate_s=st.sampled_from([0.0, 30.0]),
    stale_if_error_s=st.sampled_from([0.0, 30.0]),
    client_directives=st.booleans(),
)
AFTER = st.floats(-1e9, 1e9, allow_nan=False) | st.floats(-20, 200, allow_nan=False)


@st.composite
def responses(draw: st.DrawFn) -> list[str]:
    lines = [*draw(VALIDATORS), *draw(TIMES), "X-A: 1"]
    directives = draw(RESPONSE_DIRECTIVES)
    if directives:
        lines.append(f"Cache-Control: {', '.join(directives)}")
    return lines


@st.composite
def requests(draw: st.DrawFn) -> list[str]:
    directives = draw(REQUEST_DIRECTIVES)
    return [f"Cache-Control: {', '.join(directives)}"] if directives else []


def judged(
    lines: list[str], asked: Asked, rules: CacheRules, status: int = 200
) -> Stored | NotStored:
    return judge_response(
        asked,
        status,
        b"",
        fields(*lines),
        request_at=WALL,
        received_at=WALL,
        rules=rules,
        params={},
    )


def words(lines: list[str]) -> set[str]:
    said = ", ".join(line.partition(":")[2] for line in lines if line.startswith("Cache-Control"))
    return {word.strip() for word in said.split(",")}
