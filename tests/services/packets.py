"""Packets for tests, made without the code under test."""

import struct
from ipaddress import ip_address

import numpy as np

from anabranch.services.slots import Slots

START = 80
SLOT = 2048


def ones_sum(data: bytes) -> int:
    """Return the folded one's complement sum: 0xFFFF over data with a right checksum."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum(data: bytes) -> int:
    return ~ones_sum(data) & 0xFFFF


def udp(
    payload: bytes = b"",
    source: str = "10.1.0.1",
    destination: str = "10.2.0.1",
    ports: tuple[int, int] = (40000, 5060),
    ttl: int = 64,
    options: bytes = b"",
) -> bytes:
    return ip(17, source, destination, udp_segment(payload, source, destination, ports),
              ttl=ttl, options=options)  # fmt: skip


def udp_segment(payload: bytes, source: str, destination: str, ports: tuple[int, int]) -> bytes:
    head = struct.pack("!HHHH", *ports, 8 + len(payload), 0)
    pseudo = pseudo_header(source, destination, 17, 8 + len(payload))
    value = checksum(pseudo + head + payload) or 0xFFFF
    return head[:6] + struct.pack("!H", value) + payload


def tcp(payload: bytes, source: str = "10.1.0.1", destination: str = "10.2.0.1",
        ports: tuple[int, int] = (40000, 80), options: bytes = b"") -> bytes:  # fmt: skip
    head = struct.pack("!HHIIBBHHH", *ports, 7, 9, (5 + len(options) // 4) << 4, 0x18, 512, 0, 0)
    segment = head + options + payload
    pseudo = pseudo_header(source, destination, 6, len(segment))
    value = checksum(pseudo + segment)
    return ip(6, source, destination, segment[:16] + struct.pack("!H", value) + segment[18:])


def pseudo_header(source: str, destination: str, protocol: int, length: int) -> bytes:
    return (ip_address(source).packed + ip_address(destination).packed
            + struct.pack("!IHBB" if ":" in source else "!BBH", *(
                (length, 0, 0, protocol) if ":" in source else (0, protocol, length))))  # fmt: skip


def ip(protocol: int, source: str, destination: str, body: bytes, *, ttl: int = 64,
       options: bytes = b"", fragment: int = 0) -> bytes:  # fmt: skip
    addresses = ip_address(source).packed + ip_address(destination).packed
    if ":" in source:
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, ttl) + addresses + body
    words = 5 + len(options) // 4
    head = struct.pack("!BBHHHBBH", 0x40 | words, 0, words * 4 + len(body), 1, fragment, ttl,
                       protocol, 0)  # fmt: skip
    head += addresses + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def slots_of(*packets: bytes, slot: int = SLOT) -> Slots:
    """Lay packets out as a ring does, each behind 14 bytes of Ethernet; the rest is garbage."""
    memory = np.full((len(packets), slot), 0xA5, np.uint8)
    for row, packet in zip(memory, packets, strict=True):
        row[START : START + len(packet)] = np.frombuffer(packet, np.uint8)
    sizes = np.array([len(packet) + 14 for packet in packets], np.uint32)
    return Slots(memory, START, sizes)


def leaving(slots: Slots) -> list[bytes]:
    """Return the packets that go out, from their IP header on."""
    rows, sizes = slots.leaving()
    return [
        slots.memory[row, START : START + size - 14].tobytes()
        for row, size in zip(rows, sizes, strict=True)
    ]


def is_right(packet: bytes) -> bool:
    """Say whether all checksums of a packet, not a fragment, are right."""
    if packet[0] >> 4 == 6:
        protocol, body = packet[6], packet[40:]
        pseudo = packet[8:40] + struct.pack("!IHBB", len(body), 0, 0, protocol)
    else:
        header = (packet[0] & 15) * 4
        if ones_sum(packet[:header]) != 0xFFFF:
            return False
        protocol, body = packet[9], packet[header:]
        pseudo = packet[12:20] + struct.pack("!BBH", 0, protocol, len(body))
    if protocol == 1:
        return ones_sum(body) == 0xFFFF
    return protocol not in {6, 17, 58} or ones_sum(pseudo + body) == 0xFFFF
