from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from headgate.security.audit import verify_folder
from headgate_shop.base import events
from headgate_shop.base.database import Database
from headgate_shop.base.settings import Settings, SettingsInvalid
from headgate_shop.data.people import ACCOUNTS
from headgate_shop.users import erasing, signing_out
from headgate_shop.users.app import app, open_accounts
from headgate_shop.users.profiles import Names
from headgate_shop.users.seed import seed
from headgate_shop.users.signing_out import SigningOut
from headgate_shop.users.tables import ERASURES, METADATA
from headgate_shop.users.trail import Trail, network_of
from tests.shop.users.household import PASSWORD, SECRET, open_household, until


def test_somebody_joins_with_a_name_and_signs_in(household):
    async def scene():
        async with household() as home:
            user_id = await home.join("mia@home.test", "Mia Moreau")
            mail = await home.mail("confirm_registration", "mia@home.test")
            assert mail["values"]["name"] == "Mia Moreau"
            assert mail["values"]["link"].endswith(f"/confirm#{mail['values']['token']}")
            signed = await home.post("/login", email="mia@home.test", password=PASSWORD)
            assert signed.status_code == 200 and signed.json()["access_token"]
            headers = home.signer.headers(user_id)
            profile = await home.client.get("/api/users/profile", headers=headers)
            assert profile.json()["name"] == "Mia Moreau"
            assert profile.json()["email"] == "mia@home.test"
            await until(lambda: any(one.topic == events.USER_REGISTERED for one in home.heard))
            told = next(one for one in home.heard if one.topic == events.USER_REGISTERED)
            assert told.data["user_id"] == user_id and told.data["name"] == "Mia Moreau"
            again = await home.post("/verify-email", token=mail["values"]["token"])
            assert again.status_code == 401

    asyncio.run(scene())


def test_a_taken_address_gets_the_same_answer_and_another_mail(household):
    async def scene():
        async with household() as home:
            new = await home.post("/register", email="x@home.test", password=PASSWORD, name="X")
            old = await home.post("/register", email="ada@shop.test", password=PASSWORD, name="Eve")
            assert new.status_code == old.status_code == 202 and new.json() == old.json()
            mail = await home.mail("already_registered", "ada@shop.test")
            assert "/reset#" in mail["values"]["link"] and mail["values"]["name"] == ""
            ada = await home.client.get("/api/users/profile", headers=home.ada)
            assert ada.json()["name"] == "Ada Winter"

    asyncio.run(scene())


def test_two_registrations_of_one_address_keep_their_names_apart(household):
    async def scene():
        async with household() as home:
            await home.post("/register", email="two@home.test", password=PASSWORD, name="First")
            first = await home.mail("confirm_registration", "two@home.test")
            await home.post("/register", email="Two@home.test", password=PASSWORD, name="Second")
            second = await home.mail("confirm_registration", "Two@home.test")
            assert [one["values"]["name"] for one in (first, second)] == ["First", "Second"]
            await home.post("/verify-email", token=second["values"]["token"])
            headers = home.signer.headers(second["user_id"])
            profile = await home.client.get("/api/users/profile", headers=headers)
            assert profile.json()["name"] == "Second"

    asyncio.run(scene())


def test_names_have_a_bound():
    names = Names()
    for number in range(20_000):
        names.asked(f"{number}@x.test", "n")
        names.mailed(f"{number}@x.test", str(number))
        names.asked("same@x.test", str(number))
    assert names.take("1") == "" and names.take("19999") == "n"
    assert names.mailed("same@x.test", "s") == "19992"  # the eight newest


REFUSED = [
    {"email": "a", "password": PASSWORD},
    {"email": "not an address", "password": PASSWORD},
    {"email": "a@b.test", "password": "short"},
    {"email": "a@b.test", "password": "password password"},
    {"email": "a@b.test", "password": PASSWORD, "name": "a\x00b"},
    {"email": "a@b.test", "password": PASSWORD, "name": "x" * 201},
    {"email": "a@b.test", "password": PASSWORD, "admin": True},
    {"email": "a@b.test"},
    [],
]


