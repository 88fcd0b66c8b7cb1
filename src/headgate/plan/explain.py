"""Why a request goes where it goes, for people: `headgate explain` and the admin API.

Theory of operation
-------------------
The slow twin of the router: it looks at every rule, says for each thing a rule asks for whether
the request has it, and sorts what it found:

1. the route that takes the request;
2. routes that would take it as well but come later, each with what decided against it;
3. near misses, nearest first: those whose path and host fit and that only lack a method or a
   condition, then those whose host does not fit, then those whose path comes close.

It does not decide: the answer is the router's own, so that an explanation can never differ from
what a request gets.

The result is frozen and holds only what JSON can say. What a client sent is shown cut short and
without control characters, as it ends up in terminals.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from headgate.plan.conditions import Check, MatchInput, shown
from headgate.plan.match import DECIDED_BY, Matched, MatchRule, Missed, precedence
from headgate.plan.paths import ExactPath, PrefixPath, RegexPath, TemplatePath, split_path

__all__ = [
    "Account",
    "Candidate",
    "Explanation",
    "Origin",
    "PolicyLine",
    "account",
    "explain_roles",
]

NEAR_MISSES: Final = 20

Origin = Literal["route", "service", "global", "default"]
Verdict = Literal["matched", "later", "missed"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One route, seen from one request."""

    index: int
    name: str
    verdict: Verdict
    reasons: tuple[str, ...]
    """Why: for a miss what does not hold, otherwise what does."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the router says about a request, and about the routes around it."""

    method: str
    host: str
    path: str
    query: str
    client_ip: str
    answer: Matched | Missed
    candidates: tuple[Candidate, ...]
    """The route that matched, those behind it, then near misses, nearest first."""
    omitted: int
    """How many further routes do not match and are not listed."""


