"""Signing in, accounts and API tokens, as browsers and programs meet them."""

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from tests.console.conftest import OPERATOR, TOKEN
from tests.console.people.conftest import PASSWORD, Scene, quick_hasher

from anabranch.console.people import people as module
from anabranch.console.people.admins import Admins
from anabranch.console.people.people import People
from anabranch.console.people.records import SESSION_IDLE_S, SESSION_LIFE_S
from anabranch.console.people.roles import Role
from anabranch.console.people.throttle import BY_ACCOUNT
from anabranch.core.errors import ConflictError


async def sign_in(client: httpx.AsyncClient, name: str, password: str = PASSWORD) -> httpx.Response:
    return await client.post("/api/login", json={"name": name, "password": password})


async def me(client: httpx.AsyncClient, headers: dict[str, str] | None = None) -> dict[str, Any]:
    answer = await client.get("/api/me", headers=headers)
    assert answer.headers["cache-control"] == "no-store"
    found: dict[str, Any] = answer.json()
    return found


async def test_who_signs_in_is_somebody_until_it_signs_out(scene: Scene) -> None:
    async with scene.client() as client:
        assert (await me(client))["signed_in"] is False
        answer = await sign_in(client, "ines")
        assert answer.status_code == 200
        (cookie,) = answer.headers.get_list("set-cookie")
        assert cookie.startswith("anabranch=")
        for part in ("HttpOnly", "SameSite=lax", "Path=/", "Max-Age="):
            assert part in cookie
        assert "Secure" not in cookie
        assert "Domain" not in cookie
        found = await me(client)
        assert (found["name"], found["role"], found["by"]) == ("ines", "producer", "session")
        assert found["may"]["add_channels"]
        assert not found["may"]["operate"]
        assert (await client.post("/api/logout")).status_code == 204
        assert (await me(client))["signed_in"] is False


async def test_under_tls_the_cookie_is_secure_and_tied_to_the_host(scene: Scene) -> None:
    async with scene.client(tls=True) as client:
        (cookie,) = (await sign_in(client, "vera")).headers.get_list("set-cookie")
        assert cookie.startswith("__Host-anabranch=")
        assert "Secure" in cookie
        assert (await me(client))["name"] == "vera"


async def test_signing_out_everywhere_ends_every_session(scene: Scene) -> None:
    async with scene.client() as here, scene.client() as there:
        await sign_in(here, "vera")
        await sign_in(there, "vera")
        assert (await here.post("/api/logout", json={"everywhere": True})).status_code == 204
        assert not (await me(here))["signed_in"]
        assert not (await me(there))["signed_in"]


async def test_a_cookie_that_was_taken_along_is_worth_nothing_after_the_sign_out(
    scene: Scene,
) -> None:
    async with scene.client() as client, scene.client() as thief:
        await sign_in(client, "vera")
        thief.cookies = httpx.Cookies(client.cookies)
        assert (await me(thief))["signed_in"]
        await client.post("/api/logout")
        assert not (await me(thief))["signed_in"]


async def test_a_wrong_password_and_a_name_of_nobody_are_answered_alike(scene: Scene) -> None:
    async with scene.client() as client:
        answers = [
            await sign_in(client, "vera", "another long sentence"),
            await sign_in(client, "nobody", "another long sentence"),
            await sign_in(client, "", ""),
            await sign_in(client, "<b>vera</b>", "x"),
            await sign_in(client, "VERA", PASSWORD),
        ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert all("set-cookie" not in answer.headers for answer in answers)


async def test_guessing_ends_soon_and_is_told_how_long_to_wait(scene: Scene) -> None:
    async with scene.client(address="203.0.113.1") as guesser:
        answers = [await sign_in(guesser, "vera", f"guess number {n}") for n in range(15)]
        assert [a.status_code for a in answers] == [401] * BY_ACCOUNT.burst + [429] * 5
        assert 1 <= int(answers[-1].headers["retry-after"]) <= BY_ACCOUNT.every_s
        # The right one is no use now, or guessing would go on.
        assert (await sign_in(guesser, "vera")).status_code == 429
        nobody = [await sign_in(guesser, "nobody", f"guess {n}") for n in range(15)]
    # An account that is none is throttled as one that is; and then the client.
    assert [a.status_code for a in nobody][:10] == [401] * 10
    async with scene.client(address="203.0.113.2") as other:
        assert (await sign_in(other, "paul")).status_code == 200


async def test_many_guesses_at_once_are_not_let_through(scene: Scene) -> None:
    async with scene.client(address="203.0.113.1") as guesser:
        answers = await asyncio.gather(
            *(sign_in(guesser, "vera", f"guess number {n}") for n in range(40))
        )
    assert sum(a.status_code == 401 for a in answers) == BY_ACCOUNT.burst


async def test_whom_the_account_knows_is_not_locked_out_by_others(scene: Scene) -> None:
    async with scene.client(address="192.0.2.7") as owner:
        assert (await sign_in(owner, "vera")).status_code == 200
        async with scene.client(address="203.0.113.1") as guesser:
            for n in range(15):
                await sign_in(guesser, "vera", f"guess number {n}")
        assert (await sign_in(owner, "vera")).status_code == 200


async def test_a_page_of_another_site_signs_nobody_in_and_does_nothing_in_ones_name(
    scene: Scene,
) -> None:
    async with scene.client() as client:
        await sign_in(client, "olga")
        for headers in (
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "cross-site", "Origin": "http://site"},
        ):
            answer = await client.delete("/api/channels/shown", headers=headers)
            assert answer.status_code == 403
            assert "another site" in answer.json()["detail"]
            body = {"name": "vera", "password": PASSWORD}
            assert (await client.post("/api/login", json=body, headers=headers)).status_code == 403
        assert "shown" in [channel.name for channel in scene.site.channels]
        assert (await client.delete("/api/channels/shown")).status_code == 204


