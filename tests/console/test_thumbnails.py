"""Pictures of channels over HTTP, by the real ffmpeg."""

import asyncio
import shutil

import httpx
import pytest
from tests.console.conftest import MemoryLeaf
from tests.console.test_api import is_problem
from tests.media.key_frames import jpeg_size, key_frame

from anabranch.console.entity_tags import is_among
from anabranch.media.leaf import Feed, KeyFrame

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
PATH = "/api/channels/news/thumbnail.jpg"


@pytest.fixture
def shown(leaf: MemoryLeaf) -> MemoryLeaf:
    """A leaf at which somebody watches."""
    leaf.viewings["1"] = Feed("news", "high")
    leaf.key_frames[Feed("news", "high")] = KeyFrame(key_frame(), 0.5)
    return leaf


@pytest.mark.usefixtures("shown")
async def test_anybody_gets_a_jpeg_that_may_be_kept_for_a_moment(client: httpx.AsyncClient) -> None:
    answer = await client.get(PATH)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "public, max-age=5"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert jpeg_size(answer.content) == (320, 180)


@pytest.mark.usefixtures("shown")
async def test_who_has_it_is_told_so(client: httpx.AsyncClient) -> None:
    first = await client.get(PATH)
    tag = first.headers["etag"]
    for named in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await client.get(PATH, headers={"If-None-Match": named})
        assert (again.status_code, again.content) == (304, b"")
        assert (again.headers["etag"], "max-age" in again.headers["cache-control"]) == (tag, True)
    for named in ('"other"', tag.strip('"'), "", ", ,"):
        assert (await client.get(PATH, headers={"If-None-Match": named})).status_code == 200


async def test_many_at_once_cost_one_look(client: httpx.AsyncClient, shown: MemoryLeaf) -> None:
    answers = await asyncio.gather(*(client.get(PATH) for _ in range(20)))
    assert {each.status_code for each in answers} == {200}
    assert len({each.content for each in answers}) == 1
    assert shown.looks == 1


async def test_a_channel_that_nobody_has_is_404(client: httpx.AsyncClient) -> None:
    assert "no picture" in is_problem(await client.get(PATH), 404)["detail"]
    is_problem(await client.get("/api/channels/other/thumbnail.jpg"), 404)


async def test_one_that_cannot_be_decoded_is_404(
    client: httpx.AsyncClient, shown: MemoryLeaf
) -> None:
    shown.key_frames[Feed("news", "high")] = KeyFrame(b"no key frame", 0.5)
    is_problem(await client.get(PATH), 404)


def test_a_tag_is_not_a_part_of_another() -> None:
    assert is_among('"a"', ' W/"a"')
    assert not is_among('"a"', '"ab", "b"')
