from __future__ import annotations

import asyncio
import functools
import random
from contextlib import asynccontextmanager
from datetime import date

import httpx
import pytest

from headgate.testing import FakeMesh
from headgate_shop.base.settings import Settings
from headgate_shop.payments import weather
from headgate_shop.payments.app import app
from headgate_shop.payments.cards import TEST_CARDS, CardInvalid, judge
from headgate_shop.payments.weather import WeatherSpec

TODAY = date(2026, 11, 22)


@pytest.mark.parametrize("number", TEST_CARDS)
def test_each_test_card_has_its_fate(number):
    verdict = judge(number, "12/30", "123", TODAY)
    assert (verdict.reason, verdict.last4) == (TEST_CARDS[number], number[-4:])


@pytest.mark.parametrize(
    "expiry, reason",
    [("11/26", ""), ("10/26", "expired_card"), ("12/2025", "expired_card"), ("01 / 27", "")],
    ids=["this-month", "last-month", "last-year", "spaces"],
)
def test_a_card_is_good_until_the_end_of_its_month(expiry, reason):
    assert judge("4242424242424242", expiry, "123", TODAY).reason == reason


def test_a_card_of_no_test_is_refused():
    assert judge("5555555555554444", "12/30", "1234", TODAY).reason == "refused"


@pytest.mark.parametrize(
    "number, expiry, cvc, field",
    [
        ("4242424242424241", "12/30", "123", "number"),
        ("424242424242", "1230", "123", "expiry"),
        ("", "12/30", "123", "number"),
        ("4242 4242 4242 424x", "12/30", "123", "number"),
        ("\u0664" * 16, "12/30", "123", "number"),
        ("4242424242424242", "13/30", "123", "expiry"),
        ("4242424242424242", "12/3", "123", "expiry"),
        ("4242424242424242", "12/30", "12", "cvc"),
        ("4242424242424242", "12/30", "12345", "cvc"),
        ("4242424242424242", "12/30", "\u00b9\u00b2\u00b3", "cvc"),
    ],
    ids=range(10),
)
def test_what_is_no_card_is_named_and_never_repeated(number, expiry, cvc, field):
    with pytest.raises(CardInvalid) as wrong:
        judge(number, expiry, cvc, TODAY)
    if number != "424242424242":
        assert f"card.{field}" in str(wrong.value)
    assert not number or number not in str(wrong.value)


def test_bad_days_come_as_often_as_they_are_asked_for():
    rng = random.Random(4)
    spec = WeatherSpec(fail_share=0.25, hang_share=0.5)
    fates = [spec.fate(rng) for _ in range(4000)]
    assert 900 < fates.count("failed") < 1100
    assert 1350 < fates.count("silent") < 1650


@asynccontextmanager
async def company(folder):
    mesh = FakeMesh()
    mesh.app("payments", app(Settings("payments", folder), mesh=mesh))
    async with (
        mesh,
        httpx.AsyncClient(
            transport=mesh.transport(), base_url="http://payments", timeout=30
        ) as client,
    ):
        yield client


def with_company(test):
    @functools.wraps(test)
    def run(*, tmp_path):
        async def main():
            async with company(tmp_path) as client:
                await test(client)

        asyncio.run(main())

    del run.__wrapped__  # pytest would ask it for its arguments
    return run


CARD = {"number": "4242424242424242", "expiry": "12/49", "cvc": "123"}


def pay(client, payment_id="p1", amount=1000, number=None, **more):
    body = {"payment_id": payment_id, "amount": amount, "currency": "EUR"} | more
    if "token" not in more:
        body["card"] = CARD | ({"number": number} if number else {})
    return client.post("/payments", json=body)


@with_company
async def test_a_payment_is_captured_once_however_often_it_is_asked_for(client):
    answers = await asyncio.gather(*(pay(client) for _ in range(6)))
    assert {one.status_code for one in answers} == {200}
    assert {one.json()["status"] for one in answers} == {"captured"}
    assert (await client.get("/totals")).json() == {"captured": 1000, "refunded": 0}
    assert (await client.get("/payments/p1")).json() == answers[0].json()
    for other in ({"amount": 999}, {"currency": "USD"}):
        answer = await pay(client, **other)
        assert (answer.status_code, answer.json()["code"]) == (409, "other_payment")


