"""Streams that arrive ready made are sent on by the real worker, and the slate when they do not."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psutil
import pytest
from tests.lab.test_media_encoder import channel
from tests.waiting import until

from anabranch.media.errors import EncoderError
from anabranch.media.relay import bind
from anabranch.media.rendition import AUDIO

pytestmark = pytest.mark.lab
SSRC = 4711


@asynccontextmanager
async def sending(port: int, ssrc: int = SSRC) -> AsyncIterator[None]:
    """Send numbered packets of plain RTP there, 50 a second."""

    async def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gate:
            number = 0
            while True:
                header = struct.pack("!BBHII", 0x80, 96, number % 65536, number * 1800, ssrc)
                gate.sendto(header + b"\x41slice", ("127.0.0.1", port))
                number += 1
                await asyncio.sleep(0.02)

    task = asyncio.create_task(send())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def from_slate(receiver, ssrc):
    return [packet for packet in receiver.packets if packet.ssrc == ssrc]


async def test_what_arrives_is_sent_as_it_is_and_the_slate_else(directory):
    async with channel(directory) as (encoder, _):
        sockets = {name: bind(0) for name in ("high", AUDIO)}
        port = sockets["high"].getsockname()[1]
        await encoder.relay(sockets)
        slate = encoder.state.ssrcs["high"]
        await until(lambda: len(encoder.high.packets) > 10)
        assert encoder.state.relayed == frozenset()
        async with sending(port):
            await until(lambda: encoder.state.relayed == {"high"})
            assert (encoder.state.video, encoder.state.audio) == ("live", "silence")
            count = len(encoder.high.packets)
            await until(lambda: len(encoder.high.packets) >= count + 50)
            passed = [it for it in encoder.high.packets if it.ssrc == SSRC]
            assert [it.seq for it in passed] == list(range(len(passed))), "from the first one on"
            since = encoder.high.packets.index(passed[0])
            strays = [it for it in encoder.high.packets[since + 2 :] if it.ssrc == slate]
            assert strays == [], "one or the other"
            # The others go on being encoded.
            low = len(encoder.low.packets)
            await until(lambda: len(encoder.low.packets) > low + 20)
        last = passed[-1].arrived
        await until(lambda: encoder.state.relayed == frozenset())
        assert encoder.state.video == "slate"
        encoder.high.packets.clear()
        await until(lambda: len(encoder.high.pictures()) > 5)
        first = encoder.high.pictures()[0]
        assert from_slate(encoder.high, slate)
        assert first.arrived - last < 10
        # It begins with a key frame, and again and again.
        assert len(encoder.high.decode()) >= 4
        for _ in range(2):
            async with sending(port):
                await until(lambda: encoder.state.relayed == {"high"})
            await until(lambda: encoder.state.relayed == frozenset())
        await encoder.end_relay()
        bind(port).close()  # it is free at once


async def test_the_sound_alone_is_no_picture(directory):
    async with channel(directory) as (encoder, _):
        sockets = {name: bind(0) for name in ("high", "low", AUDIO)}
        port = sockets[AUDIO].getsockname()[1]
        await encoder.relay(sockets)
        async with sending(port):
            await until(lambda: encoder.state.relayed == {AUDIO})
            assert (encoder.state.video, encoder.state.audio) == ("slate", "live")
            await encoder.end_relay()
            await until(lambda: encoder.state.relayed == frozenset())
            assert encoder.state.audio == "silence"
            silence = encoder.state.ssrcs[AUDIO]
            encoder.sound.packets.clear()
            await until(lambda: len(from_slate(encoder.sound, silence)) > 20)


async def test_a_worker_that_is_killed_gets_its_ports_again(directory):
    async with channel(directory) as (encoder, _):
        sockets = {"high": bind(0)}
        port = sockets["high"].getsockname()[1]
        await encoder.relay(sockets)
        async with sending(port):
            await until(lambda: encoder.state.relayed == {"high"})
            life = encoder.state.generation
            psutil.Process(encoder.pid).kill()
            await until(lambda: encoder.state.generation > life)
            assert encoder.state.relayed == frozenset()
            await until(lambda: encoder.state.relayed == {"high"})


async def test_nonsense_at_its_socket_harms_nothing(directory):
    async with channel(directory) as (encoder, _):
        for message in (b"nonsense", b'{"streams": ["high"]}', b'{"streams": ["nothing"]}'):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
                link.connect(str(encoder.config.relay_path))
                fds = [link.fileno()] if b"nothing" in message else []
                socket.send_fds(link, [message], fds)
                await until(lambda: encoder.state.detail != "")
        with pytest.raises(EncoderError, match="no stream"):
            await encoder.relay({"nothing": bind(0)})
        count = len(encoder.high.packets)
        await until(lambda: len(encoder.high.packets) > count + 20)