async def test_without_a_word_of_where_it_comes_from_a_session_changes_nothing(
    scene: Scene,
) -> None:
    async with scene.client() as client:
        await sign_in(client, "olga")
        del client.headers["Sec-Fetch-Site"]
        assert (await client.delete("/api/channels/shown")).status_code == 403
        for origin, status in (("http://evil.example", 403), ("null", 403), ("http://site", 204)):
            answer = await client.delete("/api/channels/shown", headers={"Origin": origin})
            assert answer.status_code == status


async def test_a_session_ends_when_it_was_not_used_and_at_last(scene: Scene) -> None:
    now = 1_000_000.0
    clock = People(
        scene.site.database, scene.site.audience, TOKEN, hasher=quick_hasher(), clock=lambda: now
    )
    await clock.load()
    _, secret = await clock.sign_in("vera", PASSWORD, "192.0.2.1")
    shown = module.Credentials(session=secret)
    began = now
    while now < began + SESSION_LIFE_S - SESSION_IDLE_S / 2:
        now += SESSION_IDLE_S / 2
        caller = clock.caller(shown)
        assert caller.role is Role.VIEWER
        await clock.note_use(caller)
    now = began + SESSION_LIFE_S
    assert clock.caller(shown).role is None
    _, secret = await clock.sign_in("vera", PASSWORD, "192.0.2.1")
    now += SESSION_IDLE_S
    assert clock.caller(module.Credentials(session=secret)).role is None


async def test_people_outlive_the_program(scene: Scene) -> None:
    caller, secret = await scene.people.sign_in("ines", PASSWORD, "192.0.2.1")
    again = People(scene.site.database, scene.site.audience, TOKEN, hasher=quick_hasher())
    await again.load()
    assert [a.name for a in again.accounts] == [a.name for a in scene.people.accounts]
    found = again.caller(module.Credentials(session=secret))
    assert (found.account, found.role) == (caller.account, Role.PRODUCER)
    token = again.caller(module.Credentials(bearer=scene.tokens["anna"]))
    assert token.role is Role.ADMIN


async def test_the_store_has_no_secret_in_it(scene: Scene) -> None:
    _, session = await scene.people.sign_in("ines", PASSWORD, "192.0.2.1")
    _, link = await scene.site.audience.share("hidden", lifetime_s=None)
    found = ""
    async with scene.site.database.transaction() as store:
        for table in ("accounts", "sessions", "tokens", "shares"):
            found += repr((await store.execute(text(f"SELECT * FROM {table}"))).all())
    assert "$argon2id$" in found
    for secret in (PASSWORD, session, link, *scene.tokens.values()):
        assert secret not in found
        assert secret.partition("_")[2][:20] not in found or not secret.partition("_")[2]


# --- accounts -----------------------------------------------------------------------------------


