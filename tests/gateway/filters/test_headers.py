"""The headers policy: edits in order, templates, and what they refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.config.policies import HeaderEdits, HeadersSpec
from headgate.gateway.filters import FilterContext, Headers, Request
from headgate.gateway.filters import build_chain as build_chain_or_none
from headgate.gateway.filters.headers import EditInvalid, Edits, header_filters
from headgate.gateway.filters.template import compile_template as compile_typed


# Without types: a test knows what it gets.
def build_chain(filters):
    return build_chain_or_none(filters)


def compile_template(text, **options):
    return compile_typed(text, **options)


RAW = [(b"a", b"1"), (b"b", b"2"), (b"c", b"3"), (b"b", b"4")]


def edited(edits, raw=RAW, request=None, response=None):
    headers = Headers(raw)
    Edits(HeaderEdits(**edits), in_response=response is not None).apply(headers, request, response)
    return headers.raw


@pytest.mark.parametrize(
    "edits, expected",
    [
        ({"remove": ["B"]}, [(b"a", b"1"), (b"c", b"3")]),
        ({"set": {"B": "9"}}, [(b"a", b"1"), (b"c", b"3"), (b"b", b"9")]),
        ({"add": {"b": "9"}}, [*RAW, (b"b", b"9")]),
        ({"rename": {"b": "x"}}, [(b"a", b"1"), (b"x", b"2"), (b"c", b"3"), (b"x", b"4")]),
        (
            {"rename": {"a": "c", "c": "a"}},
            [(b"c", b"1"), (b"b", b"2"), (b"a", b"3"), (b"b", b"4")],
        ),
        # remove comes before rename, so the target of a rename survives
        ({"remove": ["c"], "rename": {"a": "c"}}, [(b"c", b"1"), (b"b", b"2"), (b"b", b"4")]),
        # set comes after rename and replaces what was renamed
        ({"rename": {"a": "x"}, "set": {"x": "9"}}, [*RAW[1:], (b"x", b"9")]),
        # a name removed is not renamed
        ({"remove": ["a"], "rename": {"a": "x"}}, RAW[1:]),
        (
            {"remove": ["a"], "set": {"a": "0"}, "add": {"a": "5"}},
            [*RAW[1:], (b"a", b"0"), (b"a", b"5")],
        ),
        ({}, RAW),
    ],
)
def test_edits_apply_in_the_documented_order(edits, expected):
    assert edited(edits) == expected


NAMES = st.sampled_from(["a", "b", "c", "x", "y"])


@given(
    st.lists(st.tuples(NAMES, st.sampled_from("123"))),
    st.lists(NAMES),
    st.dictionaries(NAMES, NAMES),
    st.dictionaries(NAMES, st.sampled_from("789")),
    st.dictionaries(NAMES, st.sampled_from("456")),
)
def test_one_pass_equals_the_four_steps(fields, remove, rename, set_, add):
    raw = [(k.encode(), v.encode()) for k, v in fields]
    steps = [(k, v) for k, v in fields if k not in remove]
    steps = [(rename.get(k, k), v) for k, v in steps]
    steps = [(k, v) for k, v in steps if k not in set_]
    steps += [*set_.items(), *add.items()]
    got = edited({"remove": remove, "rename": rename, "set": set_, "add": add}, raw)
    assert got == [(k.encode(), v.encode()) for k, v in steps]


def test_places_are_filled_from_the_request(make_request):
    request = make_request([(b"x-y", b"why")])
    template = (
        "{client_ip} {host} {method} {path} {query} {request_id} {route} {service} {scheme} "
        "{param.id} {header.X-Y} {query.z} {{literal}}"
    )
    assert compile_template(template)(request, None) == (
        b"192.0.2.7 shop.example GET /api/users/42 a=1&z=one%20two 5f0c users users-service https "
        b"42 why one two {literal}"
    )


def test_response_places(make_request, make_response):
    render = compile_template("{status}/{response_header.server}", in_response=True)
    assert render(make_request(), make_response([(b"server", b"x")], 418)) == b"418/x"


def test_a_text_without_places_is_bytes():
    assert compile_template(" plain {{}} ") == b"plain {}"


def test_templates_see_the_message_as_it_came(make_request):
    got = edited(
        {"remove": ["a"], "set": {"c": "was {header.c}", "x": "{header.a}"}},
        request=(request := make_request(RAW)),
    )
    assert got == [(b"b", b"2"), (b"b", b"4"), (b"c", b"was 3"), (b"x", b"1")]
    assert request.headers.raw == RAW


def test_set_to_nothing_removes_what_the_client_sent(make_request):
    assert edited({"set": {"a": "{header.absent}"}}, request=make_request()) == RAW[1:]
    assert edited({"add": {"a": "{query.absent}"}}, request=make_request()) == RAW


@pytest.mark.parametrize("text", ["{query.z}", "x{query.z}y"])
def test_decoded_values_cannot_split_a_header(text, make_request):
    request = make_request(query="z=a%0d%0aSet-Cookie:%20b%00%7f")
    got = compile_template(text)(request, None)
    assert b"aSet-Cookie: b" in got
    assert not any(c < 0x20 or c == 0x7F for c in got)


@given(st.text(), st.text())
def test_no_value_ever_holds_a_control(query, param):
    request = Request(
        "GET", "/", f"z={query}", Headers(), "::1", False, "id", "r", None, {"p": param}
    )
    got = compile_template("{param.p}-{query.z}-{query}")(request, None)
    assert not any((c < 0x20 and c != 9) or c == 0x7F for c in got)


def test_non_ascii_values_go_out_as_utf8(make_request):
    assert compile_template("{param.id}")(make_request(params={"id": "é€"}), None) == "é€".encode()


@pytest.mark.parametrize(
    "text, message",
    [
        ("{client}", "did you mean {client_ip}"),
        ("{nonsense}", "known are {client_ip}"),
        ("{status}", "unknown value {status}"),
        ("{header.}", "does not name a header"),
        ("{header.a b}", "does not name a header"),
        ("{open", "unmatched '{'"),
        ("shut}", "unmatched '}'"),
        ("a\nb", "control"),
        ("{}", "unknown value"),
    ],
)
def test_faulty_templates_say_what_is_wrong(text, message):
    with pytest.raises(ValueError) as caught:
        compile_template(text)
    assert message in str(caught.value)


def test_faults_name_the_edit():
    spec = HeadersSpec(response=HeaderEdits(set={"x-a": "{no_such}"}))
    with pytest.raises(EditInvalid) as caught:
        header_filters(spec, FilterContext("r", None))
    assert caught.value.where == "response.set.x-a"


def test_only_the_sides_that_edit_become_filters(context, make_request, make_response):
    assert header_filters(HeadersSpec(), context) == []
    both = HeadersSpec(
        request=HeaderEdits(set={"x-route": "{route}"}), response=HeaderEdits(remove=("server",))
    )
    chain = build_chain(header_filters(both, context))
    request = make_request()
    chain.run_request(request)
    assert request.headers.get("x-route") == "users"
    assert chain.edits_request is None
    # What depends on nothing but the fields is no hook.
    assert chain.wants_response is False
    assert chain.edits_response.apply_constant([(b"server", b"x")]) == []
    only = header_filters(HeadersSpec(response=HeaderEdits(remove=("server",))), context)
    assert build_chain(only).wants_request is False


def test_constant_edits_say_so():
    assert Edits(HeaderEdits(set={"a": "b"})).is_constant
    assert not Edits(HeaderEdits(set={"a": "{route}"})).is_constant
