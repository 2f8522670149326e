"""Headers, builders and rewriting; os-ken's packet library is the oracle."""

import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from os_ken.lib.packet import (
    arp as ken_arp,
)
from os_ken.lib.packet import (
    ethernet as ken_ethernet,
)
from os_ken.lib.packet import (
    icmp as ken_icmp,
)
from os_ken.lib.packet import (
    ipv4 as ken_ipv4,
)
from os_ken.lib.packet import (
    packet as ken_packet,
)
from os_ken.lib.packet import (
    tcp as ken_tcp,
)
from os_ken.lib.packet import (
    udp as ken_udp,
)
from os_ken.lib.packet import (
    vlan as ken_vlan,
)

from anabranch.fabric import frames
from anabranch.fabric.errors import MisuseError
from anabranch.fabric.frames import parse, rewrite

A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
IP_A, IP_B = "10.0.0.1", "10.0.0.2"
V6_A, V6_B = "fd00::1", "fd00::2"
UDP = frames.ipv4_udp(B, A, IP_A, IP_B, 5004, 6000, b"media")
TCP = frames.ethernet(
    B, A, 0x0800, frames.ipv4(IP_A, IP_B, 6, frames.tcp(IP_A, IP_B, 80, 4000, b"odd"))
)
ICMP = frames.icmp_echo(B, A, IP_A, IP_B, identifier=7, sequence=9, data=b"ping")
UDP6 = frames.ethernet(
    B, A, 0x86DD, frames.ipv6(V6_A, V6_B, 17, frames.udp(V6_A, V6_B, 1, 2, b"six"))
)

macs = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
ipv4s = st.integers(0, 0xFFFFFFFF).map(lambda value: str(frames.text("ipv4_src", value)))
ports = st.integers(0, 0xFFFF)


def oracle(frame: bytes) -> dict[str, Any]:
    return {
        type(layer).__name__: layer
        for layer in ken_packet.Packet(frame)
        if not isinstance(layer, bytes)
    }


def summed_right(frame: bytes) -> bool:
    """Say whether all checksums of the frame are right, counted anew by RFC 1071, word by word."""
    headers = parse(frame)
    at = headers.l3
    ipv4 = "ipv4_src" in headers.fields
    size = (frame[at] & 15) * 4 if ipv4 else 40
    if ipv4 and _sum(frame[at : at + size]) != 0xFFFF:
        return False
    if not headers.l4:
        return True
    segment = frame[headers.l4 : headers.end]
    if "icmpv4_type" in headers.fields:
        return _sum(segment) == 0xFFFF
    if "udp_src" in headers.fields and segment[6:8] == b"\0\0":
        return ipv4
    ends = frame[at + 12 : at + 20] if ipv4 else frame[at + 8 : at + 40]
    pseudo = ends + struct.pack("!HH", headers.fields["ip_proto"], len(segment))
    return _sum(pseudo + segment) == 0xFFFF


def _sum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) & 1)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_checksum_of_the_rfc() -> None:
    """The example of RFC 1071, section 3, and the header that Wikipedia works through."""
    assert frames.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2
    header = bytes.fromhex("45000073000040004011b861c0a80001c0a800c7")
    assert frames.checksum(header) == 0
    assert frames.checksum(header[:10] + b"\0\0" + header[12:]) == 0xB861
    assert frames.checksum(b"") == frames.checksum(b"\0\0\0") == 0xFFFF


@given(st.binary(max_size=300))
def test_checksum_is_the_sum_word_by_word(data: bytes) -> None:
    assert frames.checksum(data) == 0xFFFF - _sum(data)


