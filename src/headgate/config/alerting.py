"""The `alerts:` section: rules, receivers, routes, mute windows.

Theory of operation. The file changes the rules that hold by themselves (`observe.alerts.built_in`)
by name, and adds its own: `rules_of` puts both together. What the section says of an alert's way is
made one `Routing` by `routing_of`. Whether names exist and expressions can be read is asked by
`check_alerts`, because it needs the whole section.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import Field, PlainValidator, WithJsonSchema

from headgate.config.faults import Loc, did_you_mean
from headgate.config.fields import (
    Count,
    Duration,
    FilePath,
    Flag,
    HeaderValue,
    Percent,
    Positive,
    Spec,
    Text,
    Wait,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrList, OneOrMore, OrFalse, Shorthand
from headgate.config.problems import Problem
from headgate.observe.alerts.built_in import BUILT_IN
from headgate.observe.alerts.matching import LabelMatcher, MatcherFault, parse_matcher
from headgate.observe.alerts.muting import DAYS, Inhibition, MuteWindow
from headgate.observe.alerts.receivers import (
    Channel,
    CommandChannel,
    EmailChannel,
    FileChannel,
    HttpChannel,
    LogChannel,
    PagerDutyChannel,
    Receiver,
    SlackChannel,
    TeamsChannel,
    WebhookChannel,
)
from headgate.observe.alerts.rendering import BODY_NAMES
from headgate.observe.alerts.routing import Escalation, Node, Routing
from headgate.observe.alerts.rules import AlertDefaults, Flapping, Level, Rule, Threshold
from headgate.observe.alerts.wording import OWN, TemplateFault, pieces
from headgate.observe.metrics import METRICS
from headgate.units import UnitError, parse_duration, parse_percent, parse_size

if TYPE_CHECKING:
    from headgate.config.model import Config

__all__ = ["LOG", "Alerts", "AlertsSpec", "check_alerts", "receivers_of", "routing_of", "rules_of"]

_D: Final = AlertDefaults()
_F: Final = Flapping()
LOG: Final = "log"
"""A receiver that is there without being written: the log of the control process."""
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_CLOCK: Final = re.compile(r"([01]?[0-9]|2[0-4]):([0-5][0-9])")
_PLAIN: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,9})?(e[+-]?[0-9]{1,2})?", re.IGNORECASE)


# -- texts --------------------------------------------------------------------------------


def _name(value: object) -> str:
    name = text_of(value)
    if not _NAME.fullmatch(name):
        raise refuse("is not a name: letters, digits, - . _ and at most 64 of them")
    return name


def _label(value: object) -> str:
    name = text_of(value)
    if name != "..." and not _LABEL.fullmatch(name):
        raise refuse("is not the name of a label")
    return name


def _bound(value: object) -> float:
    text = text_of(value).strip()
    if _PLAIN.fullmatch(text):
        return float(text)
    for parse in (parse_percent, parse_duration, parse_size):
        try:
            return float(parse(text))
        except UnitError:
            continue
    raise refuse("is no bound; write a number, or 70%, 2s, 1GB")


def _matcher(value: object) -> str:
    text = text_of(value)
    try:
        parse_matcher(text)
    except MatcherFault as error:
        raise refuse(str(error)) from None
    return text


def _clock(value: object) -> int:
    found = _CLOCK.fullmatch(text_of(value).strip())
    minutes = int(found[1]) * 60 + int(found[2]) if found else 24 * 60 + 1
    if minutes > 24 * 60:
        raise refuse('is no time of day; write "22:00"')
    return minutes


def _zone(value: object) -> str:
    name = text_of(value)
    try:
        ZoneInfo(name)
    except Exception:  # noqa: BLE001 - it raises half a dozen kinds for a bad name
        raise refuse("is no time zone; write one such as Europe/Berlin") from None
    return name


def _url(value: object) -> str:
    text = text_of(value).strip()
    try:
        url = urlsplit(text)
        is_fine = url.scheme in {"http", "https"} and bool(url.hostname)
        _ = url.port
    except ValueError:
        is_fine = False
    if not is_fine or any(each.isspace() for each in text):
        raise refuse("is no URL; write https://...")
    return text


Name = Annotated[
    str,
    PlainValidator(_name),
    Words("name"),
    WithJsonSchema({"type": "string", "pattern": r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}$"}),
]
Label = Annotated[str, PlainValidator(_label), Words("label"), WithJsonSchema({"type": "string"})]
Bound = Annotated[
    float,
    PlainValidator(_bound),
    Words("number with or without a unit"),
    WithJsonSchema({"type": ["string", "number"], "examples": [0.7, "70%", "2s", "1GB"]}),
]
MatcherText = Annotated[
    str,
    PlainValidator(_matcher),
    Words("condition"),
    WithJsonSchema({"type": "string", "examples": ['severity="critical"', 'route=~"api-.*"']}),
]
Clock = Annotated[
    int,
    PlainValidator(_clock),
    Words("time of day"),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,2}:[0-9]{2}$"}),
]
Zone = Annotated[str, PlainValidator(_zone), Words("time zone"), WithJsonSchema({"type": "string"})]
Url = Annotated[
    str,
    PlainValidator(_url),
    Words("URL"),
    WithJsonSchema({"type": "string", "pattern": "^https?://.+$"}),
]


# -- rules --------------------------------------------------------------------------------


class FlappingSpec(Spec):
    """When an alert that comes and goes is one notice instead of many. It is held as firing and
    marked until it calms down.
    """

    window: Annotated[Positive, Field(ge=5, le=200)] = _F.window
    """So many evaluations are looked at."""

    begins: Percent = _F.begins_at
    """It flaps when so many of them differ from the one before."""

    ends: Percent = _F.ends_at
    """It no longer does when so few do."""


class AlertRuleSpec(Spec):
    """One alert rule. Under the name of a rule that is there by itself it changes what it says and
    leaves the rest; `false` switches such a rule off.
    """

    expr: Text | None = None
    """An expression as of Prometheus (`docs/reference/query.md`). With `warning` or `critical`
    it is a figure; without, it compares: `queue_length > 100`."""

    warning: Bound | None = None
    """Beyond it the alert is a warning: a number, or with a unit `70%`, `2s`, `1GB`."""

    critical: Bound | None = None
    """Beyond it the alert is critical."""

    clear: Bound | None = None
    """The alert ends only on the good side of this, so that a figure around the bound does not
    end and begin it again and again. By default the lower of the bounds."""

    clear_critical: Bound | None = None
    """The same for the way from critical back to warning."""

    direction: Annotated[Literal["above", "below"] | None, Words("`above` or `below`")] = None
    """Which side of the bounds is bad; `above` unless said."""

    severity: Annotated[
        Literal["info", "warning", "critical"] | None, Words("`info` or `warning` or `critical`")
    ] = None
    """The level of a rule without bounds; `warning` unless said."""

    for_: Annotated[Duration | None, Field(alias="for")] = None
    """It must hold for so long before it fires. 1min unless said."""

    keep_firing_for: Duration | None = None
    """It fires on for so long after it no longer holds. Not at all unless said."""

    cooldown: Duration | None = None
    """After its end it does not fire again for so long, unless at a higher level."""

    flapping: Annotated[FlappingSpec | Literal[False], OrFalse()] | None = None
    """See there; `false` tells every change."""

    labels: dict[Label, Text] = Field(default_factory=dict)
    """Labels to add, for routes and silences; templates over the others: `team: "{owner}"`."""

    summary: Text | None = None
    """One line: `{route}: {value} of the requests fail`. In braces stand labels, `value`, `bound`,
    `severity` and `rule`; `{value:percent}`, `:seconds`, `:bytes` and `:number` say how a figure is
    written."""

    description: Text | None = None
    """More on it; a template as well."""

    runbook: Text | None = None
    """The address of a page that says what to do."""

    unit: Annotated[
        Literal["", "percent", "seconds", "bytes"] | None,
        Words("`percent` or `seconds` or `bytes`"),
    ] = None
    """How figures are written where a template does not say."""

    no_data: Annotated[
        Literal["ok", "keep", "alert"] | None, Words("`ok` or `keep` or `alert`")
    ] = None
    """What it means that there is no figure: all is well (as in Prometheus), the alert stays as it
    is for an hour, or this is an alert itself."""

    on_error: Annotated[Literal["keep", "alert"] | None, Words("`keep` or `alert`")] = None
    """What it means that the expression fails: the alert stays as it is, or this is an alert."""

    most: Annotated[Positive, Field(le=1000)] | None = None
    """Alerts it may have at once, 100 unless said; one more says how many there are beyond."""

    every: Wait | None = None
    """How often it is judged; that of `alerts` unless said."""


# -- receivers ----------------------------------------------------------------------------


_OneOrMaps: Final = OneOrList(
    lambda value: (value,) if isinstance(value, dict) else value,
    {},
    "one mapping or a list of them",
)


def _text_as(name: str) -> Shorthand:
    return Shorthand(
        lambda value: {name: value} if isinstance(value, str) else value,
        {"type": "string"},
        f"or text, which is `{name}`",
    )


class SlackSpec(Spec):
    """A Slack channel, by an incoming webhook. Text is `url`."""

    url: Url
    """The webhook. It is a secret: write `${env:NAME}`."""

    channel: Text = ""
    """Another channel than that of the webhook, where it may be chosen."""

    ca_file: FilePath | None = None
    """The authority that signed the server's certificate; by default those of the system."""


