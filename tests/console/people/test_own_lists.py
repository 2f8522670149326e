"""Who may see more has a list of its own; the one that is kept for everybody is nobody else's."""

from tests.console.people.conftest import Scene

from anabranch.channels.definitions import Change


async def test_each_has_its_own_list_and_its_own_tag(scene: Scene) -> None:
    async with scene.client() as client:
        answers = [
            await client.get("/api/channels", headers=scene.bearer(who))
            for who in (None, "paul", "ines", None, "ines")
        ]
        names = [[each["name"] for each in answer.json()["channels"]] for answer in answers]
        tags = [answer.headers["etag"] for answer in answers]
        assert names[0] == names[1] == names[3] == ["news", "shown"]
        assert names[2] == names[4] == ["news", "hidden", "byname", "shown"]
        assert (tags[0], tags[2]) == (tags[3], tags[4])
        assert len(set(tags)) == 3  # paul manages one that others only watch
        kept = [answer.headers["cache-control"] for answer in answers[:3]]
        assert kept == ["no-cache", "private, no-cache", "private, no-cache"]
        # What one has is not what another has.
        for who, tag in (("ines", tags[2]), (None, tags[0])):
            headers = {"If-None-Match": tag}
            same = await client.get("/api/channels", headers={**headers, **scene.bearer(who)})
            other = await client.get("/api/channels", headers={**headers, **scene.bearer("paul")})
            assert (same.status_code, other.status_code) == (304, 200)


async def test_what_becomes_private_leaves_the_list_at_once(scene: Scene) -> None:
    async with scene.client() as client:
        tag = (await client.get("/api/channels")).headers["etag"]
        await scene.site.change_channel("shown", Change(visibility="private"))
        fresh = await client.get("/api/channels", headers={"If-None-Match": tag})
        assert [each["name"] for each in fresh.json()["channels"]] == ["news"]
        await scene.site.change_channel("hidden", Change(title="Another"))
        again = await client.get("/api/channels", headers={"If-None-Match": fresh.headers["etag"]})
        assert again.status_code == 304
