"""Channels that are not for everybody: unseen wherever channels are seen, until one is let in."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import httpx
import pytest
from tests.console.conftest import OFFER, OPERATOR, MemoryLeaf
from tests.console.people.conftest import PASSWORD, Scene
from tests.console.people.test_people_api import sign_in
from tests.console.test_api import Served, next_event, subscribers
from tests.waiting import until

from anabranch.channels.definitions import Change, Visibility
from anabranch.console.channels_api import kind_told
from anabranch.console.people.credentials import Credentials
from anabranch.console.people.doors import Doors
from anabranch.console.people.roles import Role
from anabranch.core.events import Event
from anabranch.store.database import Database

SDP = {"Content-Type": "application/sdp"}


async def names(client: httpx.AsyncClient, headers: dict[str, str] | None = None) -> list[str]:
    found = (await client.get("/api/channels", headers=headers)).json()["channels"]
    return [each["name"] for each in found]


async def watch(
    client: httpx.AsyncClient, channel: str, headers: dict[str, str] | None = None
) -> httpx.Response:
    return await client.post(f"/whep/{channel}", content=OFFER, headers={**SDP, **(headers or {})})


async def test_the_list_has_what_is_for_whoever_asks(scene: Scene) -> None:
    async with scene.client() as client:
        for who in (None, "vera", "paul"):
            assert await names(client, scene.bearer(who)) == ["news", "shown"]
        for who in ("ines", "olga", "anna", "operator token"):
            found = await names(client, scene.bearer(who))
            assert found == ["news", "hidden", "byname", "shown"]


async def test_an_unlisted_channel_is_watched_by_its_name(scene: Scene) -> None:
    async with scene.client() as client:
        found = (await client.get("/api/channels/byname")).json()
        assert (found["visibility"], found["owner"], found["may_manage"]) == (
            "unlisted",
            None,
            False,
        )
        assert (await watch(client, "byname")).status_code == 201
        mine = (await client.get("/api/channels/byname", headers=scene.bearer("ines"))).json()
        assert (mine["owner"], mine["may_manage"]) == ("ines", True)


@pytest.mark.parametrize("who", [None, "vera", "paul"])
async def test_a_private_channel_is_nowhere_for_others(scene: Scene, who: str | None) -> None:
    await scene.channel("camera", "private", "ines")
    async with scene.client() as client:
        for method, path in (
            ("GET", "/api/channels/{}"),
            ("GET", "/api/channels/{}/thumbnail.jpg"),
            ("POST", "/whep/{}"),
        ):
            bearer = scene.bearer(who)
            content = OFFER if method == "POST" else None
            answers = [
                await client.request(
                    method, path.format(name), headers={**SDP, **bearer}, content=content
                )
                for name in ("hidden", "absent")
            ]
            assert [answer.status_code for answer in answers] == [404, 404]
            assert answers[0].text.replace("hidden", "absent") == answers[1].text
        for path in ("/api/channels", "/metrics"):
            text = (await client.get(path, headers=scene.bearer(who))).text
            assert "news" in text
            assert "hidden" not in text
            assert "byname" not in text


async def test_metrics_tell_operators_of_every_channel(scene: Scene) -> None:
    async with scene.client() as client:
        text = (await client.get("/metrics", headers=scene.bearer("olga"))).text
    assert 'channel="hidden"' in text
    assert 'child="encoder:hidden"' in text


async def test_a_wrong_key_does_not_tell_that_there_is_a_channel(scene: Scene) -> None:
    async with scene.client() as client:
        headers = {**SDP, "Authorization": "Bearer wrong"}
        hidden = await client.post("/whip/hidden", content=OFFER, headers=headers)
        absent = await client.post("/whip/absent", content=OFFER, headers=headers)
        shown = await client.post("/whip/shown", content=OFFER, headers=headers)
    assert (hidden.status_code, shown.status_code) == (404, 401)
    assert hidden.text.replace("hidden", "absent") == absent.text


async def test_keys_are_not_guessed_for_long(scene: Scene) -> None:
    async with scene.client(address="203.0.113.5") as client:
        statuses = [
            (
                await client.post(
                    "/whip/shown", content=OFFER, headers={**SDP, "Authorization": f"Bearer k{n}"}
                )
            ).status_code
            for n in range(25)
        ]
    assert statuses == [401] * 20 + [429] * 5


async def test_nobody_zaps_from_a_public_channel_to_a_private_one(
    scene: Scene, leaf: MemoryLeaf
) -> None:
    async with scene.client() as client:
        seat = (await watch(client, "shown")).headers["location"]
        for target in ("hidden", "absent"):
            answer = await client.post(f"{seat}/change", json={"channel": target})
            assert answer.status_code == 404
            assert answer.json()["detail"] == f"there is no channel named '{target}'"
        assert (await client.post(f"{seat}/change", json={"channel": "byname"})).status_code == 200
        headers = scene.bearer("ines")
        answer = await client.post(f"{seat}/change", json={"channel": "hidden"}, headers=headers)
        assert answer.status_code == 200


async def test_who_is_let_in_sees_it_and_who_is_put_out_is_ended(
    scene: Scene, leaf: MemoryLeaf
) -> None:
    async with scene.client() as owner, scene.client() as vera:
        await sign_in(owner, "ines")
        await sign_in(vera, "vera")
        place = "/api/channels/hidden/viewers"
        assert (await owner.put(f"{place}/nobody")).status_code == 404
        assert (await owner.put(f"{place}/vera")).status_code == 204
        assert (await owner.get(place)).json() == {"accounts": ["vera"]}
        assert "hidden" in await names(vera)
        assert (await watch(vera, "hidden")).status_code == 201
        assert (await vera.get("/api/channels/hidden/detail")).status_code == 403
        assert (await owner.delete(f"{place}/vera")).status_code == 204
        assert len(scene.site.seats) == 0
        assert leaf.viewings == {}
        assert "hidden" not in await names(vera)
        assert (await owner.delete(f"{place}/vera")).status_code == 404


# --- share links --------------------------------------------------------------------------------


async def share(client: httpx.AsyncClient, scene: Scene, **body: object) -> dict[str, Any]:
    answer = await client.post(
        "/api/channels/hidden/shares", json=body, headers=scene.bearer("ines")
    )
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def link(made: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {made['secret']}"}


async def test_a_link_is_for_its_channel_and_nothing_else(scene: Scene, leaf: MemoryLeaf) -> None:
    await scene.channel("other", "private", "ines")
    async with scene.client() as client:
        made = await share(client, scene, name="<b>the press</b>", expires_in_s=3600)
        assert made["url"].endswith(f"/watch/hidden#share={made['secret']}")
        assert (await client.get("/api/channels/hidden", headers=link(made))).status_code == 200
        assert (await watch(client, "hidden", link(made))).status_code == 201
        assert (await client.get("/api/channels/other", headers=link(made))).status_code == 404
        assert await names(client, link(made)) == ["news", "shown"]
        assert (await client.get("/api/log", headers=link(made))).status_code == 401
        shares = await client.get("/api/channels/hidden/shares", headers=scene.bearer("ines"))
        (listed,) = shares.json()["shares"]
        assert listed["used"] is not None
        assert made["secret"] not in shares.text
        # Who has a link and an account has both.
        await sign_in(client, "ines")
        assert (await client.get("/api/channels/other", headers=link(made))).status_code == 200


async def test_a_link_that_is_revoked_ends_its_seats_only(scene: Scene, leaf: MemoryLeaf) -> None:
    async with scene.client() as client:
        first, second = await share(client, scene), await share(client, scene)
        for made in (first, second):
            assert (await watch(client, "hidden", link(made))).status_code == 201
        place = f"/api/channels/hidden/shares/{first['id']}"
        assert (await client.delete(place, headers=scene.bearer("paul"))).status_code == 404
        assert (await client.delete(place, headers=scene.bearer("ines"))).status_code == 204
        assert len(leaf.viewings) == len(scene.site.seats) == 1
        assert (await watch(client, "hidden", link(first))).status_code == 404
        assert (await watch(client, "hidden", link(second))).status_code == 201
        assert (await client.delete(place, headers=scene.bearer("ines"))).status_code == 404


async def test_an_expired_link_is_as_none_and_its_seats_end(
    scene: Scene, doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene.client() as client:
        made = await share(client, scene, expires_in_s=60)
        assert (await watch(client, "hidden", link(made))).status_code == 201
        later = made["expires"]
        monkeypatch.setattr("anabranch.channels.audience.time.time", lambda: later)
        await doors.look()
        assert len(scene.site.seats) == 0
        expired = await watch(client, "hidden", link(made))
        absent = await watch(client, "absent", link(made))
        assert expired.status_code == 404
        assert expired.text.replace("hidden", "absent") == absent.text
        shares = await client.get("/api/channels/hidden/shares", headers=scene.bearer("ines"))
        assert shares.json() == {"shares": []}


@pytest.mark.parametrize(
    "secret", ["abs_", "abs_x", f"abs_{'A' * 43}", f"abs_{'A' * 42}\xe9", "{}"]
)
async def test_a_made_up_link_is_worth_nothing(scene: Scene, secret: str) -> None:
    async with scene.client() as client:
        made = await share(client, scene)
        headers = {
            "Authorization": f"Bearer {secret.format(made['secret'] + 'x')}".encode("latin-1")
        }
        answer = await client.get("/api/channels/hidden", headers=headers)
    assert answer.status_code == 404


async def test_links_and_guests_of_a_channel_do_not_outlive_it(scene: Scene) -> None:
    async with scene.client() as client:
        made = await share(client, scene)
        await client.put("/api/channels/hidden/viewers/vera", headers=OPERATOR)
        await client.delete("/api/channels/hidden", headers=OPERATOR)
        await scene.channel("hidden", "private", "paul")
        assert (await client.get("/api/channels/hidden", headers=link(made))).status_code == 404
        vera = await client.get("/api/channels/hidden", headers=scene.bearer("vera"))
        assert vera.status_code == 404
        await scene.site.audience.load()  # nor does the store remember
        assert scene.site.audience.shares("hidden") == []
        assert not scene.site.audience.accounts("hidden")


async def test_a_channel_that_becomes_private_ends_strangers_and_keeps_its_own(
    scene: Scene, leaf: MemoryLeaf
) -> None:
    async with scene.client() as client:
        await watch(client, "byname")
        await watch(client, "byname", scene.bearer("ines"))
        await watch(client, "byname", scene.bearer("operator token"))
        answer = await client.patch(
            "/api/channels/byname", json={"visibility": "private"}, headers=scene.bearer("ines")
        )
        assert answer.status_code == 200
        assert len(leaf.viewings) == len(scene.site.seats) == 2
        # And then the owner's reason goes, too.
        await scene.people.remove(scene.people.account("ines"))
        await Doors(scene.site, scene.people).look()
        assert [seat.holder for seat in scene.site.seats] == ["operator"]


async def test_who_is_put_out_is_told_that_it_is_over(scene: Scene) -> None:
    served = Served(scene.app)
    try:
        async with httpx.AsyncClient(base_url=served.url) as client:
            made = await share(client, scene)
            seat = (await watch(client, "hidden", link(made))).headers["location"]
            stream = (await client.post(f"{seat}/sse")).headers["location"]
            async with client.stream("GET", stream) as answer, asyncio.timeout(10):
                lines = answer.aiter_lines()
                await until(lambda: scene.site.events._queues)
                place = f"/api/channels/hidden/shares/{made['id']}"
                await client.delete(place, headers=scene.bearer("ines"))
                names = [line[7:] async for line in lines if line.startswith("event: ")]
            assert names[-1] == "ended"
            assert "reconnect" not in names
    finally:
        await served.stop()


async def test_signing_out_ends_the_seat_on_a_private_channel(scene: Scene) -> None:
    async with scene.client() as client:
        await sign_in(client, "ines")
        assert (await watch(client, "hidden")).status_code == 201
        await client.post("/api/logout")
        assert len(scene.site.seats) == 0


# --- what a producer may -------------------------------------------------------------------------


async def test_a_producer_names_no_file_or_url_of_the_directors(scene: Scene) -> None:
    async with scene.client() as client:
        for source in (
            *("/etc/passwd", "file:/etc/passwd", "http://127.0.0.1:1/x.m3u8"),
            *("rtsp://10.0.0.1/", "srt://10.0.0.1:9000", "rtp://127.0.0.1:5000"),
        ):
            body = {"name": "mine", "source": source}
            answer = await client.post("/api/channels", json=body, headers=scene.bearer("paul"))
            assert answer.status_code in (403, 422), source
            answer = await client.patch(
                "/api/channels/shown", json={"source": source}, headers=scene.bearer("paul")
            )
            assert answer.status_code in (403, 422), source
        assert (await scene.site.lineup.definitions.all())[-1].source == "whip"


async def test_a_producer_owns_what_it_adds_and_gives_nothing_away(scene: Scene) -> None:
    async with scene.client() as client:
        headers = scene.bearer("paul")
        body = {"name": "mine", "source": "whip", "owner": "ines"}
        answer = await client.post("/api/channels", json=body, headers=headers)
        assert answer.status_code == 403
        for owner in ("ines", None):
            answer = await client.patch(
                "/api/channels/shown", json={"owner": owner}, headers=headers
            )
            assert answer.status_code == 403
        answer = await client.patch("/api/channels/shown", json={"owner": "ines"}, headers=OPERATOR)
        assert answer.json()["owner"] == "ines"
        assert (await client.get("/api/channels/shown/detail", headers=headers)).status_code == 403


async def test_viewers_are_not_told_where_a_failed_source_is(scene: Scene) -> None:
    channel = scene.site.channel("shown")
    channel.encoder.state = type(channel.encoder.state)(running=True)
    channel._trouble = "rtsp://10.1.2.3/: connection refused"
    channel.publisher = "x"
    async with scene.client() as client:
        for who in (None, "vera", "ines"):
            found = await client.get("/api/channels/shown", headers=scene.bearer(who))
            assert found.json()["detail"] == "the source is lost"
        mine = await client.get("/api/channels/shown", headers=scene.bearer("paul"))
        assert "10.1.2.3" in mine.json()["detail"]


# --- changing a channel --------------------------------------------------------------------------


async def test_a_change_that_is_refused_changes_nothing(scene: Scene) -> None:
    before = await scene.site.lineup.definitions.all()
    taken = scene.site.channel("byname").definition.key
    async with scene.client() as client:
        for body, status in (
            ({"title": "New", "key": "short"}, 422),
            ({"title": "New", "key": taken}, 409),
            ({"title": "\u0000"}, 422),
            ({"title": "New", "source": "gopher://x"}, 422),
            ({"title": "New", "visibility": "secret"}, 422),
            ({"title": "New", "once": True}, 422),
            ({"title": "New", "owner": "nobody"}, 404),
            ({"title": "New", "new_key": True, "key": "k" * 12}, 422),
            ({"name": "other"}, 422),
        ):
            answer = await client.patch("/api/channels/hidden", json=body, headers=OPERATOR)
            assert answer.status_code == status, body
        answer = await client.patch("/api/channels/absent", json={"title": "x"}, headers=OPERATOR)
        assert answer.status_code == 404
    assert await scene.site.lineup.definitions.all() == before
    assert [c.definition for c in scene.site.channels][1:] == before


async def test_title_key_and_visibility_are_changed_and_told(scene: Scene) -> None:
    told = []
    scene.site.events.publish = lambda event: told.append((event.kind, event.subject))  # type: ignore[method-assign]
    async with scene.client() as client:
        headers = scene.bearer("ines")
        body = {"title": " <i>Now</i> ", "visibility": "public", "new_key": True}
        old = scene.site.channel("hidden").definition
        answer = await client.patch("/api/channels/hidden", json=body, headers=headers)
        found = answer.json()
        assert (found["title"], found["visibility"]) == ("<i>Now</i>", "public")
        assert found["key"] not in (None, old.key)
        assert "hidden" in await names(client)
    assert ("channel.changed", "hidden") in told
    (kept,) = (d for d in await scene.site.lineup.definitions.all() if d.name == "hidden")
    assert (kept.title, kept.key, kept.owner) == ("<i>Now</i>", found["key"], old.owner)


async def test_a_store_that_is_full_refuses_the_change_and_nothing_is_otherwise(
    scene: Scene,
) -> None:
    before = scene.site.channel("hidden").definition
    definitions = scene.site.lineup.definitions
    good = definitions._database
    definitions._database = Database("sqlite+aiosqlite:////no/such/place.db")
    async with scene.client() as client:
        answer = await client.patch("/api/channels/hidden", json={"title": "x"}, headers=OPERATOR)
    await definitions._database.close()
    definitions._database = good
    assert answer.status_code == 507
    assert scene.site.channel("hidden").definition == before


# --- events --------------------------------------------------------------------------------------


def test_events_are_told_of_what_is_in_ones_list() -> None:
    told = {"news"}

    def tell(kind: str, name: str, *now: str) -> str | None:
        return kind_told(Event(kind, name), told, there=name in now)

    assert tell("channel.live", "hidden", "news") is None
    assert tell("seat.taken", "hidden", "news") is None
    assert tell("channel.removed", "hidden", "news") is None
    assert tell("publisher.came", "news", "news") is None
    assert tell("leaf.ready", "leaf1", "news") == "leaf.ready"
    assert tell("channel.live", "news", "news") == "channel.live"
    assert tell("channel.changed", "hidden", "news", "hidden") == "channel.added"
    assert tell("channel.changed", "hidden", "news", "hidden") == "channel.changed"
    assert tell("seat.taken", "hidden", "news", "hidden") == "seat.taken"
    # Another event in between does not swallow the end.
    assert tell("seat.freed", "hidden", "news") is None
    assert tell("channel.removed", "hidden", "news") == "channel.removed"
    assert tell("channel.removed", "hidden", "news") is None


async def read_events(
    scene: Scene, headers: dict[str, str], count: int, *happen: Callable[[], Awaitable[object]]
) -> list[tuple[str, str]]:
    """Return the first events that somebody is told while things happen."""
    served = Served(scene.app)
    found: list[tuple[str, str]] = []
    try:
        async with (
            httpx.AsyncClient(base_url=served.url, headers=headers) as client,
            client.stream("GET", "/api/events") as answer,
            asyncio.timeout(10),
        ):
            await subscribers(scene.site, 1)
            for each in happen:
                await each()
            lines = answer.aiter_lines()
            while len(found) < count:
                event = await next_event(lines)
                found.append((event["kind"], event["subject"]))
        await subscribers(scene.site, 0)
    finally:
        await served.stop()
    return found


async def test_a_stream_of_events_tells_nobody_of_hidden_channels(scene: Scene) -> None:
    site = scene.site

    async def say(kind: str, name: str) -> None:
        site.events.publish(Event(kind, name))

    async def change(name: str, visibility: Visibility) -> None:
        await site.change_channel(name, Change(visibility=visibility))

    steps = (
        partial(say, "channel.live", "hidden"),
        partial(say, "seat.taken", "byname"),
        partial(change, "shown", "private"),
        partial(say, "channel.live", "shown"),
        partial(change, "byname", "public"),
        partial(say, "seat.taken", "byname"),
    )
    told = await read_events(scene, {}, 3, *steps)
    assert told == [
        ("channel.removed", "shown"),
        ("channel.added", "byname"),
        ("seat.taken", "byname"),
    ]


async def test_a_stream_goes_on_as_nobodys_when_the_token_is_revoked(scene: Scene) -> None:
    site, people = scene.site, scene.people

    async def say(kind: str, name: str) -> None:
        site.events.publish(Event(kind, name))
        await until(lambda: all(queue.empty() for queue in site.events._queues))

    async def revoke() -> None:
        (token,) = people.tokens(people.account("olga"))
        await people.revoke_token(token.id, None)

    steps = (
        partial(say, "channel.live", "hidden"),
        revoke,
        partial(say, "seat.taken", "hidden"),
        partial(say, "channel.live", "news"),
    )
    told = await read_events(scene, scene.bearer("olga"), 2, *steps)
    assert told == [("channel.live", "hidden"), ("channel.live", "news")]


async def test_who_may_see_it_depends_on_the_role_that_one_has_now(scene: Scene) -> None:
    vera = scene.people.account("vera")
    _, secret = await scene.people.sign_in("vera", PASSWORD, "192.0.2.1")
    definition = scene.site.channel("hidden").definition
    audience = scene.site.audience
    shown = Credentials(session=secret)
    assert not scene.people.caller(shown).may_see(definition, audience)
    await scene.people.set_role(vera, Role.OPERATOR)
    assert scene.people.caller(shown).may_see(definition, audience)
    changed = Change(visibility="public").of(definition)
    await scene.people.set_role(vera, Role.VIEWER)
    assert scene.people.caller(shown).is_listed(changed, audience)
