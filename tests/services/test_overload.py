"""Overload Control at the edge: what it lets in, what it answers, whom it believes."""

import json
import runpy
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.services.packets import is_right, leaving, slots_of, tcp, udp

from anabranch.services.batch import Batch
from anabranch.services.blocks import sip
from anabranch.services.keys import PrivateKey
from anabranch.services.module import Context
from anabranch.services.modules.overload.overload import (
    Admission,
    Answer,
    Bucket,
    Feedback,
    Kind,
    OverloadControl,
    Report,
)

SOURCE = (b"192.0.2.9", 40000)


def request(
    method: str = "INVITE", number: int = 1, to_tag: str = "", uri: str = "sip:s@h"
) -> bytes:
    tag = f";tag={to_tag}" if to_tag else ""
    return (
        f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:40000;branch=z9hG4bK{number}\r\n"
        f"From: <sip:a@h>;tag=f{number}\r\nTo: <sip:s@h>{tag}\r\nCall-ID: c{number}@h\r\n"
        f"CSeq: 1 {method}\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    ).encode()


def admission(rate: float | None) -> Admission:
    return Admission(Bucket(rate, 0.0), b"key", 5)


def test_as_many_pass_as_the_rate_allows() -> None:
    gate = admission(100.0)
    passed = [
        gate.decide(request(number=number), SOURCE, number / 500) is True for number in range(5000)
    ]
    assert 1000 <= sum(passed) <= 1010
    assert (gate.offered, gate.admitted, gate.shed) == (5000, sum(passed), 5000 - sum(passed))


def test_a_low_rate_lets_some_in() -> None:
    bucket = Bucket(0.5, 0.0)
    assert [bucket.admits(Kind.NEW, now) for now in (0.0, 1.0, 2.1, 3.0, 4.2)] == [
        True, False, True, False, True,
    ]  # fmt: skip
    assert not Bucket(0.0, 0.0).admits(Kind.PREFERRED, 100.0)


def test_what_goes_on_comes_before_what_begins() -> None:
    """At twice the rate, half of it within dialogs: all of that passes, and little else."""
    gate = admission(100.0)
    old = new = 0
    for number in range(2000):
        now = number / 200
        old += gate.decide(request("BYE", 2 * number, "t"), SOURCE, now) is True
        new += gate.decide(request("INVITE", 2 * number + 1), SOURCE, now) is True
    assert 1000 <= old + new <= 1030
    assert old > 950


def test_what_has_no_answer_is_not_counted() -> None:
    gate = admission(0.0)
    for data in (request("ACK", to_tag="t"), request("CANCEL"), b"\r\n\r\n", b"SIP/2.0 200 OK\r\n"):
        assert gate.decide(data, SOURCE, 1.0) is True
    assert gate.offered == 0


def test_the_excess_is_answered() -> None:
    answer = gate_answer(admission(0.0), request())
    assert answer.status == 503
    assert answer.get(b"retry-after") == b"5"
    assert answer.call_id == b"c1@h"


def gate_answer(gate: Admission, data: bytes) -> sip.Message:
    verdict = gate.decide(data, SOURCE, 1.0)
    assert isinstance(verdict, Answer)
    return sip.parse(verdict.data)


def test_the_ack_to_our_answer_goes_no_further() -> None:
    gate = admission(0.0)
    tag = gate_answer(gate, request()).to_tag.decode()
    assert gate_answer(gate, request()).to_tag.decode() == tag
    assert gate.decide(request("ACK", 1, tag), SOURCE, 1.1) is False
    assert gate.decide(request("ACK", 1, "the-servers"), SOURCE, 1.1) is True


def test_retransmissions_share_the_fate_of_the_first() -> None:
    gate = admission(1.0)
    assert gate.decide(request(number=1), SOURCE, 0.0) is True
    assert isinstance(gate.decide(request(number=2), SOURCE, 0.1), Answer)
    assert gate.decide(request(number=1), SOURCE, 0.5) is True
    assert gate.offered == 2


def test_a_call_for_help_is_preferred() -> None:
    gate = admission(20.0)
    while gate.decide(request(number=gate.offered), SOURCE, 0.0) is True:
        pass
    assert gate.decide(request(number=99, uri="urn:service:sos.fire"), SOURCE, 0.0) is True


def test_what_cannot_be_read_takes_its_turn() -> None:
    gate = admission(10.0)
    verdicts = [gate.decide(b"INVITE nonsense", SOURCE, 0.0) for _ in range(10)]
    assert verdicts[0] is True
    assert verdicts[-1] is False
    assert gate.malformed == 10


@given(st.binary(max_size=300), st.booleans())
def test_any_payload_is_decided(data: bytes, behind: bool) -> None:
    verdict = admission(0.0).decide(request() + data if behind else data, SOURCE, 0.0)
    assert isinstance(verdict, bool | Answer)


# The module on a batch


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def module(**properties: str) -> tuple[OverloadControl, Clock]:
    clock = Clock()
    one = OverloadControl(clock)
    names = {name.replace("_", "-"): value for name, value in properties.items()}
    one.configure(Context("OverloadControl", "1.0.0", "itsp", names, address="192.0.2.3"))
    return one, clock


@pytest.mark.parametrize("ends", [("192.0.2.9", "198.51.100.1"), ("2001:db8::9", "2001:db8::1")])
def test_a_batch_is_sorted(ends: tuple[str, str]) -> None:
    one, _ = module(rate="20")
    source, server = ends
    packets = [udp(request(number=n), source, server, (40000, 5060)) for n in range(8)]
    foreign = tcp(b"GET / HTTP/1.1", source, server)
    slots = slots_of(*packets, foreign)
    one.process(Batch(slots, slots.whole()))
    out = leaving(slots)
    assert all(map(is_right, out))
    answers = [packet for packet in out if b"SIP/2.0 503" in packet]
    assert [p for p in out if p not in answers] == [*packets[:2], foreign]
    at = 40 if ":" in source else 20
    ends_at = (8, 24, 16) if ":" in source else (12, 16, 4)
    for packet in answers:
        first, second, size = ends_at
        assert packet[first : first + size] == ip_address(server).packed
        assert packet[second : second + size] == ip_address(source).packed
        assert packet[at : at + 4] == bytes.fromhex("13c49c40")
        assert sip.parse(packet[at + 8 :]).status == 503
    assert one.status()["shed"] == 6


def test_an_answer_goes_where_via_says() -> None:
    """RFC 3261, 18.2.2: not to where the request came from, unless ``rport`` asks for that."""
    one, _ = module(rate="0")
    asking = request().replace(b"40000;branch", b"40000;rport;branch")
    bare = request().replace(b"192.0.2.9:40000;", b"192.0.2.9;")
    packets = [udp(data, ports=(33000, 5060)) for data in (request(), asking, bare)]
    slots = slots_of(*packets)
    one.process(Batch(slots, slots.whole()))
    out = leaving(slots)
    assert all(map(is_right, out))
    assert [int.from_bytes(packet[22:24]) for packet in out] == [40000, 33000, 5060]


def test_an_answer_without_room_is_none() -> None:
    one, _ = module(rate="0")
    long = request().replace(
        b"Max-Forwards", b"Via: SIP/2.0/UDP h" + b"x" * 1390 + b"\r\nMax-Forwards"
    )
    slots = slots_of(udp(long))
    one.process(Batch(slots, slots.whole()))
    assert leaving(slots) == []


@pytest.mark.parametrize(
    "properties",
    [{"rate": "-1"}, {"rate": "nan"}, {"rate": "much"}, {"retry_after": "x"},
     {"feedback": "nowhere"}, {"feedback": "192.0.2.1:0"}, {"feedback": "192.0.2.1:5066"}],
)  # fmt: skip
def test_bad_properties_are_refused(properties: dict[str, str]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - what the contract asks for
        module(**properties)


# Feedback

KEY = PrivateKey.generate()


def with_feedback(**more: str) -> tuple[OverloadControl, Clock]:
    return module(feedback="192.0.2.1:5066", key=str(KEY.public), **more)


def say(one: OverloadControl, clock: Clock, seq: int, rate: float | None, key: PrivateKey = KEY,
        name: str | None = None) -> None:  # fmt: skip
    feedback = Feedback(name or one._id, seq, rate, 2.0, "cookie")
    one.hear(feedback.encode(key.sign), clock.now)


def test_feedback_sets_the_rate() -> None:
    one, clock = with_feedback(rate="10")
    say(one, clock, 5, 40.5)
    assert one.status()["rate"] == 40.5
    say(one, clock, 4, 99.0)  # late
    say(one, clock, 9, 99.0, PrivateKey.generate())
    say(one, clock, 9, 99.0, name="another")
    one.hear(b"\xff\n[]", clock.now)
    assert one.status()["rate"] == 40.5
    say(one, clock, 6, None)
    assert one.status()["rate"] == "unlimited"


def test_without_feedback_control_ends() -> None:
    one, clock = with_feedback()
    say(one, clock, 1, 3.0)
    clock.now += 1.9
    one._exchange()
    assert one.status()["rate"] == 3.0
    clock.now += 0.2
    one._exchange()
    assert one.status()["rate"] == "unlimited"


def test_a_successor_goes_on() -> None:
    one, clock = with_feedback()
    say(one, clock, 1, 3.0)
    other, _ = with_feedback()
    other.restore_state(one.take_state())
    assert other.status()["rate"] == 3.0
    assert other.admission.key == one.admission.key


@given(st.binary(max_size=200))
def test_any_datagram_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Feedback.parse(data, KEY.public)


@given(st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6),
))  # fmt: skip
def test_any_document_is_read_or_refused(document: object) -> None:
    said = json.dumps(document).encode()
    signed = KEY.sign("overload-feedback", said).hex().encode() + b"\n" + said
    for read in (Report.parse, lambda data: Feedback.parse(signed, KEY.public)):
        try:
            read(said)
        except ValueError:
            continue


def test_reports_come_back_as_they_went() -> None:
    report = Report("id", "token", "cookie", 3, 2, 1)
    assert Report.parse(report.encode()) == report


def test_the_example_works(capsys: pytest.CaptureFixture[str]) -> None:
    found = runpy.run_path(str(Path(__file__).parents[2] / "examples/overload_at_the_edge.py"))
    assert found["main"]() == 0
    assert "200 of these pass" in capsys.readouterr().out
