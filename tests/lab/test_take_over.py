"""A viewer's connection goes from one leaf server to another, behind one switch.

The two have one address and one identity (see app/bench/takeover_lab.py). The viewers are foreign:
aiortc and Chromium.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import structlog
from tests.lab.page import BrowserThread
from tests.lab.viewer import viewer

from anabranch.app.bench.rtp_sniffer import extended, repeats, sniffing
from anabranch.app.bench.takeover import kill
from anabranch.app.bench.takeover_lab import JUMP, SNAPSHOT_S, Half, Pair, running_pair, until
from anabranch.app.bench.takeover_switch import MEDIA_PORT
from anabranch.media.leaf_protocol import RefusedError
from anabranch.media.sdp import split

pytestmark = pytest.mark.lab
MOVES = 5


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with running_pair() as made:
        yield made


Answer = Callable[[str], Awaitable[str]]


@dataclass
class Watched:
    """A viewer that is connected: its name, and the payload type of its picture."""

    name: str
    payload_type: int


async def watched(pair: Pair, watch: Callable[[Answer], Awaitable[None]]) -> Watched:
    """Have a viewer connect: ``watch`` is given what turns its offer into an answer."""
    found: list[Watched] = []

    async def answer(offer: str) -> str:
        name, text = await pair.watch(offer)
        _session, media = split(text)
        formats = next(section.formats for section in media if section.kind == "video")
        found.append(Watched(name, int(formats[0])))
        return text

    await watch(answer)
    await pair.until_up(found[0].name)
    return found[0]


async def crash(pair: Pair, name: str) -> None:
    """Kill the serving leaf server; the other one goes on from a snapshot of a while ago."""
    snapshot = await pair.snapshot(name)
    await asyncio.sleep(SNAPSHOT_S)
    kill(pair)
    await pair.rescue(name, snapshot)


async def test_a_connection_moves_and_no_number_comes_twice(pair: Pair) -> None:
    async with viewer() as one:
        with sniffing(pair.device, MEDIA_PORT) as sniffer:
            it = await watched(pair, one.watch)
            await one.frames(10)
            servers = {pair.serving.name}
            for _ in range(MOVES):
                await pair.move(it.name)
                servers.add(pair.serving.name)
                sound = one.audio_frames
                await one.frames(15)
                assert one.audio_frames > sound
            packets = sniffer.of(it.payload_type)
    assert servers == {"a", "b"}
    assert len({packet.ssrc for packet in packets}) == 1
    numbers = extended(packets)
    assert repeats(packets) == 0
    assert sorted(set(numbers)) == list(range(min(numbers), max(numbers) + 1))
    assert _runs_on([packet.timestamp for packet in packets])


async def test_a_connection_outlives_its_server(pair: Pair) -> None:
    async with viewer() as one:
        with sniffing(pair.device, MEDIA_PORT) as sniffer:
            it = await watched(pair, one.watch)
            await one.frames(10)
            for _ in range(2):
                await pair.whole_again()
                await crash(pair, it.name)
                await one.frames(15)
                goal = one.audio_frames + 25
                await until(lambda: one.audio_frames >= goal, "the sound")  # noqa: B023
            packets = sniffer.of(it.payload_type)
        assert one.connection.connectionState == "connected"
    assert len({packet.ssrc for packet in packets}) == 1
    assert repeats(packets) == 0
    numbers = extended(packets)
    steps = [later - earlier for earlier, later in pairwise(sorted(set(numbers)))]
    jumps = [step for step in steps if step > 1]
    # What was sent between snapshot and crash is a part of the jump.
    assert len(jumps) == 2
    assert all(JUMP // 2 < jump <= JUMP for jump in jumps)
    assert _runs_on([packet.timestamp for packet in packets])


def _runs_on(timestamps: list[int]) -> bool:
    """Return whether no picture is older than the one before, or much newer."""
    steps = [(later - earlier) % 2**32 for earlier, later in pairwise(timestamps)]
    return all(step < 90_000 for step in steps)


# --- what must be refused ---------------------------------------------------------------------


async def refusal(half: Half, do: str, **fields: object) -> str:
    """Return the code with which a request is refused."""
    with pytest.raises(RefusedError) as caught:
        await half.request(do, **fields)
    return caught.value.code


async def test_bad_states_are_refused_and_do_no_harm(pair: Pair) -> None:
    async with viewer() as one:
        it = await watched(pair, one.watch)
        await one.frames(5)
        old, new = pair.serving, pair.spare
        state = await pair.snapshot(it.name)

        async def take(bad: object) -> str:
            return await refusal(new, "viewer.import", state=bad, jump=0, **new.shows())

        for nothing in (None, [], "state", {}):
            assert await take(nothing) == "invalid"
        assert await take({"viewer": it.name}) == "invalid"
        assert await take({**state, "format": state["format"] + 1}) == "invalid"
        optional = {"video", "audio"}
        for member in state.keys() - optional:
            missing = {name: value for name, value in state.items() if name != member}
            assert await take(missing) == "invalid", member
            assert await take({**state, member: {"no": "thing"}}) == "invalid", member
        for member in ("profile", "outbound", "inbound", "fingerprint", "address", "watching"):
            assert await take({**state, member: "AAAA"}) == "invalid", member
        everything = {"state": state, "jump": 0, **new.shows()}
        for member, bad in {"jump": -1, "ladder": [], "sound": "no"}.items():
            changed = {**everything, member: bad}
            assert await refusal(new, "viewer.import", **changed) == "invalid", member

        assert (await new.request("state"))["viewers"] == []
        assert await refusal(old, "viewer.import", state=state, jump=0, **old.shows()) == "exists"
        await pair.move(it.name)
        assert await refusal(new, "viewer.import", state=state, jump=0, **new.shows()) == "exists"
        assert await refusal(old, "viewer.export", viewer=it.name) == "unknown"
        assert await refusal(old, "viewer.snapshot", viewer=it.name) == "unknown"
        await one.frames(15)
        assert all(half.process.child and half.process.child.restarts == 0 for half in (old, new))


async def test_who_is_not_connected_yet_cannot_be_moved(pair: Pair) -> None:
    async with viewer() as one:
        await one.connection.setLocalDescription(await one.connection.createOffer())
        name, _answer = await pair.watch(one.connection.localDescription.sdp)
        for do in ("viewer.export", "viewer.snapshot"):
            assert await refusal(pair.serving, do, viewer=name) == "invalid"
        viewers = (await pair.serving.request("state"))["viewers"]
        assert [each["viewer"] for each in viewers] == [name]  # it may still connect


async def test_nothing_that_is_logged_or_refused_has_the_keys() -> None:
    with structlog.testing.capture_logs() as logs:
        async with running_pair() as pair, viewer() as one:
            for half in (pair.serving, pair.spare):
                await half.request("log", level="debug")
            it = await watched(pair, one.watch)
            await one.frames(5)
            state = await pair.snapshot(it.name)
            await pair.move(it.name)
            new = pair.spare
            said = []
            for member in ("profile", "outbound", "inbound", "watching"):
                bad = {**state, "viewer": "another", member: [state[member]]}
                with pytest.raises(RefusedError) as caught:
                    await new.request("viewer.import", state=bad, jump=0, **new.shows())
                said.append(str(caught.value))
            await one.frames(5)
    text = json.dumps([logs, said], default=str)
    assert text.count("leaf server started") == text.count("leaf server ended") == 2
    for member in ("outbound", "inbound", "pwd"):
        assert len(state[member]) > 16
        assert state[member] not in text


# --- Chromium ---------------------------------------------------------------------------------

OFFER = """
async () => {
  const peer = (window.peer = new RTCPeerConnection());
  const video = document.body.appendChild(document.createElement('video'));
  video.muted = video.autoplay = true;
  video.srcObject = new MediaStream();
  window.states = [];
  window.shown = [];
  peer.onconnectionstatechange = () => window.states.push(peer.connectionState);
  peer.ontrack = ({ track }) => video.srcObject.addTrack(track);
  const note = () => {
    window.shown.push(performance.now());
    video.requestVideoFrameCallback(note);
  };
  video.requestVideoFrameCallback(note);
  for (const kind of ['video', 'audio']) peer.addTransceiver(kind, { direction: 'recvonly' });
  await peer.setLocalDescription(await peer.createOffer());
  return peer.localDescription.sdp;
}
"""
FIGURES = """
async () => {
  const all = [...(await window.peer.getStats()).values()];
  const of = (kind) => all.find((each) => each.type === 'inbound-rtp' && each.kind === kind);
  const { framesDecoded, freezeCount, pliCount } = of('video');
  const { totalSamplesReceived, concealedSamples } = of('audio');
  const heard = (totalSamplesReceived - concealedSamples) / 48000;
  const { states, shown } = window;
  return { framesDecoded, freezeCount, pliCount, heard, states, shown };
}
"""


class Chromium:
    """A page of Chromium's with one connection."""

    def __init__(self, thread: BrowserThread) -> None:
        self._thread = thread
        self._page = thread.do(lambda: thread.browser.new_page())

    async def do(self, script: str, value: object = None) -> Any:
        return await asyncio.to_thread(self._thread.do, lambda: self._page.evaluate(script, value))

    async def watch(self, answer: Answer) -> None:
        sdp = await answer(await self.do(OFFER))
        await self.do("sdp => window.peer.setRemoteDescription({ type: 'answer', sdp })", sdp)

    async def figures(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.do(FIGURES)
        return found

    def close(self) -> None:
        self._thread.do(self._page.close)


@pytest.fixture
def chromium(browser: BrowserThread) -> Iterator[Chromium]:
    page = Chromium(browser)
    yield page
    page.close()


def longest_ms(shown: list[float]) -> float:
    """Return the longest time between two pictures that were shown."""
    return max(later - earlier for earlier, later in pairwise(shown))


async def test_chromium_does_not_notice_a_move(pair: Pair, chromium: Chromium) -> None:
    it = await watched(pair, chromium.watch)
    await asyncio.sleep(3)
    begun = await chromium.figures()
    await asyncio.sleep(4)
    before = await chromium.figures()
    for _ in range(MOVES):
        await pair.move(it.name)
        await asyncio.sleep(0.8)
    after = await chromium.figures()
    quiet = longest_ms(before["shown"][len(begun["shown"]) :])
    moving = longest_ms(after["shown"][len(before["shown"]) :])
    assert after["states"] == ["connecting", "connected"]
    assert after["framesDecoded"] > before["framesDecoded"] + 60
    assert after["heard"] > before["heard"] + 3  # seconds of 4
    assert (after["freezeCount"], after["pliCount"]) == (before["freezeCount"], before["pliCount"])
    assert moving < quiet + 100, (moving, quiet)


async def test_chromium_stays_connected_when_its_server_is_killed(
    pair: Pair, chromium: Chromium
) -> None:
    it = await watched(pair, chromium.watch)
    await asyncio.sleep(2)
    await crash(pair, it.name)
    before = await chromium.figures()
    await asyncio.sleep(4)
    after = await chromium.figures()
    assert after["states"] == ["connecting", "connected"]
    assert after["framesDecoded"] > before["framesDecoded"] + 60
    assert after["heard"] > before["heard"] + 3
