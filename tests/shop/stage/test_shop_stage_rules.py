from __future__ import annotations

import asyncio
import json
import random
from email.message import EmailMessage

import pytest
from aiosmtpd.smtp import Envelope

from headgate.cli import demo
from headgate.errors import HeadgateError
from headgate_shop.base.settings import SERVICES
from headgate_shop.stage import layout
from headgate_shop.stage.layout import Layout, reserve
from headgate_shop.stage.mail import KEPT, MailCatcher
from headgate_shop.stage.restarts import CALM_S, LONGEST_S, Deaths
from headgate_shop.stage.traffic.day import DAY_S, busy
from headgate_shop.stage.traffic.tally import WINDOW_S, Tally
from headgate_shop.stage.traffic.visit import CARDS, Plan, products_in


def test_the_first_death_in_a_while_is_followed_by_a_start_at_once_and_more_by_later_ones():
    deaths = Deaths()
    waits = [deaths.died(1.0) for _ in range(6)]
    assert waits[0] <= 0.1
    assert waits == sorted(waits) and waits[-1] == LONGEST_S
    assert deaths.is_failed
    assert deaths.died(CALM_S) == waits[0]
    assert not deaths.is_failed


def test_a_day_has_its_usual_rate_on_average_and_is_busiest_in_the_evening():
    points = [busy(at * DAY_S / 480) for at in range(480)]
    assert sum(points) / 480 == pytest.approx(1.0, abs=0.01)
    hours = {(9 + at * 24 / 480) % 24: point for at, point in enumerate(points)}
    assert 18 <= max(hours, key=lambda hour: hours[hour]) <= 22
    assert min(points) > 0


def test_the_last_minute_forgets_what_is_older_and_totals_do_not():
    tally = Tally()
    tally.answered(200, 0.1, 10.0)
    tally.answered(503, 3.0, 10.5)
    tally.answered(0, 0.1, 11.0)
    tally.answered(429, 0.1, 11.0)
    said = tally.snapshot(11.0)
    assert said["last_minute"] == {"requests": 4, "failed": 2, "slow": 1, "turned_away": 1}
    later = tally.snapshot(11.0 + WINDOW_S)
    assert later["last_minute"] == {}
    assert later["totals"]["requests"] == 4


def test_a_tally_of_many_hours_is_no_larger_than_one_of_a_minute():
    tally = Tally()
    for second in range(10_000):
        tally.add("requests", float(second))
    assert len(tally._seconds) <= WINDOW_S


@pytest.mark.parametrize("is_shopper", [True, False], ids=["shopper", "stranger"])
def test_every_visit_comes_to_an_end_and_only_shoppers_buy(is_shopper):
    kinds = []
    for seed in range(60):
        plan = Plan.drawn(random.Random(seed), shopper=is_shopper)
        for _ in range(200):
            act = plan.next()
            if act is None:
                break
            kinds.append(act.kind)
            if act.kind in ("page", "api"):
                plan.saw('<a href="/product/p-00001">x</a> <a href="/product/p-00002">y</a>')
        else:
            pytest.fail("a visit without an end")
    assert ("checkout" in kinds) == is_shopper
    assert {"page", "api", "put"} <= set(kinds)


def test_a_visit_to_a_shop_that_shows_nothing_ends():
    plan = Plan.drawn(random.Random(1), shopper=True)
    acts = []
    while (act := plan.next()) is not None:
        acts.append(act)
        plan.saw("")
    assert len(acts) <= 3


def test_products_are_found_in_pages_and_in_lists_of_the_api():
    assert products_in('<a href="/product/p-2"><a href="/product/p-1"><a href="/product/p-2">') == [
        "p-2",
        "p-1",
    ]
    assert products_in('{"items": [{"id": "p-3", "name": "x"}]}') == ["p-3"]
    assert products_in('{"items": [], "href": "/product/../../x"}') == []


