from __future__ import annotations

from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.security.login.flow import (
    LOOP_COUNT,
    LOOP_WINDOW_S,
    MAX_PENDING,
    SLOTS,
    Pending,
    Returned,
    Tries,
    authorization_url,
    challenge_of,
    is_navigation,
    is_own_site,
    issuer_fault,
    local_path,
    new_pending,
    origin_of,
    read_callback,
    slots_to_clear,
    with_query,
)

OWN = ("/.headgate/login", "/.headgate/login/callback", "/.headgate/logout")


# -- where to go afterwards ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["/", "/a", "/a/b?x=1&y=%2F%2Fhost", "/a//b", "/a?to=https://evil.example/", "/%20a", "/a;b"],
)
def test_a_local_path_is_gone_back_to(text):
    assert local_path(text, OWN) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "evil.example",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "/\\/evil.example",
        "\\\\evil.example",
        "/a\\b",
        "http://evil.example",
        "https:evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
        "/\n/evil.example",
        "/\r\nlocation: x",
        "\t//evil.example",
        " //evil.example",
        "/a b",
        "/\x00",
        "/\x7f",
        "/%2F/evil.example",
        "/%5Cevil.example",
        "/%252F/evil.example",
        "/%09/evil.example",
        "/%0d%0aset-cookie:x",
        "/ä",
        "/" + "a" * 2000,
        "?x=1",
        "#x",
        "@evil.example",
        "/.headgate/logout",
        "/.headgate/login",
        "/.headgate/login?to=/",
        "/.headgate/./logout",
        "/x/../.headgate/logout",
        "/%2eheadgate/logout",
        "/.headgate/logout/",
        "/.headgate//logout",
    ],
    ids=lambda text: "".join(c if c.isalnum() else f"_{ord(c):x}" for c in text[:24]),
)
def test_what_leads_elsewhere_or_round_in_circles_is_not_gone_back_to(text):
    assert local_path(text, OWN) is None


@given(st.text(alphabet="/\\:@?#.%ab2F5Ccd09\t\n evil", max_size=24))
def test_no_path_that_is_taken_leaves_the_host(text):
    found = local_path(text, OWN)
    if found is not None:
        there = urlsplit(urljoin("https://shop.example/x", found))
        assert (there.scheme, there.netloc) == ("https", "shop.example")
        assert not found.startswith(("//", "/\\")) and "\\" not in found


def test_a_fragment_is_dropped():
    assert local_path("/a?b#c", OWN) == "/a?b"


# -- the request and the answer ------------------------------------------------------------------


