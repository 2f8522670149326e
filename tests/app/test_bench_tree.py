"""The parts of ``bench tree`` that choose and count: a wrong one would measure nothing."""

from anabranch.app.bench.tree import codec, parts, plan
from anabranch.app.bench.tree.inlet import OFFER, Packet, missing, read
from anabranch.media.sdp import parse_offer
from anabranch.tree.soleil.codec import decode, encode, type_of


def test_the_codec_is_measured_with_what_nodes_say() -> None:
    mix = codec.messages()
    assert [type_of(each.body) for each in mix] == [
        "hello",
        "stats",
        "ping",
        "reqfullstats",
        "fullstats",
    ]
    assert [decode(encode(each)) for each in mix] == mix


def test_the_codec_has_a_peer_in_the_same_run() -> None:
    whole, written, read = codec.measure(1)
    assert whole.peer is not None
    assert whole.p50 is not None
    assert written.p50 is not None
    assert read.p50 is not None
    assert whole.p50 < min(written.p50, read.p50)


def test_every_part_has_a_usual_number_of_samples() -> None:
    assert all(usual >= 1 for _, usual in parts().values())


def test_what_is_planned_has_the_size_it_is_said_to_have() -> None:
    drawn = plan.describe({})
    assert (len(drawn.nodes), len(drawn.links)) == (1000, 5000)
    assert [result.metric for result in plan.measure(1)] == [
        "plan_ms",
        "plan_limited_ms",
        "regrow_ms",
    ]


def test_rtp_is_read_from_a_frame_and_nothing_else() -> None:
    rtp = bytes.fromhex("80600102") + (7).to_bytes(4) + (99).to_bytes(4)
    udp = bytes(4) + (8 + len(rtp)).to_bytes(2) + bytes(2)
    ip = bytes.fromhex("4500") + bytes(7) + bytes((17,)) + bytes(10)
    frame = bytes(14) + ip + udp + rtp
    assert read(frame, 1.0) == Packet(1.0, 99, 0x0102)
    assert read(frame[:-1], 1.0) is None
    assert read(frame.replace(rtp, b"\x40" + rtp[1:]), 1.0) is None
    assert read(bytes(14) + ip.replace(b"\x11", b"\x06") + udp + rtp, 1.0) is None


def test_missing_packets_are_counted_for_each_ssrc_across_the_wrap() -> None:
    numbers = {1: [65534, 65535, 1, 0, 2, 4], 2: [10, 11, 11, 12]}
    packets = [Packet(0.0, ssrc, number) for ssrc, each in numbers.items() for number in each]
    assert missing(packets) == (1, 7 + 3)
    assert missing([]) == (0, 0)


def test_the_offer_of_the_viewer_who_never_comes_is_a_good_one() -> None:
    offer = parse_offer(OFFER)
    assert offer.audio_codec is not None
