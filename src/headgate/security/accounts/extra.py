"""What the accounts need beyond Headgate's own libraries; imported first, to say it plainly."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from headgate.errors import ExtraMissing

NEEDED: Final = ("sqlalchemy", "greenlet", "argon2")

if any(find_spec(name) is None for name in NEEDED):
    raise ExtraMissing("accounts", "the accounts of users")
