"""Credentials that a real OpenBao makes in a real PostgreSQL, under load, while they change."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest

from headgate.policy.breaker import BreakerRules
from headgate.security.secrets import (
    AppRole,
    Credentials,
    Token,
    Vault,
    VaultAway,
    VaultError,
    VaultRules,
    rotating_engine,
    rotating_pool,
)
from tests.accounts.postgres_server import USER, PostgresServer
from tests.security.openbao import OpenBao, Proxy, running

pytestmark = [pytest.mark.integration, pytest.mark.slow]


MAKE = (
    "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';"
    'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{{name}}";'
)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def bao(tmp_path_factory, postgres: PostgresServer) -> Iterator[OpenBao]:
    with running(tmp_path_factory.mktemp("openbao") / "bao") as server:
        server.enable("database")
        server.ask(
            "POST",
            "database/config/shop",
            {
                "plugin_name": "postgresql-database-plugin",
                "allowed_roles": "*",
                "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:"
                f"{postgres.port}/postgres?sslmode=disable",
                "username": USER,
                "password": "unused",
            },
        )
        yield server


def role(bao: OpenBao, name: str, ttl: str, longest: str) -> str:
    bao.ask(
        "POST",
        f"database/roles/{name}",
        {
            "db_name": "shop",
            "creation_statements": [MAKE],
            "default_ttl": ttl,
            "max_ttl": longest,
        },
    )
    return name


def rules(url: str, login: Token | AppRole, **more: Any) -> VaultRules:
    fields: dict[str, Any] = {
        "timeout_s": 5.0,
        "budget_s": 8.0,
        "breaker": BreakerRules(window_calls=10, minimum_calls=10, reset_s=0.2, reset_max_s=0.2),
    }
    return VaultRules(url=url, login=login, **{**fields, **more})


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(55.0):
            await story()

    asyncio.run(within())


async def until(what: Callable[[], Awaitable[Any]], patience_s: float = 20.0) -> Any:
    deadline = time.monotonic() + patience_s
    while not (found := await what()):
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)
    return found


class Database:
    """What the owner of the database sees."""

    def __init__(self, server: PostgresServer) -> None:
        self.dsn = f"postgresql://127.0.0.1:{server.port}/postgres"
        self._owner = f"postgresql://{USER}@127.0.0.1:{server.port}/postgres"

    async def ask(self, text: str) -> list[Any]:
        connection = await asyncpg.connect(self._owner)
        try:
            return [row[0] for row in await connection.fetch(text)]
        finally:
            await connection.close()

    async def users(self, role: str) -> list[str]:
        return await self.ask(f"SELECT rolname FROM pg_roles WHERE rolname LIKE '%-{role}-%'")


@pytest.fixture
def database(postgres: PostgresServer) -> Database:
    return Database(postgres)


async def connect(database: Database, credentials: Credentials) -> Any:
    return await asyncpg.connect(
        database.dsn, user=credentials.username, password=credentials.password
    )


def test_credentials_work_and_are_given_back_at_the_end(bao: OpenBao, database: Database):
    async def story() -> None:
        name = role(bao, "plain", "1h", "2h")
        async with Vault(rules(bao.url, Token(bao.root))) as vault:
            async with vault.database(name) as creds:
                connection = await connect(database, creds)
                assert await connection.fetchval("SELECT current_user") == creds.username
                await connection.close()
                assert creds.password not in repr(creds)
                async with vault.database(name) as same:
                    assert same is creds
            assert vault.snapshot().leases == 1
            assert await database.users(name) == [creds.username]
        assert await database.users(name) == []
        assert bao.leases(f"database/creds/{name}") == []

    run(story)


def test_a_role_that_is_not_there_is_missing(bao: OpenBao):
    async def story() -> None:
        async with Vault(rules(bao.url, Token(bao.root))) as vault:
            with pytest.raises(VaultError, match="database role nothing"):
                async with vault.database("nothing"):
                    pass

    run(story)


def test_a_lease_is_renewed_as_long_as_it_can_be(bao: OpenBao, database: Database):
    async def story() -> None:
        name = role(bao, "renewed", "4s", "1h")
        async with Vault(rules(bao.url, Token(bao.root))) as vault:
            async with vault.database(name) as creds:
                await asyncio.sleep(6.0)  # beyond its first life
                assert await database.users(name) == [creds.username]
            assert vault.database_role(name).rotations == 0

    run(story)


def other_token(bao: OpenBao, vault: Vault, file: Path) -> None:
    """What made the leases so far is no more what we ask with."""
    file.write_text(bao.token("root"))
    vault._session.log_in()
    vault._look_at_token()


def test_an_old_lease_lives_as_long_as_its_last_user(
    bao: OpenBao, database: Database, tmp_path: Path
):
    async def story() -> None:
        name = role(bao, "drained", "5s", "1h")
        file = tmp_path / "token"
        file.write_text(bao.root)
        async with Vault(rules(bao.url, Token(file=file))) as vault:
            of = vault.database_role(name)
            first, second = await of.take(), await of.take()
            old = first.credentials
            connection = await connect(database, old)
            other_token(bao, vault, file)

            async def is_rotated() -> bool:
                return of.rotations == 1

            await until(is_rotated)
            assert first.is_retired
            newer = await of.take()
            assert newer.credentials.username != old.username
            first.release()
            first.release()
            await asyncio.sleep(6.0)  # beyond the old lease: it is renewed for its last user
            assert old.username in await database.users(name)
            assert await connection.fetchval("SELECT 1") == 1
            await connection.close()
            second.release()

            async def is_dropped() -> bool:
                return await database.users(name) == [newer.credentials.username]

            await until(is_dropped)
            newer.release()

    run(story)


async def load(query: Callable[[int], Awaitable[str]], users: int) -> int:
    """Queries by ten at once until so many users ran them. Any that fails ends the test."""
    seen: set[str] = set()
    count = 0
    end = time.monotonic() + 40.0

    async def one(number: int) -> None:
        nonlocal count
        while len(seen) < users and time.monotonic() < end:
            seen.add(await query(number))
            count += 1

    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(one(number))
    assert len(seen) >= users, seen
    return count


SLOW = "SELECT pg_sleep(0.02)"
# First and longest life of a lease: replaced after four seconds, with five to spare. A busy machine
# stands still for more than one of them.
SHORT = ("6s", "9s")


def test_an_engine_changes_its_credentials_and_drops_no_query(bao: OpenBao, database: Database):
    async def story() -> None:
        name = role(bao, "engine", *SHORT)
        await database.ask("CREATE TABLE IF NOT EXISTS goods AS SELECT 1 AS id")
        async with Vault(rules(bao.url, Token(bao.root))) as vault:
            of = vault.database_role(name)
            url = database.dsn.replace("postgresql:", "postgresql+asyncpg:")
            engine = rotating_engine(of, url, pool_size=5, max_overflow=5)

            async def query(number: int) -> str:
                async with engine.connect() as connection:
                    found = await connection.exec_driver_sql("SELECT current_user")
                    await connection.exec_driver_sql("SELECT id FROM goods")
                    await connection.exec_driver_sql(SLOW)
                    return str(found.scalar_one())

            assert await load(query, users=3) > 100
            assert of.rotations >= 2

            async def is_drained() -> bool:
                return len(await database.users(name)) <= 2

            await until(is_drained)
            await engine.dispose()
        assert await database.users(name) == []

    run(story)


def test_a_pool_changes_its_credentials_and_drops_no_query(bao: OpenBao, database: Database):
    async def story() -> None:
        name = role(bao, "pool", *SHORT)
        async with Vault(rules(bao.url, Token(bao.root))) as vault:
            of = vault.database_role(name)
            pool = await rotating_pool(of, database.dsn, min_size=2, max_size=8)

            async def query(number: int) -> str:
                async with pool.acquire() as connection:
                    found = await connection.fetchval("SELECT current_user")
                    await connection.execute(SLOW)
                    return str(found)

            try:
                assert await load(query, users=3) > 100
            finally:
                await pool.close()
        assert await database.users(name) == []

    run(story)


def test_a_long_query_outlives_a_rotation(bao: OpenBao, database: Database, tmp_path: Path):
    async def story() -> None:
        name = role(bao, "long", "1h", "2h")
        file = tmp_path / "token"
        file.write_text(bao.root)
        async with Vault(rules(bao.url, Token(file=file))) as vault:
            of = vault.database_role(name)
            engine = rotating_engine(of, database.dsn.replace("sql:", "sql+asyncpg:"))
            async with engine.connect() as connection:
                before = (await connection.exec_driver_sql("SELECT current_user")).scalar_one()
                other_token(bao, vault, file)
                await connection.exec_driver_sql("SELECT pg_sleep(1.0)")
                assert of.rotations == 1
                async with engine.connect() as other:
                    after = (await other.exec_driver_sql("SELECT current_user")).scalar_one()
                assert after != before
                assert set(await database.users(name)) == {before, after}

            async def is_dropped() -> bool:
                return await database.users(name) == [after]

            await until(is_dropped)
            await engine.dispose()

    run(story)


def test_an_idle_connection_of_old_credentials_is_not_used_again(
    bao: OpenBao, database: Database, tmp_path: Path
):
    async def story() -> None:
        name = role(bao, "idle", "1h", "2h")
        file = tmp_path / "token"
        file.write_text(bao.root)
        async with Vault(rules(bao.url, Token(file=file))) as vault:
            of = vault.database_role(name)
            engine = rotating_engine(of, database.dsn.replace("sql:", "sql+asyncpg:"))
            async with engine.connect() as connection:
                before = (await connection.exec_driver_sql("SELECT current_user")).scalar_one()
            of._followers.clear()  # as when the engine could not be told
            other_token(bao, vault, file)

            async def is_rotated() -> bool:
                return of.rotations == 1

            await until(is_rotated)
            async with engine.connect() as connection:
                after = (await connection.exec_driver_sql("SELECT current_user")).scalar_one()
            assert after != before

            async def is_dropped() -> bool:
                return await database.users(name) == [after]

            await until(is_dropped)
            await engine.dispose()

    run(story)


def test_a_role_that_logs_in_again_replaces_credentials_before_its_old_token_ends(
    bao: OpenBao, database: Database
):
    async def story() -> None:
        name = role(bao, "parent", "1h", "2h")
        policy = bao.policy("db", {"database/creds/*": ["read"], "sys/leases/*": ["update"]})
        id_, secret = bao.approle("db", policy, token_ttl=SHORT[0], token_max_ttl=SHORT[1])
        async with Vault(rules(bao.url, AppRole(id_, secret))) as vault:
            of = vault.database_role(name)
            engine = rotating_engine(of, database.dsn.replace("sql:", "sql+asyncpg:"))

            async def query(number: int) -> str:
                async with engine.connect() as connection:
                    await connection.exec_driver_sql(SLOW)
                    found = await connection.exec_driver_sql("SELECT current_user")
                    return str(found.scalar_one())

            await load(query, users=2)
            assert vault.snapshot().log_ins >= 2
            await engine.dispose()

    run(story)


def test_a_token_that_is_given_and_ends_makes_no_new_credentials_on_its_way_out(
    bao: OpenBao, database: Database
):
    async def story() -> None:
        name = role(bao, "given", "1h", "2h")
        policy = bao.policy("db", {"database/creds/*": ["read"], "sys/leases/*": ["update"]})
        token = bao.token(policy, ttl="3s", renewable=False)
        async with Vault(rules(bao.url, Token(token))) as vault:
            async with vault.database(name):
                pass
            await asyncio.sleep(3.5)
            assert vault.database_role(name).rotations == 0
            assert vault.snapshot().log_ins == 1

    run(story)


def test_a_policy_without_renewal_replaces_credentials_instead(bao: OpenBao, database: Database):
    async def story() -> None:
        name = role(bao, "fixed", "3s", "1h")
        policy = bao.policy("creds", {"database/creds/*": ["read"]})
        async with Vault(rules(bao.url, Token(bao.token(policy, "root")))) as vault:
            of = vault.database_role(name)
            ticket = await of.take()
            await of._renew(ticket._grant)  # type: ignore[arg-type]  # as root it may
            ticket._grant.is_fixed = True  # type: ignore[union-attr]  # as Vault says of some

            async def is_rotated() -> bool:
                return of.rotations >= 1

            await until(is_rotated)
            assert (await of.take()).credentials.username != ticket.credentials.username
            ticket.release()

    run(story)


def test_a_lease_that_somebody_revoked_is_replaced(bao: OpenBao, database: Database):
    async def story() -> None:
        name = role(bao, "revoked", "2s", "1h")
        async with Vault(rules(bao.url, Token(bao.root))) as vault:
            async with vault.database(name) as creds:
                pass
            bao.ask("PUT", f"sys/leases/revoke-force/database/creds/{name}")

            async def is_other() -> bool:
                async with vault.database(name) as other:
                    return other.username != creds.username

            await until(is_other)
            async with vault.database(name) as other:
                await (await connect(database, other)).close()

    run(story)


def test_credentials_that_nobody_waits_for_are_given_back(bao: OpenBao, database: Database):
    async def story() -> None:
        name = role(bao, "orphan", "1h", "2h")
        proxy = Proxy(bao.port)
        try:
            async with Vault(rules(proxy.url, Token(bao.root))) as vault:
                await vault.read("ready")
                proxy.delay_s = 0.3
                taking = asyncio.create_task(vault.database_role(name).take())
                await asyncio.sleep(0.4)  # asked, not answered
                taking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await taking
                proxy.delay_s = 0.0

                async def is_gone() -> bool:
                    return not bao.leases(f"database/creds/{name}")

                await asyncio.sleep(0.5)
                await until(is_gone)
                async with vault.database(name) as creds:
                    assert await database.users(name) == [creds.username]
        finally:
            proxy.down()

    run(story)


def test_callers_cancelled_at_any_moment_leave_no_lease_behind(bao: OpenBao, database: Database):
    async def story() -> None:
        name = role(bao, "moments", "1h", "2h")
        async with Vault(rules(bao.url, Token(bao.root), threads=2)) as vault:
            await vault.read("ready")
            rng = random.Random(7)
            for turn in range(30):
                of = vault.database_role(name)
                taking = asyncio.create_task(of.take())
                await asyncio.sleep(rng.uniform(0.0, 0.03))
                taking.cancel()
                try:
                    (await taking).release()
                except asyncio.CancelledError:
                    pass
                if turn % 5 == 4:  # begin anew, so that there is something to be made
                    await of.aclose()
                    vault._roles.clear()

            async def is_counted() -> bool:
                found = len(bao.leases(f"database/creds/{name}"))
                return found == sum(one.living for one in vault._roles.values())

            await until(is_counted)
        assert await database.users(name) == []

    run(story)


def test_while_vault_is_away_credentials_serve_until_their_lease_ends(
    bao: OpenBao, database: Database
):
    async def story() -> None:
        name = role(bao, "away", "4s", "1h")
        proxy = Proxy(bao.port)
        try:
            async with Vault(rules(proxy.url, Token(bao.root), retries=0)) as vault:
                async with vault.database(name) as creds:
                    pass
                proxy.down()
                async with vault.database(name) as same:
                    assert same.username == creds.username

                async def is_ended() -> bool:
                    try:
                        async with vault.database(name):
                            return False
                    except VaultAway:
                        return True

                await until(is_ended)
                proxy.up()

                async def is_back() -> bool:
                    try:
                        async with vault.database(name) as other:
                            return other.username != creds.username
                    except VaultAway:
                        return False

                await until(is_back)
        finally:
            proxy.down()

    run(story)
