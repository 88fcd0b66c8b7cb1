"""What mails say, and what they cannot be made to say."""

from __future__ import annotations

import email.policy
from email import message_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_shop.base import events
from headgate_shop.notifications.letters import Letter, LetterInvalid, letters
from headgate_shop.notifications.post import MAIL_TOPICS
from headgate_shop.notifications.rendering import message_id, render
from headgate_shop.notifications.sending import server_of

URL = "https://shop.example"
ORDER = {
    "order_id": "o-17",
    "user_id": "u-1",
    "email": "ada@shop.test",
    "at": 1.0,
    "total": 123456,
    "currency": "EUR",
    "lines": [
        {"product_id": "p-1", "name": "Lamp <b>bright</b>", "quantity": 2, "price": 1250},
        {"product_id": "p-2", "name": "Desk", "quantity": 1, "price": 120956},
    ],
}
LINKED = (
    "confirm_registration",
    "verify_email",
    "already_registered",
    "reset_password",
    "confirm_email_change",
)
TOLD = ("password_changed", "email_change_asked", "email_changed", "erasure_done")


def one(topic: str, data: dict) -> Letter:
    ((_, letter),) = letters(topic, data, public_url=URL, staff=["staff@shop.test"])
    return letter


def mail(template: str, **values) -> dict:
    return {"to": "ada@shop.test", "template": template, "values": values, "user_id": "u-1"}


def parts(letter: Letter, to: str = "ada@shop.test"):
    made = render(letter, mail_id="m", sender="no-reply@shop.test", to=to, public_url=URL, wall=0.0)
    read = message_from_bytes(made.as_bytes(), policy=email.policy.default)
    text, html = read.get_body(("plain",)), read.get_body(("html",))
    assert text is not None and html is not None
    plain = text.get_content().replace("\r\n", "\n")
    return read, plain, html.get_content()


@pytest.mark.parametrize("template", LINKED)
def test_a_mail_with_a_token_leads_to_the_shop_and_shows_the_code(template):
    link = f"{URL}/confirm#tok-123"
    _, text, html = parts(
        one(events.MAIL_WANTED, mail(template, name="Ada", link=link, token="tok-123"))
    )
    for part in (text, html):
        assert "Hello Ada," in part
        assert link in part
        assert part.count("tok-123") == 2 if part is text else part.count("tok-123") >= 2
        assert "None" not in part and "{{" not in part


@pytest.mark.parametrize("template", TOLD)
def test_a_mail_that_only_tells_needs_no_link(template):
    _, text, html = parts(one(events.MAIL_WANTED, mail(template)))
    assert text.startswith("Hello,\n")
    assert '<a href="https://shop.example/"' in html
    assert "Or paste" not in text


@pytest.mark.parametrize(
    ("topic", "more", "subject", "says"),
    [
        (events.ORDER_PLACED, {}, "Your order o-17", "We have your order"),
        (
            events.ORDER_PAID,
            {"payment_id": "x", "number": "S-1001"},
            "Your order S-1001 is paid",
            "pack",
        ),
        (
            events.ORDER_SHIPPED,
            {"tracking": "TR-9"},
            "Your order o-17 is on its way",
            "number is TR-9.",
        ),
        (
            events.ORDER_CANCELLED,
            {"reason": "payment_refused"},
            "Your order o-17 is cancelled",
            "Reason: payment refused.",
        ),
    ],
    ids=["placed", "paid", "shipped", "cancelled"],
)
def test_a_mail_about_an_order_lists_it_and_adds_nothing_up_itself(topic, more, subject, says):
    read, text, html = parts(one(topic, ORDER | more))
    assert read["Subject"] == subject
    assert says in text and says in html
    assert "2 x Lamp <b>bright</b>: \N{EURO SIGN}25.00" in text
    assert "Lamp &lt;b&gt;bright&lt;/b&gt;" in html and "<b>bright" not in html
    assert "Total: \N{EURO SIGN}1,234.56" in text
    assert f"{URL}/orders/o-17" in text


def test_low_stock_is_told_to_everybody_of_the_staff():
    data = {"product_id": "p-00001", "name": "Lamp", "available": 3, "at": 1.0}
    told = letters(events.STOCK_LOW, data, public_url=URL, staff=["a@shop.test", "b@shop.test"])
    assert [to.address for to, _ in told] == ["a@shop.test", "b@shop.test"]
    assert told[0][1].subject == "Low stock: Lamp"
    assert "3 left of Lamp (p-00001)." in parts(told[0][1])[1]


def test_every_topic_that_is_heard_has_a_letter():
    data = ORDER | mail("password_changed") | {"name": "n", "product_id": "p", "available": 1}
    for topic in MAIL_TOPICS:
        assert one(topic, data).subject