def test_a_bad_registration_is_refused(household):
    async def scene():
        async with household() as home:
            for body in REFUSED:
                answer = await home.client.post("/api/auth/register", json=body)
                assert answer.status_code in (400, 422), body
                assert answer.headers["content-type"] == "application/problem+json"
                assert PASSWORD not in answer.text

    asyncio.run(scene())


def test_a_profile_is_changed_and_bad_ones_are_refused(household):
    async def scene():
        async with household() as home:
            where = "/api/users/profile"
            address = {"street": "Weg 1", "city": "Ulm", "postcode": "89073", "country": "DE"}
            body = {"name": " Ada W. ", "phone": "+49 731 555", "address": address}
            done = await home.client.put(where, json=body, headers=home.ada)
            assert done.status_code == 200
            shown = (await home.client.get(where, headers=home.ada)).json()
            assert shown["name"] == "Ada W." and shown["address"] == address
            for bad in (
                {**body, "name": ""},
                {**body, "name": "a\nb"},
                {**body, "phone": "call me"},
                {**body, "address": {"country": "Germany"}},
                {**body, "address": {"planet": "Mars"}},
                {**body, "email": "other@x.test"},
                {},
            ):
                refused = await home.client.put(where, json=bad, headers=home.ada)
                assert refused.status_code == 422 and refused.json()["errors"], bad
            assert (await home.client.get(where)).status_code == 401
            forged = {"x-headgate-identity": "e30.e30.x"}
            assert (await home.client.get(where, headers=forged)).status_code == 401
            nobody = home.signer.headers("ffff")
            assert (await home.client.get(where, headers=nobody)).status_code == 404
            within = await home.client.get("/internal/users/a00001")
            assert within.json() == shown

    asyncio.run(scene())


def test_a_profile_that_a_crash_left_out_is_made_when_it_is_looked_at(household):
    async def scene():
        async with household() as home:
            accounts = open_accounts(home.settings, None)
            async with accounts:
                user = await accounts.create_user("late@home.test", PASSWORD)
            headers = home.signer.headers(user.id)
            found = await asyncio.gather(
                *(home.client.get("/api/users/profile", headers=headers) for _ in range(4))
            )
            assert {one.json()["name"] for one in found} == {"late"}
            await until(lambda: bool(home.heard))
            assert [one.data["user_id"] for one in home.heard] == [user.id]

    asyncio.run(scene())


def test_an_export_has_what_every_service_keeps_and_says_what_is_missing(household):
    async def scene():
        async with household() as home:
            await home.post("/login", email="ada@shop.test", password=ACCOUNTS[0].password)
            whole = await home.client.get("/api/users/export", headers=home.ada)
            found = whole.json()
            assert found["complete"] and found["account"]["email"] == "ada@shop.test"
            assert found["profile"]["name"] == "Ada Winter"
            assert found["services"]["orders"]["data"] == {"kept by": "orders"}
            assert "account.logged_in" in [one["action"] for one in found["sign_ins"]]
            assert "attachment" in whole.headers["content-disposition"]
            home.keepers["analytics"].status = 500
            part = (await home.client.get("/api/users/export", headers=home.ada)).json()
            assert not part["complete"]
            assert part["services"]["analytics"]["state"] == "missing"
            assert part["services"]["orders"]["state"] == "complete"

    asyncio.run(scene())


