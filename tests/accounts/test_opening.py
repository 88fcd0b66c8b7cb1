"""What `Accounts(...)` refuses, and what it needs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headgate.security.accounts import Accounts, AccountsError, InvalidToken, Rules
from tests.accounts.desk import EMAIL, ISSUER, PASSWORD, QUICK, SECRET

ROOT = Path(__file__).resolve().parents[2]


async def send(kind, user, token):
    pass


GOOD = {"issuer": ISSUER, "secret": SECRET, "send": send}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"database": "mysql://x/y"}, "SQLite or PostgreSQL, not in mysql"),
        ({"secret": "short"}, "at least 32 bytes"),
        ({"secret": []}, "need a secret"),
        ({"issuer": ""}, "issuer names this service"),
        ({"send": None}, "verification needs `send`"),
        ({"send": print}, "must be an async function"),
        ({"prefix": "x; DROP"}, "prefix of tables"),
        ({"algorithm": "HS256"}, "signed by EdDSA, ES256, RS256"),
        ({"peppers": {"a": "short"}}, "pepper"),
    ],
    ids=[
        "database",
        "secret",
        "no secret",
        "issuer",
        "no send",
        "send",
        "prefix",
        "algorithm",
        "pepper",
    ],
)
def test_what_cannot_work_is_refused_at_once_with_the_way_out(changed, said):
    given = {"database": "sqlite+aiosqlite:///:memory:", **GOOD, **changed}
    with pytest.raises(ValueError, match=said) as caught:
        Accounts(**given)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"access_life_s": 0},
        {"access_life_s": 1e9},
        {"key_ahead_s": 1e9},
        {"refresh_grace_s": 3600},
        {"totp_drift": 9},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_rules_that_contradict_each_other_are_refused(changed):
    with pytest.raises(ValueError):
        Rules(**changed)


def test_a_database_in_memory_serves_a_test():
    async def main():
        rules = Rules(hash=QUICK, verify_email=False)
        accounts = Accounts("sqlite://", issuer=ISSUER, secret=SECRET, rules=rules)
        with pytest.raises(RuntimeError, match="not started"):
            accounts.verify("x")
        await accounts.create_tables()
        async with accounts:
            await accounts.register(EMAIL, PASSWORD)
            tokens = await accounts.login(EMAIL, PASSWORD)
            accounts.verify(tokens.access_token)
            with pytest.raises(InvalidToken):
                accounts.verify(tokens.access_token + "x")
            with pytest.raises(TypeError):
                changed: Any = accounts.verify(tokens.access_token).claims
                changed["sub"] = "root"
            seen = accounts.snapshot()
            assert (seen.hashes_done, seen.hashes_taken, seen.keys) == (3, 0, 1)
            assert (seen.tokens_known, seen.sessions_remembered) == (1, 0)
            await accounts.logout(tokens.refresh_token)
            assert accounts.snapshot().sessions_remembered == 1
        with pytest.raises(RuntimeError, match="closed"):
            await accounts.login(EMAIL, PASSWORD)

    asyncio.run(main())


def test_missing_tables_are_told(open_desk):
    async def main():
        accounts = open_desk().accounts
        with pytest.raises(AccountsError, match="create_tables"):
            await accounts.start()
        await accounts.close()

    asyncio.run(main())


def test_upkeep_goes_on_while_the_database_is_away(sqlite_desk, caplog):
    async def main():
        async with sqlite_desk(rules={"upkeep_s": 0.01}) as desk:
            tend, failures = desk.accounts.tend, 0
            done = asyncio.Event()

            async def broken():
                nonlocal failures
                failures += 1
                if failures < 3:
                    raise OSError("the database is away: " + SECRET)
                await tend()
                done.set()

            desk.accounts.tend = broken
            async with asyncio.timeout(10):
                await done.wait()

    asyncio.run(main())
    assert "upkeep of accounts failed: OSError" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.integration
def test_the_room_stays_light_and_a_missing_library_is_named():
    code = (
        "import sys, headgate.security\n"
        "assert not {'sqlalchemy', 'argon2', 'fastapi'} & set(sys.modules)\n"
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'argon2' else find(name, *a)\n"
        "try:\n"
        "    import headgate.security.accounts\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.stdout.startswith("ExtraMissing"), done.stderr
    assert 'pip install "headgate[accounts]"' in done.stdout