@given(macs, macs, ipv4s, ipv4s, ports, ports, st.binary(max_size=64), st.integers(1, 255))
def test_udp_frames_are_read_by_others(
    dst: str, src: str, ip_src: str, ip_dst: str, from_: int, to: int, data: bytes, ttl: int
) -> None:
    frame = frames.ipv4_udp(dst, src, ip_src, ip_dst, from_, to, data, ttl=ttl, vlan=77)
    layers = oracle(frame)
    assert (layers["ethernet"].dst, layers["ethernet"].src) == (dst, src)
    assert layers["vlan"].vid == 77
    assert (layers["ipv4"].src, layers["ipv4"].dst, layers["ipv4"].ttl) == (ip_src, ip_dst, ttl)
    assert (layers["udp"].src_port, layers["udp"].dst_port) == (from_, to)
    headers = parse(frame)
    assert (headers.mac("eth_dst"), headers.mac("eth_src")) == (dst, src)
    assert (headers.ipv4("ipv4_src"), headers.ipv4("ipv4_dst")) == (ip_src, ip_dst)
    assert (headers.get("udp_src"), headers.get("udp_dst")) == (from_, to)
    assert headers.get("vlan_vid") == 0x1000 | 77
    assert headers.payload == data
    assert headers.ttl == ttl
    assert summed_right(frame)


@given(macs, macs, ipv4s, ipv4s, st.sampled_from([None, 5]), st.booleans(), st.binary(max_size=40))
def test_what_others_build_is_read(
    dst: str, src: str, ip_src: str, ip_dst: str, vid: int | None, udp: bool, data: bytes
) -> None:
    packet = ken_packet.Packet()
    packet.add_protocol(
        ken_ethernet.ethernet(dst=dst, src=src, ethertype=0x0800 if vid is None else 0x8100)
    )
    if vid is not None:
        packet.add_protocol(ken_vlan.vlan(pcp=3, vid=vid, ethertype=0x0800))
    packet.add_protocol(
        ken_ipv4.ipv4(
            header_length=7,
            proto=17 if udp else 6,
            src=ip_src,
            dst=ip_dst,
            tos=0xB9,
            option=b"\1" * 8,
        )
    )
    packet.add_protocol(
        ken_udp.udp(src_port=1, dst_port=2)
        if udp
        else ken_tcp.tcp(src_port=1, dst_port=2, option=[ken_tcp.TCPOptionNoOperation()] * 4)
    )
    packet.add_protocol(data)
    packet.serialize()
    headers = parse(bytes(packet.data))
    expected: dict[str, int | str] = {
        "eth_dst": dst,
        "eth_src": src,
        "eth_type": 0x0800,
        "vlan_vid": 0 if vid is None else 0x1000 | vid,
        "ip_dscp": 0x2E,
        "ip_ecn": 1,
        "ip_proto": 17 if udp else 6,
        "ipv4_src": ip_src,
        "ipv4_dst": ip_dst,
        "udp_src" if udp else "tcp_src": 1,
        "udp_dst" if udp else "tcp_dst": 2,
    }
    expected |= {} if vid is None else {"vlan_pcp": 3}
    expected |= {} if udp else {"tcp_flags": 0}
    assert {name: headers.get(name) for name in headers.fields} == expected
    assert headers.payload == data
    assert summed_right(bytes(packet.data))


def test_arp_both_ways() -> None:
    request = oracle(frames.arp_request(A, IP_A, IP_B))
    assert request["ethernet"].dst == "ff:ff:ff:ff:ff:ff"
    assert (request["arp"].opcode, request["arp"].dst_ip) == (ken_arp.ARP_REQUEST, IP_B)
    frame = frames.arp_reply(B, IP_B, A, IP_A)
    reply = oracle(frame)
    assert (reply["arp"].src_mac, reply["arp"].src_ip) == (B, IP_B)
    assert (reply["arp"].dst_mac, reply["arp"].dst_ip) == (A, IP_A)
    headers = parse(frame + bytes(18))  # padded to the least that Ethernet carries
    assert headers.get("arp_op") == 2
    assert (headers.mac("arp_sha"), headers.ipv4("arp_spa")) == (B, IP_B)
    assert (headers.mac("arp_tha"), headers.ipv4("arp_tpa")) == (A, IP_A)
    assert headers.payload == b""


def test_ping_and_its_answer() -> None:
    request = oracle(ICMP)["icmp"]
    assert (request.type, request.data.id, request.data.seq) == (ken_icmp.ICMP_ECHO_REQUEST, 7, 9)
    answer = frames.icmp_echo_reply(ICMP)
    assert answer == frames.icmp_echo(
        A, B, IP_B, IP_A, identifier=7, sequence=9, data=b"ping", reply=True
    )
    assert summed_right(answer)
    assert frames.icmp_echo_reply(answer) is None
    assert frames.icmp_echo_reply(UDP) is None