async def test_an_admin_makes_changes_and_removes_accounts(scene: Scene) -> None:
    async with scene.client() as client:
        headers = scene.bearer("anna")
        body = {"name": "nina", "role": "producer", "password": PASSWORD}
        made = await client.post("/api/accounts", json=body, headers=headers)
        assert made.status_code == 201
        assert (made.json()["name"], made.json()["channels"]) == ("nina", [])
        assert PASSWORD not in made.text
        assert (await client.post("/api/accounts", json=body, headers=headers)).status_code == 409
        listed = (await client.get("/api/accounts", headers=headers)).json()["accounts"]
        assert {"nina", "anna"} <= {each["name"] for each in listed}
        (ines,) = (each for each in listed if each["name"] == "ines")
        assert ines["channels"] == ["byname", "hidden"]
        place = "/api/accounts/nina"
        changed = await client.patch(place, json={"role": "viewer"}, headers=headers)
        assert changed.json()["role"] == "viewer"
        assert (await client.delete(place, headers=headers)).status_code == 204
        assert (await client.get(place, headers=headers)).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"name": "<script>alert(1)</script>", "role": "viewer", "password": PASSWORD},
        {"name": "a b", "role": "viewer", "password": PASSWORD},
        {"name": "../etc", "role": "viewer", "password": PASSWORD},
        {"name": "n" * 41, "role": "viewer", "password": PASSWORD},
        {"name": "nina", "role": "root", "password": PASSWORD},
        {"name": "nina", "role": "viewer", "password": "too short"},
        {"name": "nina", "role": "viewer", "password": "nina and her cats"},
        {"name": "nina", "role": "viewer", "password": "x" * 5000},
        {"name": "nina", "role": "viewer"},
        {"name": "nina", "role": "viewer", "password": PASSWORD, "id": "1"},
    ],
)
async def test_a_bad_account_is_refused_and_its_password_not_repeated(
    scene: Scene, body: dict[str, str]
) -> None:
    before = scene.people.accounts
    async with scene.client() as client:
        answer = await client.post("/api/accounts", json=body, headers=OPERATOR)
    assert answer.status_code == 422
    assert body.get("password", "?") not in answer.text
    assert scene.people.accounts == before


async def test_a_role_that_is_taken_back_is_gone_at_once(scene: Scene) -> None:
    async with scene.client() as client:
        await sign_in(client, "olga")
        assert (await client.get("/api/log")).status_code == 200
        await scene.people.set_role(scene.people.account("olga"), Role.VIEWER)
        assert (await client.get("/api/log")).status_code == 403
        assert (await client.get("/api/log", headers=scene.bearer("olga"))).status_code == 403


async def test_who_is_removed_is_out_and_a_new_one_of_the_name_has_nothing(scene: Scene) -> None:
    async with scene.client() as client:
        await sign_in(client, "ines")
        assert (await client.get("/api/channels/hidden")).status_code == 200
        await scene.people.remove(scene.people.account("ines"))
        assert not (await me(client))["signed_in"]
        assert (await client.get("/api/tokens", headers=scene.bearer("ines"))).status_code == 401
        await scene.people.add("ines", Role.PRODUCER, PASSWORD)
        await sign_in(client, "ines")
        assert (await client.get("/api/channels/hidden")).status_code == 404
    names = {d.name: d.owner for d in await scene.site.lineup.definitions.all()}
    assert names["hidden"] is None


async def test_ones_own_password_needs_the_old_one_and_ends_other_sessions(scene: Scene) -> None:
    async with scene.client() as here, scene.client() as there:
        await sign_in(here, "vera")
        await sign_in(there, "vera")
        place = "/api/me/password"
        body = {"old": "not the old one", "new": "another long sentence"}
        assert (await here.put(place, json=body)).status_code == 401
        body["old"] = PASSWORD
        assert (await here.put(place, json={**body, "new": "short"})).status_code == 422
        assert (await here.put(place, json=body)).status_code == 204
        assert (await me(here))["signed_in"]
        assert not (await me(there))["signed_in"]
        assert (await sign_in(there, "vera")).status_code == 401
        assert (await sign_in(there, "vera", "another long sentence")).status_code == 200
        answer = await here.put(place, json=body, headers=OPERATOR)
        assert answer.status_code == 409


async def test_the_last_admin_stays_one(scene: Scene) -> None:
    async with scene.client() as client:
        await sign_in(client, "anna")
        place = "/api/accounts/anna"
        for answer in (
            await client.delete(place),
            await client.patch(place, json={"role": "operator"}),
            await client.patch(place, json={"role": "viewer", "password": "another long sentence"}),
            await client.delete(place, headers=scene.bearer("anna")),
        ):
            assert answer.status_code == 409
            assert answer.json()["detail"] == "the last admin stays one: make another first"
        # Nor was the password changed by what was refused.
        assert (await sign_in(client, "anna")).status_code == 200
        # What takes nothing away is done.
        assert (await client.patch(place, json={"role": "admin"})).status_code == 200
        made = await client.patch("/api/accounts/olga", json={"role": "admin"})
        assert made.status_code == 200
        assert (await client.patch(place, json={"role": "operator"})).status_code == 200
        assert (await client.get("/api/accounts")).status_code == 403


