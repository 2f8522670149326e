"""Claims, and the nft elements that they become."""

import re
from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.services.claim import Claim, ClaimError
from anabranch.services.planes import rules
from anabranch.services.planes.plane import Tenant

NETWORKS = st.sampled_from(
    [ip_network(n) for n in ("10.0.0.0/8", "10.2.0.0/16", "10.2.0.1/32", "10.3.0.0/16", "fd00::/8",
                             "fd00::1/128")]
)  # fmt: skip
CLAIMS = st.one_of(
    st.builds(Claim, NETWORKS),
    st.builds(Claim, NETWORKS, st.sampled_from([1, 6, 17])),
    st.builds(Claim, NETWORKS, st.sampled_from([6, 17]),
              st.lists(st.sampled_from([53, 80, 5060]), min_size=1, unique=True).map(tuple)),
)  # fmt: skip


def has(claim: Claim, packet: tuple[str, int, int]) -> bool:
    """Say whether a claim has a packet: the oracle of the maps."""
    destination, protocol, port = packet
    return (
        ip_address(destination) in claim.destination
        and claim.protocol in {None, protocol}
        and (not claim.ports or port in claim.ports)
    )


PACKETS = [
    (destination, protocol, port)
    for destination in ("10.2.0.1", "10.2.0.2", "10.3.0.1", "10.9.9.9", "fd00::1", "fd00::2")
    for protocol in (1, 6, 17)
    for port in ((0,) if protocol == 1 else (53, 80, 5060, 9))
]


def look_up(text: str, packet: tuple[str, int, int]) -> set[int]:
    """Return to which tenants the maps in ``text`` lead a packet."""
    destination, protocol, port = packet
    found = set()
    for name, elements in re.findall(r"add element netdev \S+ (\w+)[46] \{ (.*) \}", text):
        if name.startswith("own"):
            continue
        for element in elements.split(", "):
            key, tenant = element.split(" : goto to")
            network, *rest = key.split(" . ")
            fits = rest == [str(protocol), str(port)][: len(rest)]
            if fits and ip_address(destination) in ip_network(network):
                found.add(int(tenant))
    return found


@given(st.lists(CLAIMS, max_size=5))
def test_maps_hold_exactly_what_is_claimed(claims: list[Claim]) -> None:
    text = rules.claims({7: claims}, 7)
    for packet in PACKETS:
        assert look_up(text, packet) == ({7} if any(has(c, packet) for c in claims) else set())


@given(CLAIMS, CLAIMS)
def test_claims_overlap_if_some_packet_is_in_both(one: Claim, other: Claim) -> None:
    together = any(has(one, packet) and has(other, packet) for packet in PACKETS)
    assert one.overlaps(other) == together == other.overlaps(one)


@given(st.lists(CLAIMS, min_size=1, max_size=5))
def test_elements_of_one_map_do_not_overlap(claims: list[Claim]) -> None:
    """The kernel refuses intervals that do."""
    text = rules.claims({7: claims}, 7)
    for _, elements in re.findall(r"add element netdev \S+ (\w+) \{ (.*) \}", text):
        keys = [element.split(" : ")[0].split(" . ") for element in elements.split(", ")]
        for i, one in enumerate(keys):
            for other in keys[:i]:
                if one[1:] == other[1:]:
                    assert not ip_network(one[0]).overlaps(ip_network(other[0]))


@pytest.mark.parametrize(
    "arguments", [(None, (53,)), (1, (53,)), (17, (0,)), (17, (65536,)), (0, ()), (256, ())]
)
def test_claims_that_cannot_be(arguments: tuple) -> None:
    with pytest.raises(ClaimError):
        Claim(ip_network("10.0.0.0/8"), *arguments)


def test_text() -> None:
    assert str(Claim(ip_network("10.0.0.0/8"), 17, (53, 80))) == "udp/53,80 to 10.0.0.0/8"
    assert str(Claim(ip_network("fd00::/8"))) == "ip to fd00::/8"


def test_a_guard_lets_out_no_more_than_the_rate() -> None:
    text = rules.tenant(Tenant("alice", 3, bandwidth_mbit=80))
    assert "limit rate over 10000 kbytes/second" in text
    assert "server3" not in text


def test_what_can_be_led_to_a_server() -> None:
    server = IPv4Address("10.9.0.1")
    Claim(ip_network("192.0.2.0/24"), 6, (80,), server)
    for claim in (
        ("192.0.2.0/24", 17, (80,)),
        ("192.0.2.0/24", 6, ()),
        ("2001:db8::/32", 6, (80,)),
    ):
        with pytest.raises(ClaimError, match="only TCP over IPv4"):
            Claim(ip_network(claim[0]), claim[1], claim[2], server)


def test_connections_for_servers_are_no_rings() -> None:
    server = IPv4Address("10.9.0.1")
    led = Claim(ip_network("192.0.2.1/32"), 6, (80,), server)
    beside = Claim(ip_network("192.0.2.1/32"), 6, (81,))
    text = rules.claims(
        {1: [led, beside], 2: [Claim(ip_network("192.0.2.0/31"), 6, (80,), server)]}, 1
    )
    assert "served { 192.0.2.0/31 . 80 : 10.9.0.1 . 80 }" in text
    assert "ports4 { 192.0.2.1/32 . 6 . 81 : goto to1 }" in text
    assert text.count("goto") == 1
    assert led.overlaps(beside) is False