def test_the_challenge_is_that_of_the_published_example():
    # RFC 7636 appendix B
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert challenge_of(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_state_nonce_and_verifier_are_apart_and_long_enough():
    pending = new_pending(bytes(range(96)), "/", 1.0)
    said = {pending.state, pending.nonce, pending.verifier}
    assert len(said) == 3 and {len(each) for each in said} == {43}
    with pytest.raises(ValueError):
        new_pending(b"short", "/", 1.0)


def test_the_request_keeps_the_endpoints_own_query_and_says_everything_once():
    pending = new_pending(bytes(range(96)), "/", 1.0)
    address = authorization_url(
        "https://id.example/authorize?tenant=a%20b#x",
        client_id="shop & co",
        redirect_uri="https://shop.example/cb",
        scopes=("openid", "email"),
        pending=pending,
        parameters={"prompt": "login", "state": "mine"},
        with_nonce=True,
    )
    said = parse_qs(urlsplit(address).query)
    assert said == {
        "tenant": ["a b"],
        "prompt": ["login"],
        "response_type": ["code"],
        "client_id": ["shop & co"],
        "redirect_uri": ["https://shop.example/cb"],
        "scope": ["openid email"],
        "state": [pending.state],
        "nonce": [pending.nonce],
        "code_challenge": [challenge_of(pending.verifier)],
        "code_challenge_method": ["S256"],
    }
    assert with_query("https://a/b", {"c": "d"}) == "https://a/b?c=d"
    assert pending.verifier not in address


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("state=s&code=c", Returned("s", "c")),
        ("state=s&code=c&iss=https%3A%2F%2Fid", Returned("s", "c", "https://id")),
        ("state=s&error=access_denied", Returned("s", error="access_denied")),
        (
            "state=s&error=x%22y&error_description=a%0Ab",
            Returned("s", error="unreadable", description="ab"),
        ),
        ("state=s&code=c&error=e", Returned("s", error="e")),
        ("state=s&code=c&state=t", "twice"),
        ("state=s&code=c&code=d", "twice"),
        ("state=s&code=c&iss=a&iss=b", "twice"),
        ("code=c", "does not belong"),
        ("", "does not belong"),
        ("state=&code=c", "does not belong"),
        ("state=a%0Ab&code=c", "does not belong"),
        ("state=s", "no code"),
        ("state=s&code=", "no code"),
        ("state=s&code=a%20b", "no code"),
        ("state=%FF&code=c", "cannot be read"),
        ("&".join(f"a{n}=1" for n in range(99)), "cannot be read"),
        ("x" * 9000, "too long"),
    ],
    ids=range(18),
)
def test_callbacks_are_read_strictly(query, found):
    said = read_callback(query)
    if isinstance(found, str):
        assert isinstance(said, str) and found in said
    else:
        assert said == found


@given(st.text(max_size=200))
def test_no_callback_is_too_strange_to_be_answered(query):
    said = read_callback(query)
    assert isinstance(said, (str, Returned))


@pytest.mark.parametrize(
    ("said", "promised", "is_good"),
    [
        ("https://id", True, True),
        ("https://id", False, True),
        (None, False, True),
        (None, True, False),
        ("https://id/", True, False),
        ("https://evil", False, False),
        ("", True, False),
    ],
)
def test_the_issuer_of_an_answer_must_be_the_one_that_was_asked(said, promised, is_good):
    assert (issuer_fault(said, "https://id", promised) == "") is is_good


# -- pendings ------------------------------------------------------------------------------------


def pending_at(started: float) -> Pending:
    return Pending(f"s{started}", "n", "v", "/", started)


def test_a_pending_survives_its_cookie():
    pending = new_pending(bytes(range(96)), "/a?b=ü", 1234.5)
    assert Pending.from_bytes(pending.to_bytes()) == pending
    assert 0 <= pending.slot < SLOTS


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b"[1,2,3,4,5]",
        b'["a","b","c","d","x"]',
        b'["a","b","c","d",NaN]',
        b"\xff",
    ],
)
def test_what_is_no_pending_is_none(text):
    assert Pending.from_bytes(text) is None


def test_of_too_many_log_ins_the_oldest_make_room():
    shown = {slot: pending_at(100.0 + slot) for slot in range(MAX_PENDING + 2)}
    assert slots_to_clear(shown, 200.0, 600.0, new=99) == (0, 1, 2)
    assert slots_to_clear({}, 200.0, 600.0, new=99) == ()


def test_dead_and_unreadable_log_ins_are_cleared_and_the_new_one_never():
    shown = {1: pending_at(0.0), 2: None, 3: pending_at(650.0), 4: None}
    assert slots_to_clear(shown, 700.0, 600.0, new=4) == (1, 2)


@given(
    st.dictionaries(st.integers(0, 255), st.none() | st.floats(0, 2000), max_size=20),
    st.floats(0, 2000),
    st.integers(0, 255),
)
def test_at_most_so_many_stay_and_always_the_youngest(shown, wall, new):
    pendings = {slot: None if at is None else pending_at(at) for slot, at in shown.items()}
    cleared = slots_to_clear(pendings, wall, 600.0, new)
    stay = [p for slot, p in pendings.items() if slot not in cleared and slot != new]
    assert len(stay) < MAX_PENDING and new not in cleared
    assert all(p is not None and p.is_alive(wall, 600.0) for p in stay)