@dataclass(frozen=True, slots=True)
class PolicyLine:
    """A policy that applies, and which level of the file said so."""

    policy: str
    value: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Account:
    """An explanation in a form that can be written as JSON or read as text."""

    request: str
    outcome: Literal["matched", "not found", "method not allowed"]
    route: str | None
    target: str | None
    params: dict[str, str]
    allow: tuple[str, ...]
    client_bound: bool
    candidates: tuple[Candidate, ...]
    omitted: int
    policies: tuple[PolicyLine, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and scalars."""
        document = asdict(self)
        document["allow"] = list(self.allow)
        document["policies"] = [asdict(line) for line in self.policies]
        document["candidates"] = [
            {**asdict(candidate), "reasons": list(candidate.reasons)}
            for candidate in self.candidates
        ]
        return document

    def __str__(self) -> str:
        """Return the text that `headgate explain` prints."""
        lines = [self.request, f"  {self._headline()}"]
        lines += [f"    {name} = {shown(value)}" for name, value in self.params.items()]
        if self.client_bound:
            lines.append("  The client's address took part in this decision.")
        for verdict, title in _TITLES.items():
            listed = [c for c in self.candidates if c.verdict == verdict]
            if listed:
                lines += ["", title]
                for candidate in listed:
                    lines.append(f"  {candidate.name}")
                    lines += [f"    {reason}" for reason in candidate.reasons]
        if self.omitted:
            lines += ["", f"{self.omitted} more {_routes(self.omitted)} further away."]
        if self.policies:
            lines += ["", "Policies"]
            width = max(len(line.policy) for line in self.policies)
            lines += [
                f"  {line.policy:{width}}  {line.value}  (from {_ORIGINS[line.origin]})"
                for line in self.policies
            ]
        return "\n".join(lines) + "\n"

    def _headline(self) -> str:
        if self.outcome == "matched":
            return f"-> {self.route}" + (f"  (to {self.target})" if self.target else "")
        if self.outcome == "method not allowed":
            return f"-> 405 Method Not Allowed; allowed: {', '.join(self.allow)}"
        return "-> 404 Not Found: no route takes this request"


_TITLES: Final[dict[Verdict, str]] = {
    "matched": "Matched because",
    "later": "Would match too, but come later",
    "missed": "Do not match, nearest first",
}
_ORIGINS: Final[dict[Origin, str]] = {
    "route": "the route",
    "service": "the service",
    "global": "the top of the file",
    "default": "the defaults",
}


def _routes(count: int) -> str:
    return "route does not match, and is" if count == 1 else "routes do not match, and are"


def account(
    explanation: Explanation,
    policies: Iterable[tuple[str, str, Origin]] = (),
    target: str | None = None,
) -> Account:
    """Join an explanation with the policies of its route; the caller knows where they are from.

    `target` says in words what the route does: a service, a redirect, an answer.
    """
    answer = explanation.answer
    query = f"?{explanation.query}" if explanation.query else ""
    request = f"{explanation.method} {explanation.host}{explanation.path}{query}"
    first = next((c for c in explanation.candidates if c.verdict == "matched"), None)
    matched = isinstance(answer, Matched)
    allow = answer.allow if isinstance(answer, Missed) else ()
    return Account(
        request="".join(c if c.isprintable() else "?" for c in request),
        outcome="matched" if matched else "method not allowed" if allow else "not found",
        route=first.name if first is not None else None,
        target=target,
        params=dict(answer.params) if isinstance(answer, Matched) else {},
        allow=allow,
        client_bound=answer.client_bound,
        candidates=explanation.candidates,
        omitted=explanation.omitted,
        policies=tuple(PolicyLine(*line) for line in policies),
    )


def explain_roles(
    roles: Sequence[tuple[MatchRule, str | None]],
    request: MatchInput,
    answer: Matched | Missed,
    most: int = NEAR_MISSES,
) -> Explanation:
    """Explain `answer`, given the router's rules in order of precedence, one for each host."""
    takers: list[tuple[MatchRule, str | None]] = []
    taken: set[int] = set()
    missed: list[tuple[tuple[float, ...], MatchRule, tuple[Check, ...]]] = []
    seen: set[int] = set()
    for place, (rule, host) in enumerate(roles):
        if rule.index in taken:
            continue
        checks = rule.checks(request)
        if all(check.holds for check in checks):
            # The role that counts is the first whose own host fits.
            if host is None or _host_is(host, request.host):
                takers.append((rule, host))
                taken.add(rule.index)
        elif rule.index not in seen:
            seen.add(rule.index)
            missed.append(((*_distance(rule, request, checks), place), rule, checks))
    missed.sort(key=lambda item: item[0])

    candidates: list[Candidate] = []
    if takers:
        first, first_host = takers[0]
        candidates.append(_matched(first, request))
        candidates += [
            Candidate(rule.index, rule.name, "later", (_lost(first, first_host, rule, host),))
            for rule, host in takers[1 : most + 1]
        ]
    candidates += [
        Candidate(rule.index, rule.name, "missed", tuple(c.text for c in checks if not c.holds))
        for _, rule, checks in missed[:most]
    ]
    listed_later = max(0, len(takers) - 1 - most)
    return Explanation(
        method=request.method,
        host=request.host,
        path=request.path,
        query=request.query,
        client_ip=request.client_ip,
        answer=answer,
        candidates=tuple(candidates),
        omitted=max(0, len(missed) - most) + listed_later,
    )


def _host_is(wanted: str, host: str) -> bool:
    return host.endswith(wanted[1:]) if wanted.startswith("*.") else wanted == host


def _matched(rule: MatchRule, request: MatchInput) -> Candidate:
    reasons = tuple(check.text for check in rule.checks(request))
    return Candidate(rule.index, rule.name, "matched", reasons or ("it takes every request",))


def _lost(
    winner: MatchRule, winner_host: str | None, loser: MatchRule, loser_host: str | None
) -> str:
    pairs = zip(
        DECIDED_BY, precedence(winner, winner_host), precedence(loser, loser_host), strict=True
    )
    decided = next((word for word, ours, theirs in pairs if ours != theirs), DECIDED_BY[-1])
    return f'"{winner.name}" comes first: {decided}'


def _distance(
    rule: MatchRule, request: MatchInput, checks: Sequence[Check]
) -> tuple[float, float, float]:
    """How far a rule is from taking the request; less is nearer."""
    failed = {check.what for check in checks if not check.holds}
    if "path" not in failed:
        return (1.0 if "host" in failed else 0.0, float(len(failed)), 0.0)
    return (
        3.0 if "host" in failed else 2.0,
        -_likeness(rule, request.path),
        float(len(failed)),
    )


def _likeness(rule: MatchRule, path: str) -> float:
    """Which share of a rule's path the request's path begins with."""
    pattern = rule.path
    if isinstance(pattern, TemplatePath):
        wanted = pattern.segments
        pairs = zip(wanted, split_path(path, len(wanted)), strict=False)
        fitting = sum(w == s if isinstance(w, str) else w.takes(s) for w, s in pairs)
        return fitting / len(wanted)
    if isinstance(pattern, (ExactPath, PrefixPath)):
        text = pattern.path
    else:
        text = pattern.literal if isinstance(pattern, RegexPath) else ""
    alike = 0
    for ours, theirs in zip(text, path, strict=False):
        if ours != theirs:
            break
        alike += 1
    return alike / len(text) if text else 0.0
