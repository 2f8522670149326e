"""Who may send captions and say what is on, and what is refused."""

import asyncio

import pytest
from tests.console.people.conftest import Scene

from anabranch.site.captions import MAX_TEXT


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"text": "x" * 1000}, 422),
        ({"text": "x" * (MAX_TEXT + 1)}, 422),
        ({"text": "a\x00"}, 422),
        ({"text": "a", "duration_s": 0}, 422),
        ({"text": "a", "duration_s": 31}, 422),
        ({"text": "a", "duration_s": "NaN"}, 422),
        ({"text": "a", "lang": "en"}, 422),
        ({}, 422),
        ({"text": ""}, 200),
    ],
)
async def test_what_is_no_caption_is_refused(scene: Scene, body: object, status: int) -> None:
    async with scene.client() as client:
        path = "/api/channels/shown/captions"
        answer = await client.post(path, json=body, headers=scene.bearer("paul"))
    assert answer.status_code == status, answer.text


async def test_only_who_manages_a_channel_speaks_on_it(scene: Scene) -> None:
    body = {"text": "Hello"}
    async with scene.client() as client:
        for who, channel, status in (
            (None, "shown", 401),
            ("vera", "shown", 403),
            ("ines", "shown", 403),
            ("paul", "shown", 200),
            ("olga", "shown", 200),
            ("paul", "hidden", 404),
            ("olga", "none", 404),
        ):
            path = f"/api/channels/{channel}/captions"
            answer = await client.post(path, json=body, headers=scene.bearer(who))
            assert answer.status_code == status, (who, channel)


async def test_too_many_say_when_to_go_on(scene: Scene) -> None:
    async with scene.client() as client:
        send = [
            client.post(
                "/api/channels/shown/captions", json={"text": "a"}, headers=scene.bearer("paul")
            )
            for _ in range(15)
        ]
        answers = await asyncio.gather(*send)
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert all(answer.headers["retry-after"] == "1" for answer in refused)


async def test_what_is_on_is_told_and_kept(scene: Scene) -> None:
    paul = scene.bearer("paul")
    markup = "<b>Evening</b> news"
    async with scene.client() as client:
        assert (await client.get("/api/channels/shown")).json()["now"] == ""
        path = "/api/channels/shown"
        done = await client.patch(path, json={"now": f"  {markup} "}, headers=paul)
        assert (done.status_code, done.json()["now"]) == (200, markup)
        await client.patch(path, json={"title": "Other"}, headers=paul)
        found = (await client.get(path)).json()
        assert (found["now"], found["title"]) == (markup, "Other")
        for bad in ("x" * 161, "a\nb", "a\x00", 3):
            assert (await client.patch(path, json={"now": bad}, headers=paul)).status_code == 422
        assert (await client.get(path)).json()["now"] == markup
        kept = {each.name: each.now for each in await scene.site.lineup.definitions.all()}
        assert kept["shown"] == markup
        assert (await client.patch(path, json={"now": ""}, headers=paul)).json()["now"] == ""
