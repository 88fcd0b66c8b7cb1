"""The router: precedence, 405, what is remembered, and that it agrees with the plain reading."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.config.routes import MatchSpec
from headgate.plan.match import Matched, MatchRule, Missed
from headgate.plan.router import MatchInput, Router, rule_from_spec
from headgate.wire.message import RequestHead
from tests.plan.reference_router import Asked, decide


def rules(*specs, priorities=()):
    found: list[MatchRule] = []
    for index, spec in enumerate(specs):
        spec = {"path": spec} if isinstance(spec, str) else spec
        priority = priorities[index] if priorities else 0
        found.append(rule_from_spec(MatchSpec(**spec), index, f"r{index}", priority))
    return found


def ask(router, line, headers=(), client_ip=""):
    method, _, url = line.partition(" ")
    host, slash, rest = url.partition("/")
    path, _, query = (slash + rest).partition("?")
    lines = tuple((k.encode(), v.encode("latin-1")) for k, v in headers)
    return router.match(MatchInput(method, host, path or "*", query, lines, client_ip))


def index_of(answer):
    return answer.index if isinstance(answer, Matched) else None


def first(specs, line, headers=(), client_ip="", priorities=()):
    """Who takes it, whatever the order in the file: precedence must not lean on it."""
    answers = set()
    compiled = rules(*specs, priorities=priorities)
    for seed in range(4):
        shuffled = compiled[:]
        random.Random(seed).shuffle(shuffled)
        answers.add(index_of(ask(Router(shuffled), line, headers, client_ip)))
    assert len(answers) == 1, answers
    return answers.pop()


# -- prefixes, exact paths, templates, regexes -------------------------------------------------


@pytest.mark.parametrize("prefix", ["/api/users", "/api/users/"])
@pytest.mark.parametrize(
    ("path", "fits"),
    [
        ("/api/users", True),
        ("/api/users/", True),
        ("/api/users/42", True),
        ("/api/users//", True),
        ("/api/users/42/orders", True),
        ("/api/usersx", False),
        ("/api/user", False),
        ("/api", False),
        ("/", False),
        ("/API/users", False),
        ("/api//users", False),
        ("/api/users%2F42", False),
    ],
)
def test_prefixes_match_whole_segments(prefix, path, fits):
    assert isinstance(ask(Router(rules(prefix)), f"GET h{path}"), Matched) is fits


def test_the_longest_prefix_wins():
    specs = ["/", "/a", "/a/b/c", "/a/b", {}]
    assert first(specs, "GET h/a/b/c/d") == 2
    assert first(specs, "GET h/a/b/x") == 3
    assert first(specs, "GET h/a/bx") == 1
    assert first(specs, "GET h/x") == 0


def test_kinds_of_paths_in_order():
    specs = [{}, "/a", {"regex": "/a/.*"}, "/a/{x}", {"exact": "/a/b"}]
    assert first(specs, "GET h/a/b") == 4
    assert first(specs, "GET h/a/c") == 3
    assert first(specs, "GET h/a/c/d") == 2
    assert first(specs, "GET h/a") == 1
    assert first(specs, "GET h/b") == 0


def test_templates_with_more_literals_and_then_earlier_ones_win():
    specs = ["/{a}/{b}/{c}", "/x/{b}/{c}", "/{a}/y/{c}", "/{a}/{b}/z", "/{a}/y/z", "/x/{b}/z"]
    assert first(specs, "GET h/x/y/z") == 5
    assert first(specs, "GET h/q/y/z") == 4
    assert first(specs, "GET h/q/q/z") == 3
    assert first(specs, "GET h/x/y/q") == 1
    assert first(specs, "GET h/q/y/q") == 2
    assert first(specs, "GET h/q/q/q") == 0


def test_narrower_parameters_win():
    specs = ["/u/{a}", "/u/{a:slug}", "/u/{a:int}", "/u/{a:path}"]
    assert first(specs, "GET h/u/42") == 2
    assert first(specs, "GET h/u/me_2") == 1
    assert first(specs, "GET h/u/m~e") == 0
    assert first(specs, "GET h/u/m/e") == 3
    assert first(specs, "GET h/u/") == 3


def test_a_dead_end_below_a_literal_goes_back_to_the_parameter():
    specs = ["/a/{x}/c", "/a/b/{y:int}", "/{any:path}"]
    assert first(specs, "GET h/a/b/c") == 0
    assert first(specs, "GET h/a/b/7") == 1
    assert first(specs, "GET h/a/b/e") == 2


@pytest.mark.parametrize(
    ("template", "path", "params"),
    [
        ("/u/{id}", "/u/42", {"id": "42"}),
        ("/u/{id}", "/u/", None),
        ("/u/{id}", "/u/42/", None),
        ("/u/{id}/", "/u/42/", {"id": "42"}),
        ("/u/{id}", "/u/a%2Fb", {"id": "a/b"}),
        ("/u/{id}", "/u/%C3%A9", {"id": "é"}),
        ("/u/{id}", "/u/%FF", {"id": "\N{REPLACEMENT CHARACTER}"}),
        ("/u/{id}", "/u/%0D%0Ax", {"id": "\r\nx"}),
        ("/u/{id}", "/u/a+b", {"id": "a+b"}),
        ("/u/{id}", "/u/%2541", {"id": "%41"}),
        ("/u/{id:int}", "/u/007", {"id": "007"}),
        ("/u/{id:int}", "/u/-1", None),
        ("/u/{id:int}", "/u/4x", None),
        ("/u/{id:int}", "/u/%D9%A3", None),
        ("/u/{id:uuid}", "/u/2f1c8a52-6D09-4a3e-9b1f-000000000000", {}),
        ("/u/{id:uuid}", "/u/2f1c8a526d094a3e9b1f000000000000", None),
        ("/u/{id:slug}", "/u/a-b_C9", {"id": "a-b_C9"}),
        ("/u/{id:slug}", "/u/a.b", None),
        ("/f/{rest:path}", "/f/", {"rest": ""}),
        ("/f/{rest:path}", "/f", None),
        ("/f/{rest:path}", "/f/a/b//c/", {"rest": "a/b//c/"}),
        ("/f/{rest:path}", "/f/a%2Fb/c", {"rest": "a/b/c"}),
        ("/f/{a}/{rest:path}", "/f/x/", {"a": "x", "rest": ""}),
        ("/f/{a}/{rest:path}", "/f//x", None),
        ("/{all:path}", "/", {"all": ""}),
        ("/café/{x}", "/caf%C3%A9/1", {"x": "1"}),
        ("/%7euser/{x}", "/~user/1", {"x": "1"}),
    ],
)
def test_templates_read_their_parameters(template, path, params):
    answer = ask(Router(rules(template)), f"GET h{path}")
    if params is None:
        assert isinstance(answer, Missed)
    else:
        assert isinstance(answer, Matched)
        assert params == answer.params or params == {}


def test_a_regex_has_to_match_the_whole_path_and_names_parameters():
    router = Router(rules({"regex": "/v(?P<v>[0-9]+)/(?P<rest>[a-z%0-9A-F]*)(?P<x>!)?"}))
    assert ask(router, "GET h/v2/a%20b").params == {"v": "2", "rest": "a b", "x": ""}
    assert index_of(ask(router, "GET h/v2/b/")) is None
    assert index_of(ask(router, "GET h/x/v2/b")) is None


def test_of_several_regexes_the_first_in_the_file_wins_whatever_else_they_ask():
    specs = [{"regex": "/a.*"}, {"regex": "/ab.*", "methods": ["GET"], "query": {"x": "1"}}]
    assert first(specs, "GET h/abc?x=1") == 0


@pytest.mark.parametrize(
    "regex",
    ["/ab?c", "/abc|/abd", "(?i)/ABC", "/a[b]c", "/ab{1}c", "^/abc", "/(abc|x)", ".*", "/abc$"],
)
def test_the_index_finds_a_regex_whatever_it_begins_with(regex):
    assert index_of(ask(Router(rules({"regex": regex})), "GET h/abc")) == 0


def test_a_regex_that_begins_inside_a_segment_is_found():
    router = Router(rules({"regex": r"/report-[0-9]+"}, {"regex": r"/a/report\.[a-z]+"}))
    assert index_of(ask(router, "GET h/report-7")) == 0
    assert index_of(ask(router, "GET h/a/report.pdf")) == 1
    assert index_of(ask(router, "GET h/a/reportxpdf")) is None


def test_paths_in_the_file_are_normalised_as_those_of_requests():
    assert first([{"exact": "/%7eb/%2f"}], "GET h/~b/%2F") == 0
    assert first(["/caf\u00e9/"], "GET h/caf%C3%A9") == 0


def test_asterisk_is_taken_by_routes_without_a_path_only():
    specs = ["/", {"regex": ".*"}, "/{all:path}"]
    assert first(specs, "OPTIONS h") is None
    assert first([*specs, {}], "OPTIONS h") == 3


@pytest.mark.parametrize(
    "path",
    [
        {"path": "/"},
        {"path": "//"},
        {"path": "/{x}"},
        {"path": "/{x:path}"},
        {"path": "//{x:path}"},
        {"regex": ".*"},
    ],
)
@pytest.mark.parametrize("host", ["h", "*.h"])
def test_asterisk_is_not_taken_by_the_only_route_of_a_host(path, host):
    router = Router(rules(path | {"host": host}, {"host": "other"}))
    assert index_of(ask(router, f"OPTIONS {host.replace('*', 'a')}")) is None


# -- hosts --------------------------------------------------------------------------------------


def test_hosts_from_the_most_exact_to_none():
    specs = [
        {},
        {"host": "*.org"},
        {"host": "*.example.org"},
        {"host": "www.example.org"},
        {"host": ["a.net", "*.www.example.org"]},
    ]
    assert first(specs, "GET www.example.org/") == 3
    assert first(specs, "GET x.www.example.org/") == 4
    assert first(specs, "GET a.b.example.org/") == 2
    assert first(specs, "GET example.org/") == 1
    assert first(specs, "GET org/") == 0
    assert first(specs, "GET badexample.org/") == 1
    assert first(specs, "GET a.net/") == 4
    assert first(specs, "GET /") == 0


def test_a_better_host_beats_a_better_path():
    specs = [
        {"host": "*.b.c", "exact": "/x"},
        {"host": "a.b.c"},
        {"exact": "/x", "query": {"a": "1"}},
    ]
    assert first(specs, "GET a.b.c/x?a=1") == 1


def test_a_host_that_has_no_fitting_path_gives_way_to_the_next():
    specs = [{"host": "a.b", "path": "/x"}, {"host": "*.b", "path": "/y"}, {"path": "/z"}]
    assert first(specs, "GET a.b/y") == 1
    assert first(specs, "GET a.b/z") == 2


def test_an_ipv6_host_is_compared_without_brackets():
    assert index_of(ask(Router(rules({"host": "[::0001]"})), "GET ::1/")) == 0


def test_which_hosts_are_served():
    router = Router(rules({"host": "a.b"}, {"host": "*.c.d"}))
    served = [
        h for h in ("a.b", "x.c.d", "y.x.c.d", "c.d", "x.a.b", "d", "") if router.serves_host(h)
    ]
    assert served == ["a.b", "x.c.d", "y.x.c.d"]
    assert Router(rules({"host": "a.b"}, "/x")).serves_host("q")


# -- priority, conditions, file order ----------------------------------------------------------


def test_priority_beats_everything():
    specs = [
        {"host": "a.b", "exact": "/x", "methods": ["GET"]},
        {"host": "a.b", "path": "/x/{y}"},
        {},
    ]
    assert first(specs, "GET a.b/x", priorities=(0, 0, 1)) == 2
    assert first(specs, "GET a.b/x/y", priorities=(0, -1, -2)) == 1
    assert first(specs, "GET a.b/x", priorities=(5, 9, 5)) == 0


def test_more_conditions_win_and_each_counts_as_one():
    specs = [
        {"path": "/a"},
        {"path": "/a", "methods": ["GET", "POST", "PUT"]},
        {"path": "/a", "query": {"x": "1"}, "cookies": {"c": "1"}},
        {"path": "/a", "client_ip": ["10.0.0.0/8", "11.0.0.0/8"]},
    ]
    got = first(specs, "GET h/a?x=1", [("cookie", "c=1")], "10.1.1.1")
    assert got == 2
    assert first(specs, "GET h/a", client_ip="10.1.1.1") == 1
    assert first(specs, "DELETE h/a", client_ip="10.1.1.1") == 3
    assert first(specs, "DELETE h/a", client_ip="12.1.1.1") == 0


def test_of_equals_the_first_in_the_file_wins():
    assert first(["/a", "/a/", "/a"], "GET h/a") == 0


def test_a_crowd_on_one_path_is_told_apart_by_value():
    specs = [{"path": "/a", "headers": {"X-Tenant": f"t{i}"}} for i in range(200)]
    specs += [{"path": "/a", "query": {"tenant": f"t{i}"}, "methods": ["GET"]} for i in range(200)]
    specs += [{"path": "/a"}, {"path": "/a", "headers": {"x-tenant": "~t.*"}}]
    assert first(specs, "GET h/a", [("x-tenant", "t42")]) == 42
    assert first(specs, "GET h/a?tenant=t42", [("x-tenant", "t41")]) == 242
    assert first(specs, "POST h/a?tenant=t42", [("x-tenant", "t41")]) == 41
    assert first(specs, "GET h/a?tenant=q&tenant=t7&tenant=t3") == 203
    assert first(specs, "GET h/a", [("x-tenant", "t999")]) == 401
    assert first(specs, "GET h/a") == 400


def test_a_value_of_a_crowd_may_be_asked_for_by_several():
    ask_for = {"path": "/a/b", "headers": {"x-tenant": "t1"}}
    specs = [{"path": "/a/b", "headers": {"x-tenant": f"t{i}"}} for i in range(2, 9)]
    specs += [ask_for | {"methods": ["PUT"]}, ask_for, ask_for | {"query": {"v": "2"}}]
    assert first(specs, "GET h/a/b/c", [("x-tenant", "t1")]) == 8
    assert first(specs, "PUT h/a/b/c", [("x-tenant", "t1")]) == 7
    assert first(specs, "GET h/a/b/c?v=2&v=2", [("x-tenant", "t1")]) == 9
    assert first(specs, "GET h/a/b/c", [("x-tenant", "t2")]) == 0
    assert first(specs, "GET h/a", [("x-tenant", "t2")]) is None


def test_an_address_is_not_looked_at_behind_a_better_match():
    behind = {"path": "/a", "client_ip": ["10.0.0.0/8"], "methods": ["GET"]}
    crowd = [{"path": "/a", "headers": {"t": f"{i}"}, "query": {"q": "1"}} for i in range(8)]
    router = Router(rules(*crowd, behind))
    assert not ask(router, "GET h/a?q=1", [("t", "3")], "11.1.1.1").client_bound
    assert ask(router, "GET h/a?q=2", [("t", "3")], "11.1.1.1").client_bound


# -- one way only -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "fitting", "others"),
    [
        ("/a/b/c", ["/a/b/c", "/a/b/c/", "/a/b/c/d"], ["/a/b", "/a/b/", "/a/b/cd", "/a/x/c", "/"]),
        ("/a//c", ["/a//c", "/a//c/d"], ["/a/", "/a//", "/a/b/c"]),
        ("/a/{x}/c", ["/a/b/c"], ["/a/b/c/", "/a/b", "/a//c", "/a/b/c/d", "/a/b/d", "/b/b/c"]),
        ("/{x}/b", ["/a/b"], ["//b", "/a/b/", "/a", "/a/c"]),
        ("/a/{x:path}", ["/a/", "/a/b", "/a/b/c", "/a//"], ["/a", "/b/c", "/ab"]),
        ("/a/{y}/{x:path}", ["/a/b/", "/a/b/c/d"], ["/a/b", "/a//c", "/a/"]),
        ({"regex": "/a/b-[0-9]+/c"}, ["/a/b-1/c"], ["/a/b-/c", "/a/b", "/a", "/a/b-1", "/x/b-1/c"]),
        ({"regex": "/a/[0-9]*"}, ["/a/", "/a/7"], ["/a", "/a/b", "/b/7"]),
    ],
)
@pytest.mark.parametrize("others_too", [False, True])
def test_a_route_takes_the_same_alone_and_among_others(spec, fitting, others, others_too):
    spec = {"path": spec} if isinstance(spec, str) else spec
    beside = ["/q/r", "/q/{s}", {"regex": "/q/r-.*"}, {"exact": "/q"}] if others_too else []
    for host in ({}, {"host": "h"}, {"host": "*.h"}):
        router = Router(rules(spec | host, *beside))
        name = "x.h" if host == {"host": "*.h"} else "h"
        assert [
            p for p in fitting + others if index_of(ask(router, f"GET {name}{p}")) == 0
        ] == fitting


def test_a_head_is_matched_as_its_parts_are():
    specs = [
        {"path": "/a", "headers": {"x": "1"}},
        {"path": "/a", "client_ip": ["10.0.0.0/8"]},
        "/a",
    ]
    router = Router(rules(*specs))
    for headers, client_ip, index in (
        (((b"x", b"1"),), "11.1.1.1", 0),
        ((), "10.1.1.1", 1),
        ((), "11.1.1.1", 2),
    ):
        head = RequestHead("GET", "h:80", "h", "/a/b", "", headers)
        assert index_of(router.match_head(head, client_ip)) == index
        assert repr(router.match_head(head, client_ip)) == repr(
            router.match(MatchInput("GET", "h", "/a/b", "", headers, client_ip))
        )


# -- methods ------------------------------------------------------------------------------------


def test_get_takes_head_and_another_method_is_told_what_is_allowed():
    router = Router(
        rules(
            {"path": "/a", "methods": ["GET"]},
            {"exact": "/a", "methods": ["PUT"]},
            {"path": "/{x}", "methods": ["DELETE"]},
            {"path": "/b", "methods": ["PATCH"]},
            {"path": "/a", "methods": ["POST"], "headers": {"x": "1"}},
            {"path": "/a", "methods": ["QUERY"], "host": "other"},
        )
    )
    assert index_of(ask(router, "HEAD h/a")) == 0
    missed = ask(router, "OPTIONS h/a")
    assert isinstance(missed, Missed)
    assert missed.allow == ("DELETE", "GET", "HEAD", "PUT")
    with_header = ask(router, "OPTIONS h/a", [("x", "1")])
    assert isinstance(with_header, Missed)
    assert "POST" in with_header.allow
    not_found = ask(router, "GET h/b/c/d")
    assert isinstance(not_found, Missed)
    assert not_found.allow == ("PATCH",)
    assert ask(router, "GET h/").allow == ()


def test_a_wrong_method_falls_through_to_a_wider_route():
    assert first([{"exact": "/a", "methods": ["PUT"]}, "/"], "GET h/a") == 1


# -- whether a decision may be remembered ------------------------------------------------------


def test_a_decision_that_looked_at_the_address_says_so():
    router = Router(
        rules(
            {"path": "/a", "client_ip": "10.0.0.0/8"},
            {"path": "/a/b"},
            {"path": "/c", "client_ip": "::1", "methods": ["PUT"]},
        )
    )
    assert ask(router, "GET h/a", client_ip="10.0.0.1").client_bound
    assert ask(router, "GET h/a", client_ip="11.0.0.1").client_bound
    assert ask(router, "GET h/a", client_ip="11.0.0.1").allow == ()
    assert not ask(router, "GET h/a/b", client_ip="10.0.0.1").client_bound
    assert not ask(router, "GET h/x", client_ip="10.0.0.1").client_bound
    assert ask(router, "GET h/c", client_ip="::1").client_bound
    assert ask(router, "GET h/c", client_ip="::1").allow == ("PUT",)
    assert ask(router, "GET h/c", client_ip="::2").client_bound
    assert ask(router, "GET h/c", client_ip="::2").allow == ()


def arrived(router, scheme, listener, method="GET"):
    return router.match(MatchInput(method, "h", "/a", "", (), "", scheme, listener))


def test_scheme_and_listeners_count_as_one_condition_each():
    router = Router(
        rules(
            {"path": "/a"},
            {"path": "/a", "listener": ["in", "out"]},
            {"path": "/a", "scheme": "https"},
            {"path": "/a", "scheme": "https", "listener": "in"},
            {"path": "/a", "methods": "GET", "headers": {"x": "1"}},
        )
    )
    assert index_of(arrived(router, "http", "else")) == 0
    assert index_of(arrived(router, "http", "in")) == 1
    assert index_of(arrived(router, "https", "out")) == 1  # earlier in the file
    assert index_of(arrived(router, "https", "else")) == 2
    assert index_of(arrived(router, "https", "in")) == 3


def test_an_answer_that_looked_at_scheme_and_listener_may_be_kept():
    router = Router(rules({"path": "/a", "scheme": "https", "listener": "in"}))
    assert not arrived(router, "https", "in").client_bound
    assert not arrived(router, "http", "in").client_bound


def test_methods_of_another_scheme_or_listener_are_not_offered():
    router = Router(
        rules(
            {"path": "/a", "scheme": "https", "methods": "PUT"},
            {"path": "/a", "listener": "in", "methods": "POST"},
        )
    )
    assert arrived(router, "http", "in").allow == ("POST",)
    assert arrived(router, "https", "out").allow == ("PUT",)
    assert arrived(router, "http", "out").allow == ()


def test_many_listeners_on_one_path_are_told_apart_by_name():
    router = Router(rules(*({"path": "/a", "listener": f"l{i}"} for i in range(50))))
    assert [index_of(arrived(router, "http", f"l{i}")) for i in (0, 7, 49)] == [0, 7, 49]
    assert index_of(arrived(router, "http", "l50")) is None


@pytest.mark.parametrize(
    ("client_ip", "fits"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.0.0.1", False),
        ("", False),
        ("unix", False),
    ],
)
def test_client_addresses(client_ip, fits):
    router = Router(rules({"client_ip": "10.0.0.0/8"}))
    assert (index_of(ask(router, "GET h/", client_ip=client_ip)) == 0) is fits


def test_a_long_path_of_slashes_is_not_taken_apart():
    router = Router(rules("/a/b/c", "/{x:path}"))
    path = "/" * 8000
    assert ask(router, f"GET h{path}").params == {"x": path[1:]}


def test_no_rules_match_nothing():
    assert isinstance(ask(Router([]), "GET h/"), Missed)


# -- against the plain reading -----------------------------------------------------------------

SEGMENTS = st.sampled_from(["a", "b", "c", "7", "", "%2F", "x-1"])
TYPED = st.sampled_from(["", ":int", ":slug", ":str"])
VALUES = st.sampled_from(["1", "2"])
WANTED = st.one_of(
    VALUES,
    st.just("~[12]"),
    st.just({"present": True}),
    st.just({"absent": True}),
)


@st.composite
def templates(draw):
    parts = []
    for at in range(draw(st.integers(1, 4))):
        is_param = draw(st.booleans())
        parts.append(f"{{p{at}{draw(TYPED)}}}" if is_param else draw(SEGMENTS))
    if draw(st.integers(0, 4)) == 0:
        parts.append("{rest:path}")
    return "/" + "/".join(parts)


PATHS = st.lists(SEGMENTS, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
REGEXES = st.sampled_from(
    [
        "/a/.*",
        "/a/b-?.*",
        "/[ab]/(?P<x>.*)",
        ".*",
        "/x-[0-9]",
        "/a|/b",
        "(?:/a)+",
        r"/a/\d",
        "/a/b?/c?",
    ]
)
METHODS = st.sampled_from(["GET", "PUT", "HEAD", "POST"])
HOSTS = st.sampled_from(["a.b.c", "*.b.c", "*.c", "x.b.c", "b.c"])


@st.composite
def specs(draw):
    said: dict[str, object] = {}
    kind = draw(st.sampled_from(["path", "template", "exact", "regex", "none"]))
    if kind == "path":
        said["path"] = draw(PATHS)
    elif kind == "template":
        said["path"] = draw(templates())
    elif kind == "exact":
        said["exact"] = draw(PATHS)
    elif kind == "regex":
        said["regex"] = draw(REGEXES)
    if draw(st.integers(0, 2)) == 0:
        said["host"] = draw(st.lists(HOSTS, min_size=1, max_size=2, unique=True))
    if draw(st.integers(0, 2)) == 0:
        said["methods"] = draw(st.lists(METHODS, min_size=1, max_size=2, unique=True))
    for name in ("headers", "query", "cookies"):
        if draw(st.integers(0, 4)) == 0:
            said[name] = draw(st.dictionaries(st.sampled_from(["p", "q"]), WANTED, min_size=1))
    if draw(st.integers(0, 6)) == 0:
        said["client_ip"] = draw(st.sampled_from(["10.0.0.0/8", "10.1.0.0/16"]))
    if draw(st.integers(0, 5)) == 0:
        said["scheme"] = draw(SCHEMES)
    if draw(st.integers(0, 5)) == 0:
        said["listener"] = draw(st.lists(LISTENERS, min_size=1, max_size=2, unique=True))
    priority = draw(st.sampled_from([0, 0, 0, 0, 1, -1]))
    return MatchSpec(**said), priority


SCHEMES = st.sampled_from(["http", "https"])
LISTENERS = st.sampled_from(["in", "out", "127.0.0.1:80"])
PAIRS = st.lists(st.tuples(st.sampled_from(["p", "q"]), VALUES), max_size=2)


@st.composite
def requests(draw):
    headers = draw(PAIRS) + [("cookie", f"{k}={v}") for k, v in draw(PAIRS)]
    return Asked(
        draw(METHODS),
        draw(st.sampled_from(["a.b.c", "x.b.c", "b.c", "c", "q.a.b.c"])),
        draw(PATHS),
        "&".join(f"{k}={v}" for k, v in draw(PAIRS)),
        headers,
        draw(st.sampled_from(["", "10.1.2.3", "10.2.2.3", "11.1.1.1"])),
        draw(SCHEMES),
        draw(LISTENERS),
    )


def as_input(asked):
    headers = tuple((k.encode(), v.encode()) for k, v in asked.headers)
    return MatchInput(
        asked.method,
        asked.host,
        asked.path,
        asked.query,
        headers,
        asked.client_ip,
        asked.scheme,
        asked.listener,
    )


@settings(max_examples=600, deadline=None)
@given(st.lists(specs(), max_size=25), st.lists(requests(), min_size=1, max_size=8))
def test_the_router_agrees_with_the_plain_reading(given_specs, asked):
    router = Router(
        [rule_from_spec(s, index, f"r{index}", p) for index, (s, p) in enumerate(given_specs)]
    )
    for one in asked:
        answer = router.match(as_input(one))
        index, rest = decide(given_specs, one)
        if isinstance(answer, Matched):
            assert (answer.index, answer.params) == (index, rest)
        else:
            assert (None, list(answer.allow)) == (index, rest)


@settings(max_examples=150, deadline=None)
@given(st.lists(specs(), max_size=12), requests(), st.sampled_from(["", "10.1.2.3", "12.0.0.1"]))
def test_a_decision_that_did_not_look_at_the_address_holds_for_every_address(
    given_specs, asked, other
):
    router = Router(
        [rule_from_spec(s, index, f"r{index}", p) for index, (s, p) in enumerate(given_specs)]
    )
    answer = router.match(as_input(asked))
    asked.client_ip = other
    again = router.match(as_input(asked))
    if not answer.client_bound:
        assert repr(again) == repr(answer)


@settings(max_examples=200, deadline=None)
@given(st.lists(specs(), max_size=12), requests())
def test_an_explanation_agrees_with_the_answer(given_specs, asked):
    router = Router(
        [rule_from_spec(s, index, f"r{index}", p) for index, (s, p) in enumerate(given_specs)]
    )
    answer = router.match(as_input(asked))
    explanation = router.explain(as_input(asked))
    matched = [c.index for c in explanation.candidates if c.verdict == "matched"]
    assert matched == ([answer.index] if isinstance(answer, Matched) else [])
    listed = [c.index for c in explanation.candidates]
    assert sorted(listed) == list(range(len(given_specs)))
    assert all(c.reasons for c in explanation.candidates)
