"""Rate limiters and a limiter of concurrency: pure, one small state a key.

`make(rules)` gives the limiter that the rules name; `LIMITERS` is the table behind it. `RuleSet`
decides several at once, `home_of` and `leased_of` make what shares a limit between workers and
machines. What tells clients is in `headers`, what makes keys in `keys`.
"""

from headgate.policy.limiter.concurrency import Concurrency
from headgate.policy.limiter.fixed_window import FixedWindow
from headgate.policy.limiter.gcra import Gcra
from headgate.policy.limiter.lease import (
    Ask,
    Back,
    FailMode,
    Grant,
    Home,
    Leased,
    LeasedSnapshot,
    LeaseRules,
    home_of,
    leased_of,
)
from headgate.policy.limiter.rules import (
    SLACK_S,
    Algorithm,
    Limiter,
    LimiterSnapshot,
    LimitRules,
    Verdict,
)
from headgate.policy.limiter.ruleset import Decision, Pending, Rule, RuleSet
from headgate.policy.limiter.sliding_log import SlidingLog
from headgate.policy.limiter.sliding_window import SlidingWindow
from headgate.policy.limiter.table import LIMITERS, make
from headgate.policy.limiter.token_bucket import TokenBucket

__all__ = [
    "LIMITERS",
    "SLACK_S",
    "Algorithm",
    "Ask",
    "Back",
    "Concurrency",
    "Decision",
    "FailMode",
    "FixedWindow",
    "Gcra",
    "Grant",
    "Home",
    "LeaseRules",
    "Leased",
    "LeasedSnapshot",
    "LimitRules",
    "Limiter",
    "LimiterSnapshot",
    "Pending",
    "Rule",
    "RuleSet",
    "SlidingLog",
    "SlidingWindow",
    "TokenBucket",
    "Verdict",
    "home_of",
    "leased_of",
    "make",
]
