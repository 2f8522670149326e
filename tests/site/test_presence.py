"""How long the site waits for a guest to do what it was told."""

import asyncio

import pytest

from anabranch.fabric.errors import FabricError
from anabranch.site import presence
from anabranch.site.presence import Presence


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "_LOOK_S", 0.01)
    monkeypatch.setattr(presence, "LOST_AFTER_S", 0.2)
    monkeypatch.setattr(presence, "_FOLLOW_S", 1.0)


async def test_what_was_told_changes_while_it_is_done() -> None:
    guest, wanted = Presence("key"), ["one"]
    waiting = asyncio.create_task(guest.until_holding(lambda: wanted[0], lambda: True))
    await asyncio.sleep(0.02)
    wanted[0] = "two"
    guest.hold("one")
    await asyncio.sleep(0.02)
    assert not waiting.done()
    guest.hold("two")
    await asyncio.wait_for(waiting, 0.2)


async def test_a_goodbye_ends_the_wait_at_once() -> None:
    guest = Presence("key")
    waiting = asyncio.create_task(guest.until_holding(lambda: "terms", lambda: True))
    await asyncio.sleep(0.02)
    guest.end()
    with pytest.raises(FabricError, match="has left"):
        await asyncio.wait_for(waiting, 0.1)


async def test_one_that_is_away_is_waited_for_less_long() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(FabricError, match="is away"):
        await Presence("key").until_holding(lambda: "terms", lambda: False)
    assert 0.2 <= loop.time() - began < 0.6
    began = loop.time()
    with pytest.raises(FabricError, match="does not do what it is told"):
        await Presence("key").until_holding(lambda: "terms", lambda: True)
    assert loop.time() - began >= 1.0


async def test_one_that_comes_back_has_its_time() -> None:
    guest, back_at = Presence("key"), asyncio.get_running_loop().time() + 0.15
    is_there = lambda: asyncio.get_running_loop().time() >= back_at  # noqa: E731
    waiting = asyncio.create_task(guest.until_holding(lambda: "terms", is_there))
    await asyncio.sleep(0.4)
    assert not waiting.done()
    guest.hold("terms")
    await asyncio.wait_for(waiting, 0.2)
