"""KeepAlive Responder: the answers, read by plain Python."""

import random
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.services.packets import is_right, leaving, slots_of, udp

from anabranch.services.batch import Batch
from anabranch.services.modules.keepalive.keepalive import KeepAliveResponder


def notify(number: int = 1, event: str = "keep-alive", to_tag: str = "", compact: bool = False,
           user: str = "alice", method: str = "NOTIFY") -> bytes:  # fmt: skip
    names = ("v", "f", "t", "i") if compact else ("Via", "From", "To", "Call-ID")
    return (
        f"{method} sip:sip.example.com SIP/2.0\r\n"
        f"{names[0]}: SIP/2.0/UDP 192.168.0.9:5060;branch=z9hG4bK{number:06};rport\r\n"
        f"{names[1]}: <sip:{user}@example.com>;tag=f{number:04}\r\n"
        f"{names[2]}: <sip:sip.example.com>{to_tag}\r\n"
        f"{names[3]}: {number:08}@192.168.0.9\r\n"
        f"CSeq: {number:05} NOTIFY\r\nEvent: {event}\r\nMax-Forwards: 70\r\n"
        "Content-Length: 0\r\n\r\n"
    ).encode()


def headers(message: bytes) -> dict[str, str]:
    first, *lines = message.decode().removesuffix("\r\n\r\n").split("\r\n")
    found = dict(line.split(": ", 1) for line in lines)
    return found | {"": first}


FILLERS = [udp(b"x" * 99)] * 5


def run(module: KeepAliveResponder, *payloads: bytes) -> list[bytes]:
    """Give a module packets all at once; and another one by one, which is another way in it."""
    packets = [udp(p, ports=(40000 + i, 5060)) for i, p in enumerate(payloads)]
    singly = KeepAliveResponder()
    singly.restore_state(module.take_state())
    slots = slots_of(*packets, *FILLERS)
    module.process(Batch(slots, slots.whole()))
    together = leaving(slots)[: len(packets)]
    for packet, expected in zip(packets, together, strict=True):
        slots = slots_of(packet)
        singly.process(Batch(slots, slots.whole()))
        assert leaving(slots) == [expected]
    assert singly.status() == module.status()
    return together


def test_answers_as_a_stateless_server_does() -> None:
    module = KeepAliveResponder()
    numbers = [1, 2, 3, 99]
    answers = run(module, *map(notify, numbers))
    tags = set()
    for i, (number, packet) in enumerate(zip(numbers, answers, strict=True)):
        assert is_right(packet)
        assert packet[12:16] == IPv4Address("10.2.0.1").packed
        assert packet[16:20] == IPv4Address("10.1.0.1").packed
        assert packet[20:24] == (5060).to_bytes(2, "big") + (40000 + i).to_bytes(2, "big")
        asked, said = headers(notify(number)), headers(packet[28:])
        assert said[""] == "SIP/2.0 200 OK"
        for name in ("Via", "From", "Call-ID", "CSeq"):
            assert said[name] == asked[name]
        to, _, tag = said["To"].partition(";tag=")
        assert to == asked["To"]
        tags.add(tag)
        assert said["Content-Length"] == "0"
        assert "Event" not in said
    assert len(tags) == 1
    assert module.status() == {"answered": 4}


def test_a_tag_of_to_is_kept() -> None:
    module = KeepAliveResponder()
    with_tag = notify(5, to_tag=";tag=theirs")
    # as long as the one before, and with nothing but a parameter that only looks like it
    without = notify(6, to_tag=";tog=theirs")
    answers = run(module, with_tag, without, with_tag)
    assert [headers(p[28:])["To"].count(";tag=") for p in answers] == [1, 1, 1]
    assert headers(answers[0][28:])["To"].endswith(";tag=theirs")
    assert headers(answers[1][28:])["To"].startswith("<sip:sip.example.com>;tog=theirs;tag=")


def test_what_is_no_keep_alive_is_forwarded() -> None:
    module = KeepAliveResponder()
    payloads = [
        notify(event="presence123"[:10]),
        notify(method="OPTION"),
        notify()[:-4] + b"x: y",
        notify().replace(b"\r\nFrom", b"\r\n folded"),
        b"NOTIFY " + b"\xff" * 200,
        b"",
        notify().replace(b"CSeq", b"XSeq"),
        notify().replace(b"Max-Forwards: 70", b"To: <sip:a@b.cc>"),
    ]
    answers = run(module, *payloads)
    assert [packet[28:] for packet in answers] == payloads
    assert all(packet[16:20] == IPv4Address("10.2.0.1").packed for packet in answers)


def test_another_event_in_the_same_layout_is_not_answered() -> None:
    module = KeepAliveResponder()
    packets = run(module, notify(1), notify(2, event="keep-xxxxx"), notify(3))
    assert [p[28:35] for p in packets] == [b"SIP/2.0", b"NOTIFY ", b"SIP/2.0"]


def test_a_line_end_elsewhere_is_another_layout() -> None:
    module = KeepAliveResponder()
    sly = notify(2).replace(b"branch=z9hG4bK", b"branch=z9\r\nX: ")
    assert len(sly) == len(notify(2))
    packets = run(module, notify(1), sly)
    assert headers(packets[0][28:])["Via"] == headers(notify(1))["Via"]
    assert headers(packets[1][28:])["Via"] == "SIP/2.0/UDP 192.168.0.9:5060;branch=z9"


@pytest.mark.parametrize("seed", range(5))
def test_many_layouts_in_one_batch(seed: int) -> None:
    draw = random.Random(seed)
    payloads = []
    for number in range(120):
        payloads.append(notify(number, compact=draw.random() < 0.5,
                               user="u" * draw.randrange(1, 9),
                               event=draw.choice(["keep-alive", "presence"])))  # fmt: skip
    together = run(KeepAliveResponder(), *payloads)
    for payload, packet in zip(payloads, together, strict=True):
        assert is_right(packet)
        assert packet[28:].startswith(b"SIP/2.0 200") == (b"keep-alive" in payload)
        if b"keep-alive" in payload:
            via = payload.split(b"\r\n")[1]
            assert via in packet


@given(st.lists(st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: notify() + b),
                max_size=6))  # fmt: skip
def test_any_payload_is_answered_or_forwarded(payloads: list[bytes]) -> None:
    packets = run(KeepAliveResponder(), *payloads) if payloads else []
    assert len(packets) == len(payloads)
    assert all(map(is_right, packets))


def test_state_goes_on() -> None:
    first, second = KeepAliveResponder(), KeepAliveResponder()
    (one,) = run(first, notify(1))
    second.restore_state(first.take_state())
    (two,) = run(second, notify(1))
    assert one == two
    assert second.status() == {"answered": 2}