def test_an_erasure_does_not_rest_until_every_service_has_said_yes(household, monkeypatch):
    monkeypatch.setattr(erasing, "FIRST_MS", 20)
    monkeypatch.setattr(erasing, "LOOK_S", 0.02)

    async def scene():
        async with household() as home:
            user_id = await home.join("gone@home.test", "Gone Soon")
            signed = await home.post("/login", email="gone@home.test", password=PASSWORD)
            home.keepers["orders"].status = 503
            headers = home.signer.headers(user_id)
            asked = await home.client.delete("/api/users/me", headers=headers)
            assert asked.status_code == 202
            where = asked.headers["location"]
            # The account is gone at once, and asking again is asking once.
            again = await home.client.delete("/api/users/me", headers=headers)
            assert again.headers["location"] == where
            refused = await home.post("/login", email="gone@home.test", password=PASSWORD)
            assert refused.status_code == 401
            token = {"authorization": f"Bearer {signed.json()['access_token']}"}
            assert (await home.client.get("/api/auth/me", headers=token)).status_code == 401
            profile = await home.client.get("/api/users/profile", headers=headers)
            assert profile.status_code == 404

            async def tried():
                found = (await home.client.get(where)).json()
                steps = {one["service"]: one for one in found["services"]}
                return steps["orders"]["tries"] >= 3 and steps["analytics"]["state"] == "done"

            await until(tried)
            assert (await home.client.get(where)).json()["state"] == "running"
            home.keepers["orders"].status = 200

            async def is_done():
                return (await home.client.get(where)).json()["state"] == "done"

            await until(is_done)
            assert all(set(one.forgotten) == {user_id} for one in home.keepers.values())
            await until(lambda: any(one.topic == events.USER_ERASED for one in home.heard))
            database = Database(home.settings)
            async with database.reading() as connection:
                kept = (await connection.execute(sa.select(ERASURES))).one()
            await database.close()
            assert kept.user_id == "" and user_id not in kept.whose

        folder = Trail(home.settings.folder, SECRET).folder
        written = b"".join(path.read_bytes() for path in folder.glob("*.jsonl*"))
        for word in (user_id, "gone@home.test", "Gone Soon", "203.0.113.77"):
            assert word.encode() not in written
        assert b"user.erased" in written and b"203.0.113.0" in written
        assert verify_folder(folder).is_good

    asyncio.run(scene())


def test_an_erasure_goes_on_after_a_restart(household, house, monkeypatch):
    monkeypatch.setattr(erasing, "FIRST_MS", 20)
    monkeypatch.setattr(erasing, "LOOK_S", 0.02)

    async def scene():
        async with household() as home:
            home.keepers["notifications"].status = 500
            asked = await home.client.delete("/api/users/me", headers=home.ada)
            settings, where = home.settings, asked.headers["location"]
        async with open_household(settings, house.signer) as home:

            async def is_done():
                return (await home.client.get(where)).json()["state"] == "done"

            await until(is_done)
            assert set(home.keepers["notifications"].forgotten) == {"a00001"}

    asyncio.run(scene())


def test_administrators_see_accounts_and_give_roles(household):
    async def scene():
        async with household() as home:
            where = "/api/admin/users"
            page = (await home.client.get(where, params={"limit": 2}, headers=home.admin)).json()
            assert [one["email"] for one in page["items"]] == ["ada@shop.test", "admin@shop.test"]
            rest = await home.client.get(
                where, params={"limit": 2, "cursor": page["next"]}, headers=home.admin
            )
            assert [one["email"] for one in rest.json()["items"]] == ["noor@shop.test"]
            assert rest.json()["next"] is None
            found = await home.client.get(where, params={"role": "admin"}, headers=home.admin)
            assert [one["name"] for one in found.json()["items"]] == ["Robin Admin"]
            given = await home.client.put(
                f"{where}/a00001/roles", json={"roles": ["support"]}, headers=home.admin
            )
            assert given.json()["roles"] == ["support"]
            taken = await home.client.put(
                f"{where}/a00001/roles", json={"roles": []}, headers=home.admin
            )
            assert taken.json()["roles"] == []
            own = await home.client.put(
                f"{where}/a00002/roles", json={"roles": []}, headers=home.admin
            )
            assert own.status_code == 409
            closed = await home.client.post(f"{where}/a00001/disable", headers=home.admin)
            assert closed.json()["is_active"] is False
            login = await home.post("/login", email="ada@shop.test", password=ACCOUNTS[0].password)
            assert login.status_code in (401, 403)
            assert (await home.client.post(f"{where}/a00001/enable", headers=home.admin)).json()[
                "is_active"
            ]
            trail = await home.client.get(f"{where}/a00001/sign-ins", headers=home.admin)
            assert "account.user_disabled" in [one["action"] for one in trail.json()["items"]]
            for headers, status in ((home.ada, 403), ({}, 401)):
                assert (await home.client.get(where, headers=headers)).status_code == status
            missing = await home.client.get(f"{where}/nobody", headers=home.admin)
            assert missing.status_code == 404

    asyncio.run(scene())


