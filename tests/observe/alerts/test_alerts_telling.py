"""Who is told what and when: routes, groups, repeats, escalation, silences, and nothing twice."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.observe.alerts.alert import Alert, fingerprint, sorted_labels
from headgate.observe.alerts.allowance import Allowances
from headgate.observe.alerts.matching import MatcherFault, parse_matcher
from headgate.observe.alerts.muting import Inhibition, MuteWindow, Silence
from headgate.observe.alerts.notification import Notification
from headgate.observe.alerts.outbox import Entry, Outbox
from headgate.observe.alerts.routing import ALL, Escalation, Node, Routing
from headgate.observe.alerts.telling import Telling

T0 = 1_800_000_000.0


def alert(rule="cpu", level="warning", state="firing", at=T0, **labels: str) -> Alert:
    own = sorted_labels({"alertname": rule, **labels})
    return Alert(
        id=fingerprint(own),
        rule=rule,
        labels=own,
        level=level,
        state=state,
        value=1.0,
        since=at,
        fired_at=at if state == "firing" else None,
        resolved_at=at if state == "resolved" else None,
        summary=f"{rule} is bad",
    )


def over(one: Alert, at: float) -> Alert:
    return replace(one, state="resolved", fired_at=None, resolved_at=at)


def matchers(*texts: str):
    return tuple(parse_matcher(each) for each in texts)


def node(**changes) -> Node:
    base = Node("root", "ops", group_wait_s=30.0, group_interval_s=300.0, repeat_interval_s=3600.0)
    return replace(base, **changes)


def told(said) -> list[str]:
    return [
        f"{each.receiver} {each.kind} " + ",".join(f"{a.rule}:{a.state}" for a in each.alerts)
        for each in said
    ]


def play(telling: Telling, *turns) -> list[list[str]]:
    return [told(telling.turn(alerts, T0 + at)) for at, alerts in turns]


@pytest.mark.parametrize(
    ("text", "label", "matches", "not_matches"),
    [
        ('a="b"', "a", "b", "bb"),
        ("a=b", "a", "b", ""),
        ("a!=b", "a", "", "b"),
        ('a=~"x.*"', "a", "xyz", "axyz"),
        ("a!~x.*", "a", "axyz", "xyz"),
        ('a="say \\"hi\\""', "a", 'say "hi"', "say"),
    ],
)
def test_matchers_are_read_and_written(text, label, matches, not_matches):
    made = parse_matcher(text)
    assert made.matches({label: matches})
    assert not made.matches({label: not_matches})
    assert parse_matcher(str(made)) == made


@pytest.mark.parametrize("text", ["", "a", "=b", "a==", 'a=~"("', "a b=c", "a" * 2000])
def test_what_is_no_matcher_is_refused(text):
    if text == "a==":
        assert parse_matcher(text).value == "="
        return
    with pytest.raises(MatcherFault):
        parse_matcher(text)


def test_the_first_child_that_matches_takes_an_alert_and_more_when_it_goes_on():
    tree = node(
        routes=(
            Node("a", "log", matchers("team=x"), goes_on=True),
            Node(
                "b",
                "pager",
                matchers("severity=critical"),
                routes=(Node("c", "night", matchers("team=x")),),
            ),
            Node("d", "never", matchers("severity=critical")),
        )
    )
    takes = lambda **labels: [each.receiver for each in tree.taking(labels)]  # noqa: E731
    assert takes(severity="critical", team="x") == ["log", "night"]
    assert takes(severity="critical") == ["pager"]
    assert takes(severity="info") == ["ops"]


def test_a_group_waits_then_tells_once_then_its_end():
    one, two = alert(h="1"), alert(h="2")
    got = play(
        Telling(Routing(node())),
        (0, [one]),
        (29, [one, two]),
        (30, [one, two]),
        (60, [one, two]),
        (331, [over(one, T0 + 300), two]),
        (700, [over(one, T0 + 300), over(two, T0 + 650)]),
        (2000, []),
    )
    assert got == [
        [], [], ["ops firing cpu:firing,cpu:firing"], [],
        ["ops firing cpu:firing,cpu:resolved"], ["ops resolved cpu:resolved"], [],
    ]  # fmt: skip


def test_what_ended_before_it_was_told_is_not_told():
    one = alert()
    assert play(Telling(Routing(node())), (0, [one]), (20, [over(one, T0)]), (99, [])) == [[]] * 3


def test_without_change_it_is_told_again_after_the_repeat_interval():
    one = alert()
    telling = Telling(Routing(node()))
    got = play(telling, (0, [one]), (30, [one]), (3600, [one]), (3631, [one]), (3700, [one]))
    assert [len(each) for each in got] == [0, 1, 0, 1, 0]


def test_a_level_that_rises_does_not_wait_and_stays_one_incident():
    one = alert()
    telling = Telling(Routing(node()))
    telling.turn([one], T0)
    first = telling.turn([one], T0 + 30)
    second = telling.turn([replace(one, level="critical")], T0 + 31)
    assert (second[0].level, second[0].dedup) == ("critical", first[0].dedup)
    assert second[0].id != first[0].id


def test_who_was_told_hears_the_end_also_when_the_level_took_another_way():
    tree = node(routes=(Node("p", "pager", matchers("severity=critical"), group_wait_s=0.0),))
    one = alert()
    bad = replace(one, level="critical")
    got = play(
        Telling(Routing(tree)),
        (0, [one]), (30, [one]), (31, [bad]), (400, [over(bad, T0)]), (800, []),
    )  # fmt: skip
    assert got[1] == ["ops firing cpu:firing"]
    assert sorted(got[2]) == ["ops firing cpu:firing", "pager firing cpu:firing"]
    assert sorted(got[3] + got[4]) == ["ops resolved cpu:resolved", "pager resolved cpu:resolved"]


def test_each_alert_alone_when_grouped_by_all():
    tree = node(group_by=(ALL,), group_wait_s=0.0)
    assert len(Telling(Routing(tree)).turn([alert(h="1"), alert(h="2")], T0)) == 2


def test_a_silence_keeps_back_beginnings_and_not_ends():
    one = alert(h="1")
    telling = Telling(Routing(node(group_wait_s=0.0)))
    assert len(telling.turn([one], T0)) == 1
    telling.silences["s"] = Silence("s", matchers("alertname=cpu"), T0, T0 + 5000, "me", "", T0)
    two = alert(h="2")
    assert telling.turn([one, two], T0 + 4000) == []
    assert set(telling.muted) == {one.id, two.id}
    assert told(telling.turn([over(one, T0), two], T0 + 4100)) == ["ops resolved cpu:resolved"]
    assert told(telling.turn([two], T0 + 5001)) == ["ops firing cpu:firing"]
    assert telling.silences == {}


def test_one_alert_explains_another_but_never_each_other():
    down = alert("instance-down", "critical", service="a")
    slow, other = alert("slow", service="a"), alert("slow", service="b")
    rule = Inhibition(matchers("alertname=instance-down"), matchers("alertname=slow"), ("service",))
    telling = Telling(Routing(node(group_wait_s=0.0, group_by=(ALL,)), (rule,)))
    said = telling.turn([down, slow, other], T0)
    assert sorted(a.id for each in said for a in each.alerts) == sorted([down.id, other.id])
    both = Inhibition(matchers("alertname=slow"), matchers("alertname=slow"))
    telling = Telling(Routing(node(group_wait_s=0.0, group_by=(ALL,)), (both,)))
    assert len(telling.turn([slow, other], T0)) == 2


@pytest.mark.parametrize(
    ("wall", "holds"),
    [
        (1_799_964_000.0, False),  # Thursday, 23:00 in Berlin
        (1_799_985_600.0, False),  # Friday 05:00, of Thursday's window
        (1_800_050_400.0, True),  # Friday 23:00
        (1_800_072_000.0, True),  # Saturday 05:00, of Friday's window
        (1_800_079_200.0, False),  # Saturday 07:00
        (1_800_136_800.0, False),  # Saturday 23:00
    ],
)
def test_a_mute_window_over_midnight_is_of_the_day_it_begins(wall, holds):
    window = MuteWindow("night", frozenset({4}), 22 * 60, 6 * 60, "Europe/Berlin")
    assert window.holds(wall) is holds


def test_a_mute_window_keeps_back_until_it_ends():
    window = MuteWindow("always", frozenset(range(7)), 0, 24 * 60)
    one = alert()
    telling = Telling(Routing(node(group_wait_s=0.0, mute=(window,))))
    assert telling.turn([one], T0) == []
    telling.reroute(Routing(node(group_wait_s=0.0)))
    assert told(telling.turn([one], T0 + 60)) == ["ops firing cpu:firing"]


STEPS = (Escalation(900.0, "lead"), Escalation(1800.0, "boss"))


def test_nobody_at_it_goes_to_the_next_and_all_hear_the_end():
    one = alert()
    telling = Telling(Routing(node(group_wait_s=0.0, escalate=STEPS)))
    got = play(
        telling, (0, [one]), (899, [one]), (900, [one]), (1800, [one]), (2200, [over(one, T0)])
    )
    assert got[:4] == [
        ["ops firing cpu:firing"], [], ["lead firing cpu:firing"], ["boss firing cpu:firing"]
    ]  # fmt: skip
    assert sorted(got[4]) == [f"{who} resolved cpu:resolved" for who in ("boss", "lead", "ops")]


def test_an_acknowledgement_stops_repeats_and_escalation_until_the_end():
    one = alert()
    telling = Telling(Routing(node(group_wait_s=0.0, escalate=STEPS)))
    telling.turn([one], T0)
    assert telling.acknowledge(one, "ann", "on it", T0 + 10) is not None
    assert told(telling.turn([one], T0 + 11)) == ["ops acknowledged cpu:firing"]
    assert play(telling, (1000, [one]), (9000, [one])) == [[], []]
    again = replace(one, fired_at=T0 + 9500)
    telling.turn([over(one, T0 + 9400)], T0 + 9400)
    assert telling.acks == {}
    telling.turn([again], T0 + 9500)
    assert telling.acknowledge(over(one, T0), "ann", "", T0) is None


def test_a_rule_that_was_taken_away_ends_its_alerts():
    telling = Telling(Routing(node(group_wait_s=0.0)))
    telling.turn([alert()], T0)
    assert told(telling.turn([], T0 + 400)) == ["ops resolved cpu:resolved"]


def test_over_the_limit_becomes_one_digest_with_the_newest_state():
    telling = Telling(Routing(node(group_wait_s=0.0, group_by=(ALL,))))
    allowances = Allowances({"ops": 2})
    alerts = [alert(h=str(n)) for n in range(5)]
    passed = allowances.admit(telling.turn(alerts, T0), T0)
    assert (len(passed), allowances.held_back) == (2, 3)
    ended = [over(each, T0 + 400) for each in alerts]
    assert allowances.admit(telling.turn(ended, T0 + 400), T0 + 400) == []
    restored = Allowances({"ops": 2})
    restored.restore(json.loads(json.dumps(allowances.dump())))
    (digest,) = restored.admit([], T0 + 3601)
    assert digest.kind == "digest"
    assert sorted((a.id, a.state) for a in digest.alerts) == sorted(
        (each.id, "resolved") for each in alerts
    )


# -- the outbox -----------------------------------------------------------------------------


def box(**said) -> Outbox:
    return Outbox(rng=random.Random(1), **said)


def some(count: int, level: str = "warning"):
    telling = Telling(Routing(node(group_wait_s=0.0, group_by=(ALL,))))
    return telling.turn([alert(level=level, h=str(n)) for n in range(count)], T0)


def test_a_failed_attempt_waits_longer_each_time_and_is_given_up():
    outbox = box(give_up_after_s=600.0)
    outbox.put(some(1), 0.0)
    now, waits = 0.0, []
    while (entry := outbox.next_due("ops", now)) is not None:
        assert outbox.next_due("ops", now) is None  # one at a time
        if not outbox.failed(entry, "no", now):
            break
        waits.append(entry.due - now)
        now = entry.due
    assert len(waits) >= 5
    assert all(after > before for before, after in zip(waits[:4], waits[1:5], strict=True))
    assert len(outbox) == 0


def due(outbox: Outbox, now: float) -> Entry:
    entry = outbox.next_due("ops", now)
    assert entry is not None
    return entry


def test_retry_after_is_kept_and_bounded():
    outbox = box()
    outbox.put(some(1), 0.0)
    entry = due(outbox, 0.0)
    outbox.failed(entry, "429", 0.0, retry_after_s=120.0)
    assert entry.due >= 120.0
    entry = due(outbox, entry.due)
    before = entry.due
    outbox.failed(entry, "429", before, retry_after_s=1e9)
    assert entry.due - before <= 900.0


def test_no_end_overtakes_its_beginning_but_other_groups_go_on():
    telling = Telling(Routing(node(group_wait_s=0.0, group_by=(ALL,))))
    one, two = alert(h="1"), alert(h="2")
    outbox = box()
    outbox.put(telling.turn([one, two], T0), T0)
    first = due(outbox, T0)
    outbox.failed(first, "no", T0)
    second = due(outbox, T0)
    assert second.notification.dedup != first.notification.dedup
    outbox.sent(second)
    outbox.put(telling.turn([over(one, T0), two], T0 + 301), T0 + 301)
    first.due = T0 + 1000
    assert outbox.next_due("ops", T0 + 301) is None
    assert outbox.next_due("ops", T0 + 1000) is first


def test_a_full_queue_drops_the_least_and_says_so():
    outbox = box(most=3)
    outbox.put(some(3), 0.0)
    gone = outbox.put([replace(each, id=f"c{each.id}") for each in some(2, "critical")], 1.0)
    assert [each.notification.level for each in gone] == ["warning", "warning"]
    assert len(outbox) == 3


# -- nothing lost, nothing twice ------------------------------------------------------------

NAMES = ("a", "b", "c")
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("fire"), st.sampled_from(NAMES)),
        st.tuples(st.just("worse"), st.sampled_from(NAMES)),
        st.tuples(st.just("end"), st.sampled_from(NAMES)),
        st.tuples(st.just("restart"), st.just("")),
        st.tuples(st.just("crash"), st.just("")),
        st.tuples(st.just("clock"), st.sampled_from(["-86400", "7200", "-3"])),
        st.tuples(st.just("silence"), st.sampled_from(NAMES)),
        st.tuples(st.just("wait"), st.sampled_from(["5", "40", "400", "5000"])),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.sampled_from([("alertname",), ("h",), (ALL,), ("severity",)]))
def test_no_alert_is_lost_or_sent_twice(events, group_by):
    """Whatever happens in between: what fires for long enough is told at its level, once until
    something changes, and what was told and ended is told to have ended, once.
    """
    routing = Routing(node(group_by=group_by, group_wait_s=30.0, repeat_interval_s=1e9))
    telling, outbox = Telling(routing), box()
    now = T0
    firing: dict[str, Alert] = {}
    ended: dict[str, Alert] = {}
    sent: dict[str, Notification] = {}
    state: dict[str, tuple[str, str]] = {}
    counts: Counter[tuple[str, str, str]] = Counter()
    episodes: Counter[str] = Counter()
    heard: Counter[str] = Counter()

    def turn(*, is_crash: bool = False) -> None:
        nonlocal telling, outbox
        outbox.put(telling.turn([*firing.values(), *ended.values()], now), now)
        kept = json.dumps([telling.dump(), outbox.dump()])  # one transaction
        entry = outbox.next_due("ops", now)
        while entry is not None:
            said = entry.notification
            if said.id not in sent:
                sent[said.id] = said
                news = 0
                for each in said.alerts:
                    before = state.get(each.id)
                    state[each.id] = (each.state, each.level)
                    news += before != state[each.id] or episodes[each.id] != heard[each.id]
                    heard[each.id] = episodes[each.id]
                    if before != state[each.id]:
                        counts[each.id, each.state, each.level] += 1
                assert news, "told twice"
            if is_crash:
                break
            outbox.sent(entry)
            entry = outbox.next_due("ops", now)
        if is_crash:
            telling, outbox = Telling(routing), box()
            telling.restore(json.loads(kept)[0])
            outbox.restore(json.loads(kept)[1])

    for what, which in [*events, ("wait", "40"), ("wait", "400"), ("wait", "400")]:
        match what:
            case "fire":
                if which not in firing:
                    firing[which] = alert(h=which, at=now)
                    ended.pop(which, None)
                    episodes[firing[which].id] += 1
            case "worse":
                if which in firing:
                    firing[which] = replace(firing[which], level="critical")
            case "end":
                if which in firing:
                    ended[which] = over(firing.pop(which), now)
            case "restart":
                kept = json.loads(json.dumps([telling.dump(), outbox.dump()]))
                telling, outbox = Telling(routing), box()
                telling.restore(kept[0])
                outbox.restore(kept[1])
            case "clock":
                by = float(which)
                now += by
                telling.shift(by)
                outbox.shift(by)
                firing = {
                    k: replace(a, since=a.since + by, fired_at=(a.fired_at or 0.0) + by)
                    for k, a in firing.items()
                }
                ended = {
                    k: replace(a, resolved_at=(a.resolved_at or 0.0) + by) for k, a in ended.items()
                }
            case "silence":
                telling.silences[which] = Silence(
                    which, matchers(f"h={which}"), now, now + 50, "me", "", now
                )
            case "wait":
                for _ in range(3):
                    now += float(which) / 3
                    turn()
        turn(is_crash=what == "crash")
    telling.silences.clear()
    for _ in range(4):
        now += 301
        turn()

    for one in firing.values():
        assert state.get(one.id) == ("firing", one.level)
    for one in ended.values():
        assert state.get(one.id, ("resolved", ""))[0] == "resolved"
    for (ident, _, _), count in counts.items():
        assert count <= episodes[ident]
    for said in sent.values():
        assert len({each.id for each in said.alerts}) == len(said.alerts)
    quiet = len(sent)
    for _ in range(3):
        now += 400
        turn()
    assert len(sent) == quiet
