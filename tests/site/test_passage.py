"""What a publisher's layers are to be: ports, SSRCs, formats."""

import os
from contextlib import closing

import pytest
from tests.site.test_whip import free_pair

from anabranch.host.addresses import is_udp_port_free
from anabranch.media.encoder import EncoderState
from anabranch.media.relay import bind
from anabranch.media.rendition import AUDIO, DEFAULT_LADDER, Format
from anabranch.site.passage import Passage

FORM = Format(video_payload_type=102, audio_payload_type=120, audio_bitrate_kbps=48)
ENCODED = EncoderState(running=True, ssrcs={"high": 1, "low": 2, AUDIO: 3}, epoch_ms=1_234_567)


def test_the_largest_rendition_is_the_first() -> None:
    first = free_pair()
    ladder = tuple(reversed(DEFAULT_LADDER))
    passage = Passage.open(ladder, FORM, ENCODED, [first, first + 1, 0], [])
    plan = passage.plan
    told = [(it.name, it.payload_type, it.kbps, it.port) for it in (*plan.renditions, plan.sound)]
    assert told == [
        ("high", 102, 1000, first),
        ("low", 102, 300, first + 1),
        (AUDIO, 120, 48, 0),
    ]
    assert plan.epoch_ms == 1_234_567
    ssrcs = {it.ssrc for it in (*plan.renditions, plan.sound)}
    assert len(ssrcs) == 3
    assert not ssrcs & {0, 1, 2, 3}
    passage.close()


def test_ports_are_held_until_it_is_closed() -> None:
    before = len(os.listdir("/proc/self/fd"))
    held = free_pair()
    passage = Passage.open(DEFAULT_LADDER, FORM, ENCODED, [0, 0, 0], [held, held + 1])
    assert not is_udp_port_free(held + 1)
    taken = passage.take_sockets()
    assert sorted(taken) == [AUDIO, "high", "low"]
    assert passage.take_sockets() == {}
    passage.close()
    passage.close()
    assert is_udp_port_free(held)
    for each in taken.values():
        each.close()  # its own, whoever closed the passage
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_taken_port_leaves_nothing_bound() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with closing(bind(0)) as other, pytest.raises(OSError, match="in use"):
        Passage.open(DEFAULT_LADDER, FORM, ENCODED, [0, 0, 0], [other.getsockname()[1]])
    assert len(os.listdir("/proc/self/fd")) == before
