"""Keys of shared limits: the text that the gateway writes for the same client."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headgate.config.keys import parse_key
from headgate.gateway.keys import compile_keys
from headgate.resilience.shared_keys import plain_text, text_by

CLAIM = "claim:team"


def exchange(user: str = "", address: str = "192.0.2.1") -> SimpleNamespace:
    """What the gateway's keys look at, of a request by this user."""
    raw = user.encode("latin-1", "replace")
    head = SimpleNamespace(headers=[(b"x-tenant", raw)], query="")
    identity = SimpleNamespace(
        subject=user, api_key=user, consumer=user, claims={"team": user}, tier=""
    )
    return SimpleNamespace(
        client_ip=address,
        identity=identity,
        route=SimpleNamespace(name="orders"),
        passport=None,
        prep=SimpleNamespace(memo={}, head=head, params={"id": user}),
    )


def of_the_gateway(by: str | tuple[str, ...], ex: SimpleNamespace) -> str:
    names = (by,) if isinstance(by, str) else by
    return compile_keys([parse_key(each) for each in names])(ex)  # type: ignore[arg-type]  # a stand-in


@pytest.mark.parametrize("by", ["user", CLAIM, "param:id"])
@given(user=st.text(st.characters(codec=None), max_size=200))
@example(user="\ud800")
@example(user="a" * 97)
@example(user="ü" * 96)
def test_a_value_is_written_as_the_gateway_writes_it(by: str, user: str):
    assert text_by(by)(user) == of_the_gateway(by, exchange(user))


@pytest.mark.parametrize("user", ["red", "", "x" * 500])
@pytest.mark.parametrize("by", ["header:X-Tenant", ("user", "route"), ("ip", CLAIM, "user")])
def test_names_and_several_keys_are_as_in_the_file(by: str | tuple[str, ...], user: str):
    ex = exchange(user)
    values: dict[str, str] = {"route": "orders", "ip": ex.client_ip}
    if isinstance(by, str):
        assert text_by(by)(user) == of_the_gateway(by, ex)
    else:
        told = tuple(values.get(each, user) for each in by)
        assert text_by(by)(told) == of_the_gateway(by, ex)


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.7", "nonsense"])
def test_an_address_stands_for_its_network(address: str):
    assert text_by("ip")(address) == of_the_gateway("ip", exchange("ann", address))


@pytest.mark.parametrize(
    "by", ["", "users", "user:ann", "header", "header:", "ip:1", "{user}", "cookie: ", ()]
)
def test_what_no_limit_counts_by_is_refused(by: str):
    with pytest.raises(ValueError, match="by="):
        text_by(by)


@pytest.mark.parametrize(("key", "text"), [("ann", "ann"), ("", ""), (7, "7"), (True, "1")])
def test_plain_keys_go_as_they_are(key: object, text: str):
    assert plain_text(key) == text


@pytest.mark.parametrize(
    "key",
    [None, 2.5, object(), ("ann",), b"ann"],
    ids=["none", "float", "object", "tuple", "bytes"],
)
def test_what_may_print_differently_elsewhere_is_no_key(key: object):
    with pytest.raises(TypeError, match="leaves this process"):
        plain_text(key)


@pytest.mark.parametrize("key", ["ann", ("ann",), ("ann", "orders", "x")], ids=["0", "1", "3"])
def test_several_keys_need_as_many_values(key: object):
    with pytest.raises(TypeError, match="tuple of 2"):
        text_by(("user", "route"))(key)