def test_failed_sign_ins_are_on_record_without_the_person(household):
    async def scene():
        async with household() as home:
            wrong = await home.post("/login", email="ada@shop.test", password="not the password")
            assert wrong.status_code == 401
            mine = (await home.client.get("/api/users/sign-ins", headers=home.ada)).json()
            assert [(one["action"], one["outcome"]) for one in mine["items"]] == [
                ("account.login_failed", "refused")
            ]
            assert mine["items"][0]["origin"] == "203.0.113.0"
            others = home.signer.headers("a00003")
            assert (await home.client.get("/api/users/sign-ins", headers=others)).json() == {
                "items": []
            }

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("203.0.113.77", "203.0.113.0"),
        ("2001:db8:1:2::3", "2001:db8:1::"),
        ("", ""),
        ("testclient", ""),
    ],
)
def test_an_address_is_cut_to_its_network(ip, network):
    assert network_of(ip) == network


def test_seeding_again_changes_nothing_and_people_have_the_ids_of_the_data(household):
    async def scene():
        async with household() as home:
            from headgate_shop.data import TINY

            assert await seed(home.settings, TINY) == {}
            found = await home.client.get("/api/admin/users", headers=home.admin)
            assert [one["id"] for one in found.json()["items"]] == [one.id for one in ACCOUNTS]
            for account in ACCOUNTS:
                signed = await home.post("/login", email=account.email, password=account.password)
                assert signed.status_code == 200

    asyncio.run(scene())


def test_the_migrations_make_the_tables_that_the_accounts_library_has(tmp_path):
    async def scene():
        settings = Settings("users", tmp_path, secret=SECRET)
        accounts = open_accounts(settings, None)
        database = Database(settings)
        await database.start()

        def differences(connection):
            def is_ours(thing, name, kind, reflected, other):
                return not (kind == "table" and name == "shop_schema")

            context = MigrationContext.configure(connection, opts={"include_object": is_ours})
            both: Any = [accounts.metadata, METADATA]  # Alembic takes several, and types one
            return compare_metadata(context, both)

        try:
            async with database.engine.connect() as connection:
                found = await connection.run_sync(differences)
        finally:
            await database.close()
            await accounts.close()
        # What is looked for by its values, and not by its name, has no name in the library.
        assert [one for one in found if one[0] not in ("add_constraint", "remove_constraint")] == []

    asyncio.run(scene())


def test_without_a_secret_it_can_be_described_and_not_started(tmp_path):
    bare = app(replace(Settings("users", tmp_path), admin_url=""), mesh=_no_mesh())
    assert "/api/users/export" in bare.openapi()["paths"]

    async def scene():
        with pytest.raises(SettingsInvalid, match="SHOP_SECRET has 0 characters"):
            async with bare.router.lifespan_context(bare):
                raise AssertionError("it started")

    asyncio.run(scene())


def _no_mesh():
    from headgate.testing import FakeMesh

    return FakeMesh()


@pytest.mark.integration
def test_users_live_in_postgresql_as_well(household, users_postgres):
    async def scene():
        url = users_postgres.url.replace("+asyncpg", "").rpartition("/")[0]
        async with household(url) as home:
            user_id = await home.join("pg@home.test", "Pia G")
            headers = home.signer.headers(user_id)
            assert (await home.client.get("/api/users/export", headers=headers)).json()["complete"]
            asked = await home.client.delete("/api/users/me", headers=headers)

            async def is_done():
                return (await home.client.get(asked.headers["location"])).json()["state"] == "done"

            await until(is_done)

    asyncio.run(scene())