def test_a_log_in_lasts_so_long_and_a_clock_that_is_set_back_ends_it():
    pending = pending_at(1000.0)
    assert pending.is_alive(1000.0, 600.0) and pending.is_alive(1599.0, 600.0)
    assert pending.is_alive(800.0, 600.0)  # clocks of two machines
    assert not pending.is_alive(1600.0, 600.0) and not pending.is_alive(600.0, 600.0)


def test_a_loop_is_so_many_successes_within_the_window():
    tries = Tries()
    for number in range(LOOP_COUNT):
        assert not tries.is_loop(100.0 + number)
        tries = tries.succeeded(100.0 + number)
    assert tries.is_loop(103.0)
    assert Tries.from_bytes(tries.to_bytes()) == tries
    assert not tries.is_loop(103.0 + LOOP_WINDOW_S)
    assert not Tries.from_bytes(b"[1,").is_loop(1.0) and Tries.from_bytes(b'{"a":1}') == Tries()


# -- who asks, and from where --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("public", "is_tls", "authority", "origin"),
    [
        ("", False, "Shop.example:8080", "http://shop.example:8080"),
        ("", True, "[::1]:8443", "https://[::1]:8443"),
        ("https://shop.example", False, "10.0.0.1", "https://shop.example"),
        ("", True, "evil.example/x", None),
        ("", True, "a@b", None),
        ("", True, "", None),
        ("", True, "a b", None),
        ("", True, "a\r\nb", None),
    ],
    ids=range(8),
)
def test_the_origin_is_public_or_what_was_asked_for(public, is_tls, authority, origin):
    assert origin_of(public, is_tls, authority) == origin


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({b"sec-fetch-site": b"same-origin"}, True),
        ({b"sec-fetch-site": b"none"}, True),
        ({b"sec-fetch-site": b"same-site"}, False),
        ({b"sec-fetch-site": b"cross-site", b"origin": b"https://shop.example"}, False),
        ({b"origin": b"https://shop.example"}, True),
        ({b"origin": b"https://evil.example"}, False),
        ({b"origin": b"null"}, False),
        ({b"origin": b"https://shop.example.evil.example"}, False),
        ({b"referer": b"https://shop.example/page?x"}, True),
        ({b"referer": b"http://shop.example/page"}, False),
        ({b"referer": b"\xff"}, False),
        ({b"referer": b"https://[x"}, False),
        ({}, None),
    ],
    ids=range(13),
)
def test_only_a_page_of_the_same_origin_is_of_the_own_site(fields, said):
    assert is_own_site("https://shop.example", fields) is said


@pytest.mark.parametrize(
    ("method", "fields", "said"),
    [
        ("GET", {b"accept": b"text/html,*/*;q=0.8"}, True),
        ("HEAD", {b"accept": b"application/xhtml+xml"}, True),
        ("GET", {b"accept": b"TEXT/HTML;q=1", b"sec-fetch-mode": b"navigate"}, True),
        ("POST", {b"accept": b"text/html"}, False),
        ("GET", {b"accept": b"*/*"}, False),
        ("GET", {}, False),
        ("GET", {b"accept": b"application/json"}, False),
        ("GET", {b"accept": b"text/html", b"sec-fetch-mode": b"cors"}, False),
        ("GET", {b"accept": b"text/html", b"sec-fetch-dest": b"image"}, False),
        ("GET", {b"accept": b"text/html", b"x-requested-with": b"XMLHttpRequest"}, False),
        ("GET", {b"accept": b"text/html", b"sec-purpose": b"prefetch;prerender"}, False),
    ],
    ids=range(11),
)
def test_only_people_who_go_to_a_page_are_sent_to_log_in(method, fields, said):
    assert is_navigation(method, fields) is said