class TeamsSpec(Spec):
    """A channel of Microsoft Teams, by a workflow. Text is `url`."""

    url: Url
    """The workflow's address. It is a secret: write `${env:NAME}`."""

    ca_file: FilePath | None = None
    """The authority that signed the server's certificate; by default those of the system."""


class WebhookSpec(Spec):
    """Any program that takes the JSON of Alertmanager's webhook (version 4). Text is `url`."""

    url: Url
    """Where it is sent to (POST)."""

    secret: Text = ""
    """With it each message is signed: `x-headgate-signature: t=SECONDS,v1=HEX`, the HMAC-SHA256
    of the seconds, a point and the body. Write `${env:NAME}`."""

    headers: dict[Text, HeaderValue] = Field(default_factory=dict)
    """Headers to add."""

    ca_file: FilePath | None = None
    """The authority that signed the server's certificate; by default those of the system."""


class HttpSpec(Spec):
    """Any service that takes JSON of its own shape."""

    url: Url
    """Where it is sent to (POST)."""

    body: Annotated[Any, Words("any JSON")] = None
    """The message. Its texts are templates over `subject`, `text`, `status`, `level`, `colour`,
    `group`, `note`, `link` and `id`."""

    headers: dict[Text, HeaderValue] = Field(default_factory=dict)
    """Headers to add."""

    ca_file: FilePath | None = None
    """The authority that signed the server's certificate; by default those of the system."""