@pytest.mark.parametrize(
    ("topic", "data", "why"),
    [
        (events.MAIL_WANTED, {}, "to is missing"),
        (events.MAIL_WANTED, mail("nonsense"), "no template 'nonsense'"),
        (events.MAIL_WANTED, mail("verify_email") | {"values": []}, "values is not an object"),
        (events.MAIL_WANTED, mail("verify_email"), "link is missing"),
        (
            events.MAIL_WANTED,
            mail("verify_email", link="https://evil.example/confirm#x"),
            "does not lead",
        ),
        (events.MAIL_WANTED, mail("verify_email", link=f"{URL}.evil.example/#x"), "does not lead"),
        (events.MAIL_WANTED, mail("verify_email", link=f"{URL}/x\r\nBcc: a@b"), "does not lead"),
        (events.MAIL_WANTED, mail("verify_email", link="javascript:alert(1)"), "does not lead"),
        (events.MAIL_WANTED, mail("verify_email", link=f"{URL}/", token="a\nb"), "not printable"),
        (events.ORDER_PAID, ORDER | {"total": "12"}, "not a number of cents"),
        (events.ORDER_PAID, ORDER | {"lines": {}}, "lines is not a list"),
        (events.ORDER_PAID, ORDER | {"lines": [{}]}, "a line without"),
        (events.ORDER_PAID, ORDER | {"order_id": "../admin"}, "cannot stand in a link"),
        (events.ORDER_PAID, {k: v for k, v in ORDER.items() if k != "email"}, "email is missing"),
        (events.STOCK_LOW, {"product_id": "p"}, "available is not"),
        (events.SHOPPING, ORDER, "no letter is written for shopping"),
    ],
    ids=range(16),
)
def test_a_message_that_does_not_say_enough_makes_no_mail(topic, data, why):
    with pytest.raises(LetterInvalid, match=why):
        one(topic, data)


@pytest.mark.parametrize(
    "to",
    [
        "",
        "ada",
        "@shop.test",
        "ada@",
        "a b@shop.test",
        "ada@shop.test, eve@evil.test",
        "ada@shop.test\r\nBcc: eve@evil.test",
        "ada@shop.test\nx",
        '"a"@b',
        "Ada <ada@shop.test>",
        "a" * 65 + "@shop.test",
        "a@" + "b" * 254,
        "a@b@c",
        "ada@shop.test\x00",
        "a@[127.0.0.1]",
    ],
    ids=range(15),
)
def test_what_is_not_one_address_is_refused(to):
    with pytest.raises(LetterInvalid, match="address"):
        parts(Letter("t", "s", ()), to)


def test_an_address_in_any_language_is_one():
    read, _, _ = parts(Letter("t", "s", ()), "jörg@bücher.example")
    assert "jörg@bücher.example" in str(read["To"])


@given(st.text(max_size=300))
def test_nothing_that_people_write_becomes_a_header_or_a_second_line_of_one(text):
    data = {"product_id": "p-1", "name": text + "x", "available": 1}
    made = render(
        one(events.STOCK_LOW, data),
        mail_id="m",
        sender="no-reply@shop.test",
        to="a@shop.test",
        public_url=URL,
        wall=0.0,
    )
    read = message_from_bytes(made.as_bytes(), policy=email.policy.default)
    assert sorted(set(read.keys())) == sorted(
        [
            "Message-ID",
            "Date",
            "From",
            "To",
            "Subject",
            "Auto-Submitted",
            "MIME-Version",
            "Content-Type",
        ]
    )
    assert len(read.keys()) == 8
    assert str(read["To"]) == "a@shop.test"
    assert str(read["Subject"]).startswith("Low stock: ")


@pytest.mark.parametrize(
    ("name", "greeting"),
    [
        ("Ada Lovelace", "Hello Ada Lovelace,"),
        ("  Ada\r\n Lovelace\t", "Hello Ada Lovelace,"),
        ("<script>", "Hello,"),
        ("Win now at http://evil.example", "Hello,"),
        ("www.evil.example", "Hello,"),
        ("x" * 61, "Hello,"),
        (None, "Hello,"),
        ({"a": 1}, "Hello,"),
    ],
    ids=range(8),
)
def test_a_greeting_has_a_name_and_nothing_that_looks_like_an_advertisement(name, greeting):
    _, text, _ = parts(one(events.MAIL_WANTED, mail("password_changed", name=name)))
    assert text.splitlines()[0] == greeting


def test_every_attempt_at_one_mail_has_the_same_id_and_another_mail_another():
    assert message_id("m", "shop.test") == message_id("m", "shop.test")
    assert message_id("m", "shop.test") != message_id("m/1", "shop.test")
    assert message_id("a b\r\n<", "shop.test").isascii()


def test_long_orders_are_cut_and_say_so():
    rows = [
        {"product_id": f"p-{n}", "name": "n" * 999, "quantity": 1, "price": 1} for n in range(130)
    ]
    letter = one(events.ORDER_PAID, ORDER | {"lines": rows})
    assert len(letter.lines) == 101
    assert letter.lines[-1].name == "and 30 more"
    assert len(letter.lines[0].name) == 200


@pytest.mark.parametrize(
    ("text", "host", "port", "security", "user", "password"),
    [
        ("127.0.0.1:2525", "127.0.0.1", 2525, "offered", "", ""),
        ("mail.example", "mail.example", 25, "offered", "", ""),
        ("smtps://me:a%40b@mail.example", "mail.example", 465, "tls", "me", "a@b"),
        ("smtp+starttls://mail.example", "mail.example", 587, "starttls", "", ""),
        ("[::1]:25", "::1", 25, "offered", "", ""),
    ],
    ids=range(5),
)
def test_a_mail_server_is_named_by_host_and_port_or_url(text, host, port, security, user, password):
    server = server_of(text)
    assert (server.host, server.port, server.security) == (host, port, security)
    assert (server.user, server.password) == (user, password)
    assert "a@b" not in repr(server)


@pytest.mark.parametrize(
    "text", ["", "http://x", "smtp://", "host:99999", "smtp://u:secret@:x"], ids=range(5)
)
def test_what_is_no_mail_server_is_said_without_its_password(text):
    with pytest.raises(ValueError, match="SHOP_SMTP is") as told:
        server_of(text)
    assert "secret" not in str(told.value)