class Gateway:
    """Its admin API, as far as it ends tokens."""

    def __init__(self):
        self.told = []
        self.status = 202

    def transport(self):
        def answer(request):
            if request.headers["authorization"] != "Bearer for-revoking-1234":
                return httpx.Response(401)
            assert (request.method, request.url.path) == ("POST", "/api/revocations")
            if self.status == 202:
                self.told.append(json.loads(request.content))
            return httpx.Response(self.status)

        return httpx.MockTransport(answer)


def beside(gateway, monkeypatch, token="for-revoking-1234"):
    """Have the service tell this gateway."""
    real = SigningOut.__init__

    def made(self, settings, transport=None):
        told = replace(settings, admin_url="http://gateway.test", revoke_token=token)
        real(self, told, gateway.transport())

    monkeypatch.setattr(SigningOut, "__init__", made)


def test_whoever_is_erased_is_believed_no_more_at_once(household, monkeypatch):
    monkeypatch.setattr(erasing, "FIRST_MS", 20)
    monkeypatch.setattr(erasing, "LOOK_S", 0.02)
    gateway = Gateway()
    beside(gateway, monkeypatch)

    async def scene():
        async with household() as home:
            asked = await home.client.delete("/api/users/me", headers=home.ada)
            assert asked.status_code == 202
            # Before the answer is there.
            assert gateway.told[0] == {"kind": "sub", "value": "a00001", "last": "900s"}
            where = asked.headers["location"]

            async def is_done():
                return (await home.client.get(where)).json()["state"] == "done"

            await until(is_done)

    asyncio.run(scene())


def test_an_erasure_is_not_done_before_the_gateway_knows(household, monkeypatch):
    monkeypatch.setattr(erasing, "FIRST_MS", 20)
    monkeypatch.setattr(erasing, "LOOK_S", 0.02)
    gateway = Gateway()
    gateway.status = 503
    beside(gateway, monkeypatch)

    async def scene():
        async with household() as home:
            asked = await home.client.delete("/api/users/me", headers=home.ada)
            where = asked.headers["location"]

            async def steps():
                found = (await home.client.get(where)).json()
                return found["state"], {one["service"]: one for one in found["services"]}

            async def others_are_done():
                _, found = await steps()
                done = [name for name, one in found.items() if one["state"] == "done"]
                return len(done) == len(found) - 1 and found["gateway"]["tries"] > 1

            await until(others_are_done)
            state, found = await steps()
            assert state == "running" and found["gateway"]["why"] == "NotTold"
            gateway.status = 202

            async def is_done():
                return (await steps())[0] == "done"

            await until(is_done)
            assert {one["value"] for one in gateway.told} == {"a00001"}

    asyncio.run(scene())


def test_whoever_loses_a_role_or_the_account_is_signed_out_at_the_gateway(household, monkeypatch):
    monkeypatch.setattr(signing_out, "AGAIN_S", 0.02)
    gateway = Gateway()
    beside(gateway, monkeypatch)

    async def scene():
        async with household() as home:
            where = "/api/admin/users/a00001"

            async def roles(*names):
                answer = await home.client.put(
                    f"{where}/roles", json={"roles": names}, headers=home.admin
                )
                assert answer.status_code == 200

            await roles("support")
            assert gateway.told == []  # what is added comes with the next token
            gateway.status = 500
            await roles()  # the gateway is not well, and this holds nevertheless
            assert gateway.told == []
            gateway.status = 202
            await until(lambda: len(gateway.told) == 1)
            closed = await home.client.post(f"{where}/disable", headers=home.admin)
            assert closed.status_code == 200 and len(gateway.told) == 2
            assert {one["value"] for one in gateway.told} == {"a00001"}

    asyncio.run(scene())


def test_without_a_gateway_nobody_is_told(household):
    async def scene():
        async with household() as home:
            asked = await home.client.delete("/api/users/me", headers=home.ada)
            found = (await home.client.get(asked.headers["location"])).json()
            assert "gateway" not in {one["service"] for one in found["services"]}

    asyncio.run(scene())