class PagerDutySpec(Spec):
    """Incidents by the Events API v2 of PagerDuty, or a service that speaks it. Text is `key`."""

    key: Text
    """The integration key. It is a secret: write `${env:NAME}`."""

    url: Url = "https://events.pagerduty.com/v2/enqueue"
    """Where events go."""

    ca_file: FilePath | None = None
    """The authority that signed the server's certificate; by default those of the system."""


class EmailSpec(Spec):
    """Mail, as text and HTML. Needs `aiosmtplib`."""

    host: Text
    """The mail server."""

    port: Annotated[Positive, Field(le=65535)] | None = None
    """587 with `starttls`, 465 with `tls`, 25 with `none`."""

    from_: Annotated[Text, Field(alias="from")]
    """The sender."""

    to: Annotated[tuple[Text, ...], OneOrMore]
    """Who gets it."""

    tls: Literal["starttls", "tls", "none"] = "starttls"
    """How the connection is secured; `none` is for a server on this machine."""

    username: Text = ""
    """To log in with."""

    password: Text = ""
    """Write `${env:NAME}`."""

    ca_file: FilePath | None = None
    """The authority that signed the server's certificate; by default those of the system."""


class ReceiverSpec(Spec):
    """Who is told, by one way or several. Each way fails and is tried again on its own."""

    slack: Annotated[SlackSpec, _text_as("url")] | None = None
    """A channel of Slack."""

    teams: Annotated[TeamsSpec, _text_as("url")] | None = None
    """A channel of Microsoft Teams."""

    email: EmailSpec | None = None
    """Mail."""

    webhook: Annotated[WebhookSpec, _text_as("url")] | None = None
    """A program of your own."""

    http: HttpSpec | None = None
    """Another service."""

    pagerduty: Annotated[PagerDutySpec, _text_as("key")] | None = None
    """Incidents."""

    command: Annotated[tuple[Text, ...], OneOrMore] | None = None
    """A program to run for each notification, without a shell. It reads the webhook's JSON from
    its standard input."""

    file: Text | None = None
    """A file that gets a line of JSON for each."""

    log: Flag = False
    """The log of the control process."""

    per_hour: Count | None = None
    """So many notifications in an hour; what comes after is one digest later. 60 unless said, and
    0 (no bound) with `pagerduty` or `webhook`, which keep order by themselves."""

    resolved: Flag = True
    """Whether ends are told."""