def test_stacked_tags_show_the_outermost_and_the_type_behind_all() -> None:
    frame = frames.push_vlan(frames.push_vlan(UDP), 0x88A8)
    frame = rewrite(rewrite(frame, "vlan_vid", 0x1000 | 5), "vlan_pcp", 6)
    headers = parse(frame)
    assert headers.vlans == 2
    assert (headers.get("vlan_vid"), headers.get("vlan_pcp")) == (0x1005, 6)
    assert (headers.get("eth_type"), headers.get("udp_dst")) == (0x0800, 6000)
    assert frame[12:20] == bytes.fromhex("88a8c00581000000")
    assert parse(frames.push_vlan(frame)).get("vlan_vid") == 0x1005  # a copy of the outermost
    assert frames.pop_vlan(frames.pop_vlan(frame)) == UDP == frames.pop_vlan(UDP)


def test_fragments_have_ports_only_in_the_first() -> None:
    def fragment(flags: int) -> bytes:
        packet = bytearray(UDP)
        packet[20:22] = flags.to_bytes(2, "big")
        return bytes(packet)

    first, later, whole = parse(fragment(0x2000)), parse(fragment(0x0001)), parse(fragment(0x4000))
    assert (first.fragment, first.get("udp_dst")) == (True, 6000)
    assert (later.fragment, later.get("udp_dst"), later.get("ip_proto")) == (True, None, 17)
    assert (whole.fragment, whole.get("udp_dst")) == (False, 6000)
    moved = rewrite(fragment(0x0001), "ipv4_dst", "10.9.9.9")
    assert moved[34:] == UDP[34:]  # no checksum there to change


def test_ipv6_with_extension_headers() -> None:
    segment = frames.udp(V6_A, V6_B, 1, 2, b"six")
    hop_by_hop = bytes([44, 0, 1, 4, 0, 0, 0, 0])

    def packet(offset: int) -> bytes:
        fragment = bytes([17, 0]) + offset.to_bytes(2, "big") + bytes(4)
        return frames.ethernet(
            B, A, 0x86DD, frames.ipv6(V6_A, V6_B, 0, hop_by_hop + fragment + segment)
        )

    first, later = parse(packet(1)), parse(packet(8 | 1))
    assert (first.get("ip_proto"), first.get("udp_dst"), first.fragment) == (17, 2, True)
    assert (later.get("ip_proto"), later.get("udp_dst"), later.fragment) == (17, None, True)
    assert parse(UDP6).get("ipv6_dst") == V6_B
    assert summed_right(UDP6)
    neighbour = frames.ethernet(
        B, A, 0x86DD, frames.ipv6(V6_A, V6_B, 58, bytes([135]) + bytes(22) + b"\7")
    )
    assert parse(neighbour).get("ipv6_nd_target") == "::7"
    assert parse(TCP).get("tcp_flags") == 2
    assert parse(neighbour).get("icmpv6_type") == 135


def test_frames_without_an_ethernet_type() -> None:
    snap = bytes.fromhex("aaaa03000000") + b"\x08\x06" + UDP[14:]
    assert parse(UDP[:12] + b"\x00\x20" + snap).get("eth_type") == 0x0806
    spanning_tree = parse(UDP[:12] + b"\x00\x20" + bytes.fromhex("424203"))
    assert spanning_tree.get("eth_type") == frames.ETH_NONE


@given(st.sampled_from([UDP, TCP, ICMP, UDP6, frames.arp_request(A, IP_A, IP_B)]), st.data())
def test_a_cut_frame_keeps_the_fields_before_the_cut(frame: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(frame)))
    whole, part = parse(frame), parse(frame[:cut])
    assert part.fields.items() <= whole.fields.items()
    assert ("eth_type" in part.fields) == (cut >= 14)
    if part.fields == whole.fields:
        assert whole.payload.startswith(part.payload)


