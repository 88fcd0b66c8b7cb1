"""Fuzz the route table: nothing a client sends raises, and it agrees with the plain reading."""

from __future__ import annotations

from headgate.config.routes import MatchSpec
from headgate.plan.explain import account
from headgate.plan.match import Matched
from headgate.plan.router import MatchInput, Router, rule_from_spec
from headgate.wire.target import Target, parse_target
from tests.plan.reference_router import Asked, decide

SPECS = [
    ({"path": "/"}, 0),
    ({"path": "/a"}, 0),
    ({"path": "/a/b/", "methods": ["GET", "PUT"]}, 0),
    ({"path": "/a/{x}"}, 0),
    ({"path": "/a/{x:int}/c"}, 0),
    ({"path": "/{x:slug}/b/{rest:path}"}, 0),
    ({"exact": "/a/b/c"}, 0),
    ({"regex": "/r[0-9]+/(?P<n>.*)"}, 0),
    ({"regex": "(?:/x)+", "headers": {"p": "~.+"}}, 1),
    ({"path": "/q", "query": {"p": "1", "q": {"absent": True}}}, 0),
    ({"path": "/k", "cookies": {"p": "~[0-9]+"}}, 0),
    ({"host": "a.b.c", "path": "/a"}, 0),
    ({"host": "*.b.c", "path": "/a", "client_ip": "10.0.0.0/8"}, 0),
    ({"host": "*.c", "path": "/a", "methods": ["POST"]}, 0),
]
MODELS = [(MatchSpec.model_validate(spec), priority) for spec, priority in SPECS]
ROUTER = Router([rule_from_spec(s, i, f"r{i}", p) for i, (s, p) in enumerate(MODELS)])
SEEDS = (
    b"GET|a.b.c|/a/b/c|p=1||10.0.0.1",
    b"PUT|x.b.c|/a/7/c|q|p=1; q=2|11.0.0.1",
    b"POST|c|/r12/a%2Fb|p=1&p=2|p=7|",
    b"GET||/x/x/x|||::ffff:10.0.0.1",
)


def one(data: bytes) -> None:
    method, host, raw, query, cookie, client_ip = (data.split(b"|") + [b""] * 6)[:6]
    target = parse_target("GET", raw)
    if not isinstance(target, Target):
        return
    words = [part.decode("latin-1") for part in (method, host, query, cookie, client_ip)]
    headers = [("p", words[3]), ("cookie", words[3])]
    lines = tuple((name.encode(), value.encode("latin-1")) for name, value in headers)
    request = MatchInput(words[0], words[1], target.path, words[2], lines, words[4])
    answer = ROUTER.match(request)
    if words[4] in {"10.0.0.1", "11.0.0.1"} and '"' not in words[3]:  # what the plain reading reads
        asked = Asked(words[0], words[1], target.path, words[2], headers, words[4])
        index, rest = decide(MODELS, asked)
        if isinstance(answer, Matched):
            assert (answer.index, answer.params) == (index, rest), data
        else:
            assert (index, list(answer.allow)) == (None, rest), data
    text = str(account(ROUTER.explain(request)))
    assert all(char.isprintable() or char == "\n" for char in text), data