# -- routes -------------------------------------------------------------------------------


class EscalationSpec(Spec):
    """Tell somebody else when nobody has acknowledged."""

    after: Wait = _D.escalate_after_s
    """How long the alert has been told without an answer (`headgate alerts ack`)."""

    to: Name
    """The receiver."""


class AlertWaySpec(Spec):
    to: Name | None = None
    """The receiver; that of the route above unless said."""

    group_by: Annotated[tuple[Label, ...], OneOrMore] | None = None
    """Alerts with the same values of these labels are one notification; `...` keeps all apart."""

    group_wait: Duration | None = None
    """How long the first notification of a group waits for more alerts. 30s unless said."""

    group_interval: Duration | None = None
    """How long the next one waits when alerts came or went. 5min unless said."""

    repeat_interval: Wait | None = None
    """How often it is told that nothing has changed. 4h unless said."""

    mute: Annotated[tuple[Name, ...], OneOrMore] | None = None
    """Mute windows, by name, in which nothing new is told."""

    escalate: Annotated[tuple[EscalationSpec, ...], _OneOrMaps] | None = None
    """Further receivers when nobody acknowledges."""


class AlertSubrouteSpec(AlertWaySpec):
    """A route below a route."""

    match: Annotated[tuple[MatcherText, ...], OneOrMore] = ()
    """Conditions on labels, all of which must hold: `severity="critical"`."""

    go_on: Flag = False
    """Whether the routes after this one are asked as well."""


class AlertRouteSpec(AlertSubrouteSpec):
    """Some alerts take another way. The first route whose conditions hold takes an alert."""

    routes: tuple[AlertSubrouteSpec, ...] = ()
    """Ways of some of these; what they do not say they have from here."""


class AlertRootSpec(AlertWaySpec):
    """The way of all alerts that no route below takes."""

    routes: tuple[AlertRouteSpec, ...] = ()
    """Ways of some alerts; what they do not say they have from here."""


class InhibitSpec(Spec):
    """While one alert fires, others that it explains are not told."""

    source: Annotated[tuple[MatcherText, ...], OneOrMore]
    """Conditions on the alert that explains."""

    target: Annotated[tuple[MatcherText, ...], OneOrMore]
    """Conditions on those that it explains."""

    equal: Annotated[tuple[Label, ...], OneOrMore] = ()
    """Labels that both must have the same value of."""


class MuteSpec(Spec):
    """Hours of the week in which routes that name it stay quiet."""

    days: Annotated[
        tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...], OneOrMore
    ] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    """Days; of a window over midnight that of its beginning."""

    from_: Annotated[Clock, Field(alias="from")] = 0
    """`"22:00"`"""

    to: Clock = 24 * 60
    """`"06:00"`, which may be of the next day."""

    zone: Zone = "UTC"
    """Of which clock, such as `Europe/Berlin`."""


class HeartbeatSpec(Spec):
    """A sign of life while rules are judged, for a service that raises the alarm without it."""

    url: Url | None = None
    """Asked for with GET. It may be a secret: write `${env:NAME}`."""

    to: Name | None = None
    """Or a receiver that is told."""

    every: Wait = _D.heartbeat_s
    """How often."""


class AlertsSpec(Spec):
    """Who is told when something is wrong. A dozen rules hold by themselves (processor 70/90 %,
    memory 80/95 %, response time 2/5 s, error rate 5/10 %, cache hit rate 80/60 %, instances down,
    open breakers, certificates, restarts, disk and more); without receivers they are told in the
    log and by `headgate alerts`.
    """

    every: Wait = _D.every_s
    """How often rules are judged."""

    timeout: Wait = _D.evaluation_timeout_s
    """How long one rule may take. A slow one delays no other."""

    rules: dict[Name, Annotated[AlertRuleSpec | Literal[False], OrFalse()]] = Field(
        default_factory=dict
    )
    """Rules by name: your own, changes to those that are there, or `false` to switch one off."""

    built_in: Flag = True
    """Whether rules hold that nobody wrote."""

    receivers: dict[Name, ReceiverSpec] = Field(default_factory=dict)
    """Who is told, by name."""

    route: AlertRootSpec = AlertRootSpec()
    """Which alert goes to whom."""

    inhibit: Annotated[tuple[InhibitSpec, ...], _OneOrMaps] = ()
    """Alerts that explain others."""

    mute: dict[Name, MuteSpec] = Field(default_factory=dict)
    """Hours of the week, by name."""

    heartbeat: HeartbeatSpec | None = None
    """A sign of life. Off unless said."""

    send_timeout: Wait = _D.timeout_s
    """How long one attempt to send may take."""

    give_up_after: Wait = _D.give_up_after_s
    """How long a notification is tried to be sent."""

    keep_notifications: Annotated[Positive, Field(le=1_000_000)] = _D.notifications_kept
    """So many attempts are kept in the log of notifications."""

    url: Url | None = None
    """Where readers of notifications reach this gateway's admin API, for links."""

    links: dict[Name, Text] = Field(default_factory=dict)
    """Further links in notifications, by name: URLs with `{expr}`, `{rule}`, `{id}`, `{route}`,
    `{service}`, `{from}` and `{to}` (seconds since 1970)."""