async def test_admins_who_remove_each_other_at_once_leave_one(scene: Scene) -> None:
    await scene.people.set_role(scene.people.account("olga"), Role.ADMIN)
    anna, olga = (
        scene.people.caller(module.Credentials(bearer=scene.tokens[name]))
        for name in ("anna", "olga")
    )
    admins = Admins(scene.people)
    _, refused = await asyncio.gather(
        admins.change(anna, "olga", role=Role.VIEWER, password=None),
        admins.remove(olga, "anna"),
        return_exceptions=True,
    )
    assert isinstance(refused, ConflictError)
    assert [a.name for a in scene.people.accounts if a.role is Role.ADMIN] == ["anna"]


async def test_the_operators_token_may_remove_the_last_admin(scene: Scene) -> None:
    async with scene.client() as client:
        answer = await client.delete("/api/accounts/anna", headers=OPERATOR)
        assert answer.status_code == 204
        assert (await client.get("/api/accounts", headers=OPERATOR)).status_code == 200


async def test_a_change_that_is_refused_in_part_is_refused(scene: Scene) -> None:
    async with scene.client() as client:
        body = {"role": "producer", "password": "short"}
        answer = await client.patch("/api/accounts/vera", json=body, headers=OPERATOR)
        assert answer.status_code == 422
    assert scene.people.account("vera").role is Role.VIEWER


# --- API tokens ---------------------------------------------------------------------------------


async def test_a_token_is_told_once_and_is_no_more_than_it_says(scene: Scene) -> None:
    async with scene.client() as client:
        await sign_in(client, "olga")
        body = {"name": "<img src=x onerror=alert(1)>", "role": "viewer"}
        made = (await client.post("/api/tokens", json=body)).json()
        headers = {"Authorization": f"Bearer {made['secret']}"}
        assert made["name"] == body["name"]  # for pages to escape; nothing here makes HTML of it
        assert (await me(client, headers))["role"] == "viewer"
        assert (await client.get("/api/log", headers=headers)).status_code == 403
        listed = (await client.get("/api/tokens")).json()["tokens"]
        assert made["id"] in [each["id"] for each in listed]
        assert made["secret"] not in str(listed)
        assert (await client.delete(f"/api/tokens/{made['id']}")).status_code == 204
        assert not (await me(client, headers))["signed_in"]
        assert (await client.get("/api/tokens", headers=headers)).status_code == 401


async def test_a_token_is_never_more_than_its_owner(scene: Scene) -> None:
    async with scene.client() as client:
        await sign_in(client, "paul")
        body = {"name": "mine", "role": "admin"}
        assert (await client.post("/api/tokens", json=body)).status_code == 422
        body = {"name": "mine", "role": "producer"}
        secret = (await client.post("/api/tokens", json=body)).json()["secret"]
        await scene.people.set_role(scene.people.account("paul"), Role.VIEWER)
        assert (await me(client, {"Authorization": f"Bearer {secret}"}))["role"] == "viewer"


async def test_a_token_makes_no_tokens_and_touches_nobody_elses(scene: Scene) -> None:
    async with scene.client() as client:
        answer = await client.post("/api/tokens", json={"name": "x"}, headers=scene.bearer("olga"))
        assert answer.status_code == 403
        await sign_in(client, "paul")
        (vera,) = scene.people.tokens(scene.people.account("vera"))
        assert (await client.delete(f"/api/tokens/{vera.id}")).status_code == 404
        for whose in ("vera", "nobody"):  # alike: accounts are not listed to it
            body = {"name": "x", "account": whose}
            assert (await client.post("/api/tokens", json=body)).status_code == 404
            assert (await client.get(f"/api/tokens?account={whose}")).status_code == 404
        answer = await client.post("/api/tokens", json={"name": "x"}, headers=OPERATOR)
        assert answer.status_code == 409
        body = {"name": "x", "account": "vera"}
        assert (await client.post("/api/tokens", json=body, headers=OPERATOR)).status_code == 201
        assert (await client.delete(f"/api/tokens/{vera.id}", headers=OPERATOR)).status_code == 204


async def test_an_expired_token_is_none(scene: Scene) -> None:
    _, secret = await scene.people.add_token(scene.people.account("anna"), "brief", Role.ADMIN, 0.0)
    async with scene.client() as client:
        headers = {"Authorization": f"Bearer {secret}"}
        assert (await client.get("/api/accounts", headers=headers)).status_code == 401


async def test_a_wrong_bearer_hides_the_session_rather_than_fall_back_to_it(scene: Scene) -> None:
    async with scene.client() as client:
        await sign_in(client, "olga")
        assert (
            await client.get("/api/log", headers={"Authorization": "Bearer x"})
        ).status_code == 401
