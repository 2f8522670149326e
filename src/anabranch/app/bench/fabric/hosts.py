"""The hosts that the flow set-up measurements speak of: 256 behind one port, 256 behind another."""

SOURCES = TARGETS = 256
_PAYLOAD = 22  # Ethernet, IPv4 and UDP headers with this are 64 bytes


def source_mac(number: int) -> bytes:
    """Return the address of a host at the first port."""
    return b"\x02\x00\x00\x01" + number.to_bytes(2)


def target_mac(number: int) -> bytes:
    """Return the address of a host at the second port."""
    return b"\x02\x00\x00\x02" + number.to_bytes(2)


def frame(eth_dst: bytes, eth_src: bytes, payload: bytes = bytes(_PAYLOAD)) -> bytes:
    """Return an IPv4 packet of UDP (checksum 0: none) between two hosts."""
    udp = (9).to_bytes(2) * 2 + (8 + len(payload)).to_bytes(2) + bytes(2)
    length = 20 + len(udp) + len(payload)
    head = bytes.fromhex("4500") + length.to_bytes(2) + bytes(4) + bytes((64, 17))
    addresses = b"\x0a\x01" + eth_src[4:] + b"\x0a\x02" + eth_dst[4:]
    words = head + addresses
    total = sum(int.from_bytes(words[i : i + 2]) for i in range(0, len(words), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    checksum = (~total & 0xFFFF).to_bytes(2)
    return eth_dst + eth_src + b"\x08\x00" + head + checksum + addresses + udp + payload