Alerts = Annotated[AlertsSpec | Literal[False], OrFalse()]
"""`alerts: false` judges no rules."""


# -- to values ----------------------------------------------------------------------------


def rules_of(spec: AlertsSpec) -> tuple[Rule, ...]:
    """Those that hold by themselves, as the file changes them, then its own."""
    made = []
    if spec.built_in:
        for rule in BUILT_IN:
            said = spec.rules.get(rule.name)
            if said is False:
                continue
            base = replace(rule, every_s=spec.every)
            made.append(_changed(base, said) if said is not None else base)
    names = {rule.name for rule in made}
    for name, said in spec.rules.items():
        if said is not False and name not in names and said.expr is not None:
            base = Rule(name=name, expr=said.expr, for_s=_D.for_s, every_s=spec.every)
            made.append(_changed(base, said))
    return tuple(made)


def _changed(rule: Rule, said: AlertRuleSpec) -> Rule:
    simple = {
        "expr": said.expr,
        "direction": said.direction,
        "level": said.severity,
        "for_s": said.for_,
        "keep_firing_s": said.keep_firing_for,
        "cooldown_s": said.cooldown,
        "summary": said.summary,
        "description": said.description,
        "runbook": said.runbook,
        "unit": said.unit,
        "no_data": said.no_data,
        "on_error": said.on_error,
        "most": said.most,
        "every_s": said.every,
    }
    changes: dict[str, Any] = {name: each for name, each in simple.items() if each is not None}
    if said.labels:
        changes["labels"] = tuple(sorted({**dict(rule.labels), **said.labels}.items()))
    if said.flapping is not None:
        flaps = said.flapping
        changes["flapping"] = (
            Flapping(flaps.window, flaps.begins, flaps.ends) if flaps is not False else None
        )
    made = replace(rule, **changes)
    return replace(made, thresholds=_thresholds(made, said))


def _thresholds(rule: Rule, said: AlertRuleSpec) -> tuple[Threshold, ...]:
    known = {each.level: each for each in rule.thresholds}
    if said.expr is not None and said.warning is None and said.critical is None:
        known = {}  # another expression: the bounds were of the one before
    clears: dict[Level, float | None] = {}
    for level, bound in (("warning", said.warning), ("critical", said.critical)):
        if bound is not None:
            known[level] = Threshold(level, bound, bound)  # type: ignore[arg-type,index]
    levels: list[Level] = [each for each in ("warning", "critical") if each in known]
    if levels and said.clear is not None:
        clears[levels[0]] = said.clear
    if said.clear_critical is not None:
        clears["critical"] = said.clear_critical
    found = []
    for level in levels:
        each = known[level]
        clear = clears.get(level)
        found.append(each if clear is None else replace(each, clear=clear))
    return tuple(found)


def receivers_of(spec: AlertsSpec) -> dict[str, Receiver]:
    found = {name: _receiver(name, said) for name, said in spec.receivers.items()}
    found.setdefault(LOG, Receiver(LOG, (LogChannel(),)))
    return found