@with_company
async def test_a_refusal_stands_whatever_card_comes_next(client):
    refused = (await pay(client, number="4000000000009995")).json()
    assert (refused["status"], refused["reason"]) == ("refused", "no_money")
    assert (await pay(client)).json()["status"] == "refused"
    answer = await client.post("/payments/p1/refund", json={"refund_id": "r", "amount": 1})
    assert (answer.status_code, answer.json()["code"]) == (409, "too_much")


@with_company
async def test_a_token_stands_for_a_card(client):
    made = (await client.post("/cards", json=CARD)).json()
    assert made["last4"] == "4242" and "4242424242424242" not in str(made)
    assert (await pay(client, token=made["token"])).json()["status"] == "captured"
    wrong = await pay(client, "p2", token="card_none")
    assert (wrong.status_code, wrong.json()["code"]) == (422, "no_card")
    assert (await client.get("/payments/p2")).status_code == 404
    both = await client.post(
        "/payments",
        json={"payment_id": "p3", "amount": 1, "currency": "EUR", "card": CARD, "token": "x"},
    )
    assert both.status_code == 422 and "4242" not in both.text


@with_company
async def test_no_more_is_given_back_than_was_taken(client):
    await pay(client)

    def refund(refund_id, amount, payment_id="p1"):
        body = {"refund_id": refund_id, "amount": amount}
        return client.post(f"/payments/{payment_id}/refund", json=body)

    first = await asyncio.gather(*(refund("r1", 400) for _ in range(4)))
    assert {one.json()["refunded"] for one in first} == {400}
    assert (await refund("r1", 500)).json()["code"] == "other_refund"
    many = await asyncio.gather(*(refund(f"m{number}", 250) for number in range(4)))
    assert sorted(one.status_code for one in many) == [200, 200, 409, 409]
    assert (await client.get("/payments/p1")).json()["refunded"] == 900
    assert (await refund("r9", 100)).json()["refunded"] == 1000
    assert (await refund("r9", 100, "never")).status_code == 404


@with_company
async def test_what_is_void_is_never_carried_out(client):
    assert (await client.post("/payments/late/void")).json()["status"] == "void"
    answer = await pay(client, "late")
    assert (answer.status_code, answer.json()["code"]) == (409, "void")
    await pay(client, "done")
    assert (await client.post("/payments/done/void")).json()["status"] == "captured"
    raced = await asyncio.gather(pay(client, "race"), client.post("/payments/race/void"))
    status = (await client.get("/payments/race")).json()["status"]
    assert raced[1].json()["status"] == status
    assert raced[0].status_code == (200 if status == "captured" else 409)


@with_company
async def test_the_book_is_read_page_by_page(client):
    for number in range(5):
        await pay(client, f"p{number}")
    seen, cursor = [], ""
    while cursor is not None:
        page = (await client.get("/payments", params={"cursor": cursor, "limit": 2})).json()
        seen += [one["payment_id"] for one in page["items"]]
        cursor = page["next"]
    assert seen == [f"p{number}" for number in range(5)]


@with_company
async def test_a_payment_whose_answer_was_lost_is_found(client):
    await client.post("/simulator", json={"hang_share": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weather, "SILENCE_S", 0.01)
        assert (await pay(client)).status_code == 504
    await client.post("/simulator", json={})
    assert (await client.get("/payments/p1")).json()["status"] == "captured"
    await client.post("/simulator", json={"fail_share": 1})
    assert (await pay(client, "p2")).status_code == 503
    await client.post("/simulator", json={})
    assert (await client.get("/payments/p2")).status_code == 404
    assert (await client.post("/simulator", json={"fail_share": 2})).status_code == 422
    assert (await client.get("/simulator")).json()["fail_share"] == 0


@with_company
async def test_what_is_no_payment_is_refused(client):
    for more in ({"amount": 0}, {"amount": -1}, {"amount": "5"}, {"amount": 10**12}):
        assert (await pay(client, **more)).status_code == 422, more
    for payment_id in ("", "a b", "x" * 129, "a/b"):
        assert (await pay(client, payment_id)).status_code == 422
    wrong = await pay(client, number="4242424242424241")
    assert wrong.status_code == 422 and "4242424242424241" not in wrong.text