@given(st.binary(max_size=120), st.sampled_from([b"", UDP[:14], UDP[:34], UDP6[:14], UDP6[:20]]))
@example(b"", frames.push_vlan(UDP)[:15])
def test_any_bytes_are_read(data: bytes, start: bytes) -> None:
    frame = start + data
    headers = parse(frame)
    assert headers.payload_at <= headers.end <= len(frame)
    for name, value in headers.fields.items():
        assert frames.number(name, frames.text(name, value)) == value
        if name in frames.REWRITABLE:
            assert len(rewrite(frame, name, value)) == len(frame)


@given(st.data())
def test_rewriting_sets_the_field_alone_and_keeps_checksums_right(data: st.DataObject) -> None:
    frame = data.draw(st.sampled_from([UDP, TCP, ICMP, UDP6, frames.push_vlan(UDP)]))
    name = data.draw(st.sampled_from(sorted(frames.REWRITABLE & parse(frame).fields.keys())))
    bits = {
        "vlan_pcp": 3,
        "ip_dscp": 6,
        "ip_ecn": 2,
        "eth_dst": 48,
        "eth_src": 48,
        "ipv4_src": 32,
        "ipv4_dst": 32,
        "ipv6_src": 128,
        "ipv6_dst": 128,
        "icmpv4_type": 8,
        "icmpv4_code": 8,
        "vlan_vid": 12,
    }.get(name, 16)
    value = data.draw(st.integers(0, (1 << bits) - 1))
    if name == "vlan_vid" and parse(frame).vlans:
        value |= 0x1000
    changed = rewrite(frame, name, value)
    if name == "vlan_vid" and not parse(frame).vlans:
        assert changed == frame
        return
    before, after = parse(frame), parse(changed)
    assert after.fields[name] == value
    kinds = {"icmpv4_type", "icmpv4_code", "icmpv6_type", "icmpv6_code"}
    assert {k: v for k, v in after.fields.items() if k != name} == {
        k: v for k, v in before.fields.items() if k != name
    } or name in kinds
    assert summed_right(changed)
    assert after.payload == before.payload
    assert rewrite(changed, name, before.fields[name]) == frame or summed_right(frame)


def test_no_checksum_stays_none_and_a_wrong_one_stays_wrong() -> None:
    none = UDP[:40] + b"\0\0" + UDP[42:]
    assert rewrite(none, "ipv4_dst", "1.2.3.4")[40:42] == b"\0\0"
    assert rewrite(none, "udp_dst", 9)[40:42] == b"\0\0"
    wrong = UDP[:40] + b"\x12\x34" + UDP[42:]
    assert not summed_right(rewrite(wrong, "udp_dst", 9))


def test_an_echo_reply_of_zeros_has_a_checksum_of_ones() -> None:
    """The one case in which the incremental sum would give 0 instead."""
    zero = frames.icmp_echo(B, A, IP_A, IP_B)
    assert rewrite(zero, "icmpv4_type", 0) == frames.icmp_echo(B, A, IP_A, IP_B, reply=True)


@given(st.integers(0, 0xFFFF))
def test_a_udp_checksum_is_never_written_as_none(port: int) -> None:
    changed = rewrite(UDP, "udp_src", port)
    assert changed[40:42] != b"\0\0"
    assert summed_right(changed)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("in_port", 1),
        ("eth_type", 0x0800),
        ("udp_dst", 65536),
        ("udp_dst", -1),
        ("udp_dst", "5"),
        ("ipv4_dst", "10.0.0"),
        ("eth_dst", "02:00"),
        ("ip_dscp", 64),
    ],
)
def test_what_cannot_be_written_is_misuse(name: str, value: int | str) -> None:
    with pytest.raises(MisuseError):
        rewrite(UDP, name, value)


def test_what_is_too_long_or_no_address_is_misuse() -> None:
    with pytest.raises(MisuseError):
        frames.ipv4(IP_A, IP_B, 17, bytes(65516))
    with pytest.raises(MisuseError):
        frames.udp("ten", IP_B, 1, 2, b"")
    with pytest.raises(MisuseError):
        parse(UDP).mac("ipv4_src")