def _receiver(name: str, said: ReceiverSpec) -> Receiver:
    ways: list[Channel] = []
    if (slack := said.slack) is not None:
        ways.append(SlackChannel(slack.url, slack.channel, _path(slack.ca_file)))
    if (teams := said.teams) is not None:
        ways.append(TeamsChannel(teams.url, _path(teams.ca_file)))
    if (mail := said.email) is not None:
        port = mail.port or {"starttls": 587, "tls": 465, "none": 25}[mail.tls]
        ways.append(
            EmailChannel(
                host=mail.host,
                sender=mail.from_,
                to=mail.to,
                port=port,
                tls=mail.tls,
                username=mail.username,
                password=mail.password,
                ca_file=_path(mail.ca_file),
            )
        )
    if (hook := said.webhook) is not None:
        ways.append(WebhookChannel(hook.url, hook.secret, hook.headers, _path(hook.ca_file)))
    if (other := said.http) is not None:
        ways.append(HttpChannel(other.url, other.body, other.headers, _path(other.ca_file)))
    if (pager := said.pagerduty) is not None:
        ways.append(PagerDutyChannel(pager.key, pager.url, _path(pager.ca_file)))
    if said.command:
        ways.append(CommandChannel(said.command))
    if said.file is not None:
        ways.append(FileChannel(said.file))
    if said.log:
        ways.append(LogChannel())
    per_hour = said.per_hour
    if per_hour is None:
        keeps_order = said.pagerduty is not None or said.webhook is not None
        per_hour = 0 if keeps_order else _D.per_hour
    return Receiver(name, tuple(ways), per_hour, said.resolved)


def _path(name: Any) -> str | None:
    return None if name is None else str(name)


def routing_of(spec: AlertsSpec) -> Routing:
    windows = {
        name: MuteWindow(
            name, frozenset(DAYS.index(day) for day in said.days), said.from_, said.to, said.zone
        )
        for name, said in spec.mute.items()
    }
    only = next(iter(spec.receivers)) if len(spec.receivers) == 1 else LOG
    top = Node("root", only)
    root = _node("root", top, spec.route, (), windows, goes_on=False)
    inhibitions = tuple(
        Inhibition(_matchers(each.source), _matchers(each.target), each.equal)
        for each in spec.inhibit
    )
    per_hour = {name: each.per_hour for name, each in receivers_of(spec).items()}
    return Routing(root, inhibitions, per_hour)


def _matchers(texts: tuple[str, ...]) -> tuple[LabelMatcher, ...]:
    return tuple(parse_matcher(each) for each in texts)


def _node(
    where: str,
    above: Node,
    said: AlertWaySpec,
    matchers: tuple[LabelMatcher, ...],
    windows: Mapping[str, MuteWindow],
    *,
    goes_on: bool,
) -> Node:
    def or_above(value: Any, name: str) -> Any:
        return getattr(above, name) if value is None else value

    mute = above.mute
    if said.mute is not None:
        mute = tuple(windows[name] for name in said.mute if name in windows)
    escalate = above.escalate
    if said.escalate is not None:
        steps = sorted(said.escalate, key=lambda each: each.after)
        escalate = tuple(Escalation(each.after, each.to) for each in steps)
    node = Node(
        id=where,
        receiver=or_above(said.to, "receiver"),
        matchers=matchers,
        group_by=or_above(said.group_by, "group_by"),
        group_wait_s=or_above(said.group_wait, "group_wait_s"),
        group_interval_s=or_above(said.group_interval, "group_interval_s"),
        repeat_interval_s=or_above(said.repeat_interval, "repeat_interval_s"),
        mute=mute,
        escalate=escalate,
        goes_on=goes_on,
    )
    below = []
    for child in getattr(said, "routes", ()):
        own = _matchers(child.match)
        # By what it is for and not by its place, so that a route added before it moves no group.
        ident = f"{where}/{','.join(str(each) for each in own)}>{child.to or node.receiver}"
        below.append(_node(ident, node, child, own, windows, goes_on=child.go_on))
    return replace(node, routes=tuple(below))


# -- checks -------------------------------------------------------------------------------


def check_alerts(config: Config) -> Iterator[Problem]:
    """What single fields cannot say: names, expressions, templates, bounds."""
    spec = getattr(config, "alerts", None)
    if not isinstance(spec, AlertsSpec):
        return
    yield from _check_rules(spec)
    yield from _check_receivers(spec)
    known = {*spec.receivers, LOG}
    yield from _check_way(spec, spec.route, ("alerts", "route"), known)
    if spec.heartbeat is not None:
        loc: Loc = ("alerts", "heartbeat")
        if (spec.heartbeat.url is None) == (spec.heartbeat.to is None):
            yield Problem(loc, "needs one of `url` and `to`")
        elif spec.heartbeat.to is not None and spec.heartbeat.to not in known:
            yield _unknown((*loc, "to"), spec.heartbeat.to, known)
    for name, text in spec.links.items():
        names = ("expr", "rule", "id", "route", "service", "from", "to")
        yield from _check_template(("alerts", "links", name), text, names)


