"""LLDP frames: read by a stranger, forged, replayed and garbled. os-ken is the stranger."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from os_ken.lib.packet import ethernet, lldp, packet

from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.lldp import (
    Authenticator,
    Lldpdu,
    Probe,
    Refusal,
    decode,
    encode,
    is_lldp,
    probe_in,
)
from anabranch.fabric.model import PortRef

KEY = bytes(range(32))
HERE, THERE, ELSEWHERE = PortRef("a", 1), PortRef("b", 2), PortRef("c", 3)
HEADER = bytes.fromhex("0180c200000e 020000000001 88cc")

identifiers = st.tuples(st.integers(0, 255), st.binary(min_size=1, max_size=255))
tlvs = st.tuples(st.integers(4, 126), st.binary(max_size=511)) | st.tuples(
    st.just(127), st.binary(min_size=4, max_size=511)
)
units = st.builds(
    Lldpdu, identifiers, identifiers, st.integers(0, 0xFFFF), st.lists(tlvs, max_size=5).map(tuple)
)
probes = st.builds(
    Probe,
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.binary(min_size=16, max_size=16),
)


@given(units, st.binary(max_size=20))
def test_a_unit_survives_the_way_through_bytes_and_padding(unit: Lldpdu, padding: bytes) -> None:
    assert decode(encode(unit) + padding) == unit


@given(probes)
def test_a_probe_survives_the_way_through_a_frame(probe: Probe) -> None:
    frame = probe.frame("02:00:00:00:00:01", 20)
    assert frame.startswith(HEADER)
    assert len(frame) >= 60
    assert is_lldp(frame)
    assert probe_in(frame) == probe


def test_a_stranger_reads_our_frame() -> None:
    probe = Authenticator(KEY).probe(HERE, 0xAB, 0.0)
    read = packet.Packet(probe.frame("02:00:00:00:00:01", 20))
    assert read.get_protocol(ethernet.ethernet).dst == lldp.LLDP_MAC_NEAREST_BRIDGE
    chassis, port, ttl, ours, end = read.get_protocol(lldp.lldp).tlvs
    assert (chassis.subtype, chassis.chassis_id) == (7, b"dpid:00000000000000ab")
    assert (port.subtype, port.port_id) == (7, b"1")
    assert ttl.ttl == 20
    assert (ours.oui, ours.subtype) == (b"\x02\xab\x7a", 1)
    assert ours.info == probe.signed + probe.code
    assert isinstance(end, lldp.End)


@given(identifiers, identifiers, st.integers(0, 0xFFFF), st.binary(max_size=511))
def test_we_read_a_strangers_unit(
    chassis: tuple[int, bytes], port: tuple[int, bytes], ttl: int, name: bytes
) -> None:
    theirs = lldp.lldp(
        [
            lldp.ChassisID(subtype=chassis[0], chassis_id=chassis[1]),
            lldp.PortID(subtype=port[0], port_id=port[1]),
            lldp.TTL(ttl=ttl),
            lldp.SystemName(system_name=name),
            lldp.End(),
        ]
    )
    data = bytes(theirs.serialize(None, None))
    assert decode(data) == Lldpdu(chassis, port, ttl, ((5, name),))
    assert probe_in(HEADER + data) is None


@given(st.binary(max_size=600))
def test_any_bytes_are_a_unit_or_an_error(data: bytes) -> None:
    for read in (decode, probe_in, lambda raw: probe_in(HEADER + raw)):
        with suppress(ProtocolError):
            read(data)


@given(units, st.data())
def test_a_garbled_unit_is_a_unit_or_an_error(unit: Lldpdu, data: st.DataObject) -> None:
    raw = bytearray(encode(unit))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        again = decode(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    except ProtocolError:
        return
    assert decode(encode(again)) == again


CHASSIS, PORT, TTL = b"\x02\x02\x07a", b"\x04\x02\x07b", b"\x06\x02\0\x14"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        CHASSIS + PORT,
        PORT + CHASSIS + TTL,
        CHASSIS + TTL + PORT,
        CHASSIS + PORT + b"\x06\x01\x14",
        b"\x02\x01\x07" + PORT + TTL,
        CHASSIS + PORT + TTL + TTL,
        CHASSIS + PORT + TTL + b"\0\x01\0",
        CHASSIS + PORT + TTL + b"\xfe\x03\x02\xab\x7a",
        CHASSIS + PORT + TTL + b"\x0a\x05name",
    ],
)
def test_a_unit_out_of_order_is_none(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(data)


def test_the_end_may_be_missing() -> None:
    assert decode(CHASSIS + PORT + TTL) == Lldpdu((7, b"a"), (7, b"b"), 20)


@pytest.mark.parametrize("info", [b"", b"short", bytes(37)])
def test_something_else_under_our_mark_is_an_error(info: bytes) -> None:
    value = b"\x02\xab\x7a\x01" + info
    unit = Lldpdu((7, b"a"), (7, b"b"), 20, ((127, value),))
    with pytest.raises(ProtocolError):
        probe_in(HEADER + encode(unit))


def test_two_probes_in_a_frame_are_an_error() -> None:
    value = b"\x02\xab\x7a\x01" + bytes(36)
    unit = Lldpdu((7, b"a"), (7, b"b"), 20, ((127, value), (127, value)))
    with pytest.raises(ProtocolError):
        probe_in(HEADER + encode(unit))


@pytest.mark.parametrize(
    "unit",
    [
        Lldpdu((7, b""), (7, b"b"), 20),
        Lldpdu((7, b"a"), (7, bytes(256)), 20),
        Lldpdu((256, b"a"), (7, b"b"), 20),
        Lldpdu((7, b"a"), (7, b"b"), 65536),
        Lldpdu((7, b"a"), (7, b"b"), 20, ((3, b""),)),
        Lldpdu((7, b"a"), (7, b"b"), 20, ((128, b""),)),
        Lldpdu((7, b"a"), (7, b"b"), 20, ((5, bytes(512)),)),
    ],
)
def test_what_does_not_fit_is_refused(unit: Lldpdu) -> None:
    with pytest.raises(MisuseError):
        encode(unit)


def test_a_probe_counts_once_at_each_port_and_only_in_time() -> None:
    authenticator = Authenticator(KEY, valid=5.0)
    probe = authenticator.probe(HERE, 0xAB, 10.0)
    assert authenticator.accept(probe, THERE, 10.1) == HERE
    assert authenticator.accept(probe, THERE, 10.2) is Refusal.REPLAYED
    assert authenticator.accept(probe, ELSEWHERE, 15.0) == HERE
    assert authenticator.accept(probe, PortRef("d", 4), 15.1) is Refusal.LATE


@given(st.sampled_from(["dpid", "port_no", "sequence", "code"]), st.integers(1, 2**31))
def test_nothing_of_a_probe_can_be_changed(part: str, change: int) -> None:
    authenticator = Authenticator(KEY)
    for _ in range(3):
        probe = authenticator.probe(HERE, 0xAB, 0.0)
    parts = {name: getattr(probe, name) for name in ("dpid", "port_no", "sequence", "code")}
    if part == "code":
        code = int.from_bytes(probe.code, "big") ^ change
        parts["code"] = code.to_bytes(16, "big")
    else:
        parts[part] ^= change
    assert authenticator.accept(Probe(**parts), THERE, 0.1) is Refusal.FORGED
    assert authenticator.accept(probe, THERE, 0.1) == HERE


def test_another_controllers_probe_is_forged() -> None:
    theirs = Authenticator(bytes(32)).probe(HERE, 0xAB, 0.0)
    authenticator = Authenticator(KEY)
    ours = authenticator.probe(HERE, 0xAB, 0.0)
    assert theirs.signed == ours.signed
    assert authenticator.accept(theirs, THERE, 0.1) is Refusal.FORGED


def test_a_short_key_is_refused() -> None:
    with pytest.raises(MisuseError):
        Authenticator(b"secret")