def test_of_a_hundred_buyers_most_pay_with_a_good_card():
    assert sum(share for _, share in CARDS) == 100
    assert dict(CARDS)["4242424242424242"] > 80


def _letter(to: str, subject: str) -> Envelope:
    message = EmailMessage()
    message["Subject"] = subject
    message.set_content("plain words\n")
    message.add_alternative("<p>rich words</p>", subtype="html")
    envelope = Envelope()
    envelope.mail_from = "shop@shop.test"
    envelope.rcpt_tos = [to]
    envelope.content = message.as_bytes()
    return envelope


def _catch(*envelopes: Envelope) -> MailCatcher:
    catcher = MailCatcher(lambda: 5.0)

    async def run() -> None:
        for envelope in envelopes:
            assert await catcher.handle_DATA(None, None, envelope) == "250 OK"  # type: ignore[arg-type]

    asyncio.run(run())
    return catcher


def test_a_mail_is_kept_with_its_text_and_its_subject_in_any_script():
    catcher = _catch(_letter("a@shop.test", "Größe bestellt ✓"), _letter("b@shop.test", "two"))
    assert [mail.subject for mail in catcher.newest(10)] == ["two", "Größe bestellt ✓"]
    (mail,) = catcher.newest(10, "a@shop.test")
    assert (mail.text.strip(), mail.html.strip()) == ("plain words", "<p>rich words</p>")
    assert catcher.find(mail.id) is mail
    assert catcher.find("nothing") is None


def test_what_is_no_letter_is_kept_too_and_old_ones_make_room():
    broken = Envelope()
    broken.rcpt_tos = ["a@shop.test"]
    broken.content = b"\xff\xfe\x00 no header \r\n\r\n\xff"
    catcher = _catch(broken, *(_letter("a@shop.test", str(at)) for at in range(KEPT)))
    assert catcher.total == KEPT + 1
    assert len(catcher.newest(KEPT * 2)) == KEPT


def test_ports_are_those_of_the_last_start_and_each_is_different(tmp_path):
    place = Layout(tmp_path)
    first = reserve(place, 0, rng=random.Random())
    first.close()
    second = reserve(place, 0, rng=random.Random())
    try:
        assert second.ports == first.ports
        assert len(set(first.ports.values())) == len(first.ports)
        third = reserve(Layout(tmp_path / "."), 0, rng=random.Random())
        third.close()
        ours = {name: port for name, port in second.ports.items() if name in second._held}
        assert not any(third.ports[name] == ours[name] for name in ours if name in SERVICES)
    finally:
        second.close()


def test_a_record_of_ports_that_is_no_record_is_passed_over(tmp_path):
    (tmp_path / "ports.json").write_text('["no", "mapping"]')
    reserved = reserve(Layout(tmp_path), 0, rng=random.Random())
    reserved.close()
    assert json.loads((tmp_path / "ports.json").read_text()) == reserved.ports


def test_keys_and_tokens_are_made_once_and_for_their_owner_alone(tmp_path):
    place = Layout(tmp_path / "stage")
    place.prepare()
    before = {name: place.token(name) for name in layout.TOKENS}
    key = place.identity_key.read_bytes()
    (place.data / "faults").mkdir()
    place.prepare()
    assert {name: place.token(name) for name in layout.TOKENS} == before
    assert len(set(before.values())) == len(before)
    assert place.identity_key.read_bytes() == key
    assert not (place.data / "faults").exists()
    for path in (place.identity_key, *(place.folder / "tokens").iterdir()):
        assert path.stat().st_mode & 0o077 == 0
    assert "d" not in json.loads(place.identity_keys.read_text())["keys"][0]


def test_the_demo_without_its_extra_says_what_to_install(monkeypatch):
    monkeypatch.setattr(demo, "NEEDED", ("headgate_shop", "no_such_library"))
    with pytest.raises(
        HeadgateError, match=r"no_such_library.*pip install headgate\[demo\].*--small"
    ):
        demo.demo()