def _unknown(loc: Loc, name: str, known: set[str]) -> Problem:
    hint = did_you_mean(name, known) or f"receivers are {', '.join(sorted(known))}"
    return Problem(loc, "no receiver has the name {value}", hint)


def _check_rules(spec: AlertsSpec) -> Iterator[Problem]:
    there = {rule.name: rule for rule in BUILT_IN} if spec.built_in else {}
    made = {rule.name: rule for rule in rules_of(spec)}
    for name, said in spec.rules.items():
        loc: Loc = ("alerts", "rules", name)
        if said is False:
            if name not in there:
                hint = did_you_mean(name, there) or f"there are {', '.join(there)}"
                yield Problem(loc, "no such rule is there to switch off", hint, at_key=True)
            continue
        if said.expr is None and name not in there:
            hint = did_you_mean(name, there) or "write expr: and an expression"
            yield Problem(
                loc, "has no `expr`, and no rule of this name is there", hint, at_key=True
            )
            continue
        rule = made[name]
        if said.expr is not None:
            yield from _check_expr((*loc, "expr"), said.expr, bool(rule.thresholds))
        yield from _check_bounds(loc, rule, said)
        for field in ("summary", "description"):
            text = getattr(said, field)
            if text is not None:
                yield from _check_template((*loc, field), text, None)
        for label, text in said.labels.items():
            at: Loc = (*loc, "labels", label)
            if label in ("alertname", "severity", *OWN):
                yield Problem(at, f"{label} is a label that rules cannot set", at_key=True)
            yield from _check_template(at, text, None, refused=("value", "bound", "severity"))
        if rule.no_data != "ok" and not rule.thresholds and said.no_data is not None:
            yield Problem(
                (*loc, "no_data"),
                "{value} has no meaning where the expression compares: no sample is its good case",
                "take the comparison out of `expr` and write it as `warning` or `critical`",
                warning=True,
            )


def _check_bounds(loc: Loc, rule: Rule, said: AlertRuleSpec) -> Iterator[Problem]:
    bounds = {each.level: each for each in rule.thresholds}
    low, high = bounds.get("warning"), bounds.get("critical")
    if (
        low
        and high
        and not (low.bound <= high.bound if rule.direction == "above" else low.bound >= high.bound)
    ):
        field = "critical" if said.critical is not None else "warning"
        other = "less" if rule.direction == "above" else "more"
        yield Problem(
            (*loc, field),
            f"critical is {other} than warning, so there is no warning before it",
            "swap them, or write direction: below where small figures are bad",
        )
    for each in rule.thresholds:
        if rule.is_beyond(each.clear, each.bound):
            field = "clear" if said.clear is not None else each.level
            yield Problem(
                (*loc, field),
                f"the alert would end at a worse figure than it begins ({each.level})",
                "`clear` lies on the good side of the bound",
            )
    if (said.clear is not None or said.clear_critical is not None) and not rule.thresholds:
        yield Problem((*loc, "clear"), "needs `warning` or `critical`", at_key=True)
    if said.severity is not None and rule.thresholds:
        yield Problem(
            (*loc, "severity"),
            "has no effect beside `warning` and `critical`",
            at_key=True,
            warning=True,
        )
    if said.flapping and said.flapping.ends >= said.flapping.begins:
        yield Problem((*loc, "flapping", "ends"), "is not less than `begins`")


def _check_expr(loc: Loc, expr: str, has_bounds: bool) -> Iterator[Problem]:
    try:
        from headgate.observe.query import QueryFault, parse, selectors
    except ImportError:  # numpy is not there; whoever judges rules says so
        return
    try:
        tree = parse(expr)
    except QueryFault as error:
        yield Problem(loc, f"{error.message} (at character {error.position + 1})", error.hint)
        return
    for each in selectors(tree):
        name = getattr(each, "name", "")
        if name.startswith("headgate_") and name not in _known_names():
            hint = did_you_mean(name, _known_names())
            yield Problem(loc, f"there is no metric {name}", hint, warning=True)
    compares = re.search(r"[<>]|[=!]=(?!~)", re.sub(r'"[^"]*"|\'[^\']*\'|\{[^}]*\}', "", expr))
    if not has_bounds and compares is None and not expr.lstrip().startswith(("absent", "changes")):
        yield Problem(
            loc,
            "has no comparison, so it is an alert for every series at any value",
            "add one as in x > 100, or write `warning:` or `critical:`",
            warning=True,
        )


