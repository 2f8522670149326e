"""Key frames on demand: not more often than the encoder, and all who watch, can bear."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from anabranch.media.leaf import Feed
from anabranch.site.key_frames import GAP_S, KeyFrameLimit, KeyFrames

HIGH, LOW = Feed("news", "high"), Feed("news", "low")


@given(st.lists(st.tuples(st.sampled_from([HIGH, LOW]), st.floats(0.0, 0.7)), max_size=60))
def test_two_of_one_rendition_are_a_second_apart(asked: list[tuple[Feed, float]]) -> None:
    limit, now = KeyFrameLimit(), 100.0
    made: dict[Feed, float] = {}
    for feed, pause in asked:
        now += pause
        wait = limit.wait(feed, now)
        if wait:
            assert 0 < wait <= GAP_S
            assert abs(now + wait - (made[feed] + GAP_S)) < 1e-6
        else:
            assert now - made.get(feed, 0.0) >= GAP_S
            made[feed] = now


async def test_a_storm_makes_one_at_once_and_one_when_it_may_be() -> None:
    made: list[tuple[float, Feed]] = []
    loop = asyncio.get_running_loop()
    frames = KeyFrames(lambda feed: made.append((loop.time(), feed)))
    began = loop.time()
    while loop.time() < began + 0.3:
        frames.want(HIGH)
        frames.make()
        await asyncio.sleep(0.01)
    frames.want(LOW)
    frames.make()
    assert [feed for _, feed in made] == [HIGH, LOW]
    async with asyncio.timeout(5):
        while len(made) < 3:
            await asyncio.sleep(0.01)
    assert made[2][1] == HIGH
    assert made[2][0] - made[0][0] >= GAP_S
    await asyncio.sleep(GAP_S)
    assert len(made) == 3, "the request is carried out"