def _known_names() -> set[str]:
    names = set()
    for metric in METRICS.values():
        if metric.kind == "histogram":
            names |= {f"{metric.name}_{ending}" for ending in ("bucket", "sum", "count")}
        else:
            names.add(metric.name)
    return names


def _check_template(
    loc: Loc, text: str, known: tuple[str, ...] | None, refused: tuple[str, ...] = ()
) -> Iterator[Problem]:
    try:
        for _, name, _ in pieces(text):
            if name is not None and name in refused:
                hint = "the alert would be another one at each evaluation"
                yield Problem(loc, f"a template of a label cannot hold the {name}", hint)
            if name is not None and known is not None and name not in known:
                hint = did_you_mean(name, known) or f"known are {', '.join(known)}"
                yield Problem(loc, f"nothing is known here as {name}", hint)
    except TemplateFault as error:
        yield Problem(loc, str(error))


def _check_receivers(spec: AlertsSpec) -> Iterator[Problem]:
    for name, said in spec.receivers.items():
        loc: Loc = ("alerts", "receivers", name)
        if not _receiver(name, said).channels:
            yield Problem(
                loc,
                "has no way to be told",
                "write slack:, email:, webhook: or another",
                at_key=True,
            )
        if said.http is not None:
            for at, text in _texts(said.http.body, ()):
                yield from _check_template((*loc, "http", "body", *at), text, BODY_NAMES)
        for kind in ("slack", "teams", "webhook", "http", "pagerduty"):
            url = getattr(getattr(said, kind), "url", "")
            if url.startswith("http://") and urlsplit(url).hostname not in _LOOPBACK:
                yield Problem(
                    (*loc, kind), "goes over the network in the clear", "use https://", warning=True
                )
        mail = said.email
        if mail is not None:
            if mail.password and not mail.username:
                yield Problem((*loc, "email"), "has a `password` and no `username`")
            if mail.tls == "none" and mail.host not in _LOOPBACK:
                hint = "write tls: starttls or tls: tls"
                at_tls: Loc = (*loc, "email", "tls")
                yield Problem(
                    at_tls, "mail and log-in go in the clear", hint, warning=not mail.password
                )
            for at_to, address in enumerate(mail.to):
                if "@" not in address or any(each in address for each in "\r\n"):
                    yield Problem((*loc, "email", "to", at_to), "{value} is no address")


_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def _texts(body: Any, at: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(body, str):
        yield at, body
    elif isinstance(body, Mapping):
        for name, each in body.items():
            yield from _texts(each, (*at, str(name)))
    elif isinstance(body, (list, tuple)):
        for index, each in enumerate(body):
            yield from _texts(each, (*at, index))


def _check_way(spec: AlertsSpec, way: AlertWaySpec, loc: Loc, known: set[str]) -> Iterator[Problem]:
    if way.to is not None and way.to not in known:
        yield _unknown((*loc, "to"), way.to, known)
    for at, step in enumerate(way.escalate or ()):
        if step.to not in known:
            yield _unknown((*loc, "escalate", at, "to"), step.to, known)
        elif step.to == way.to:
            yield Problem(
                (*loc, "escalate", at, "to"),
                "{value} is who was told before: a circle",
                "name somebody else",
            )
    for at, name in enumerate(way.mute or ()):
        if name not in spec.mute:
            hint = did_you_mean(name, spec.mute) or "write it under alerts: mute:"
            yield Problem((*loc, "mute", at), "no mute window has the name {value}", hint)
    seen: dict[tuple[str, ...], int] = {}
    for at, child in enumerate(getattr(way, "routes", ())):
        below: Loc = (*loc, "routes", at)
        if not child.match and not child.go_on and at + 1 < len(getattr(way, "routes", ())):
            yield Problem(
                below, "takes every alert, so the routes after it never do", "write match:"
            )
        first = seen.setdefault(tuple(sorted(child.match)), at)
        if first != at and not way.routes[first].go_on:  # type: ignore[attr-defined]
            yield Problem(
                below,
                "never takes an alert: one before it has the same conditions",
                see=(*loc, "routes", first),
                warning=True,
            )
        yield from _check_way(spec, child, below, known)
