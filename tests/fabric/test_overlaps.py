"""Overlaps against the definition: some packet satisfies both matches."""

from hypothesis import given
from hypothesis import strategies as st

from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.overlaps import Overlaps, shape_of

MATCHES = st.builds(
    Match,
    eth_type=st.none() | st.sampled_from((0x0800, 0x0806)),
    udp_dst=st.none() | st.integers(1, 2),
    ipv4_dst=st.none() | st.sampled_from(("10.0.0.1", "10.0.0.0/30", "10.0.0.1/255.0.0.255")),
    vlan_vid=st.none() | st.sampled_from((0, 0x1001, (0x1000, 0x1000))),
    eth_dst=st.none()
    | st.sampled_from(("01:00:00:00:00:00/01:00:00:00:00:00", "02:00:00:00:00:01")),
)


def overlap(one: Match, other: Match) -> bool:
    """No bit that both look at must be 0 for one and 1 for the other."""
    bits = [
        {name: (mask, value) for (name, mask), value in zip(*shape_of(match), strict=True)}
        for match in (one, other)
    ]
    return all(
        (bits[0][name][1] ^ bits[1][name][1]) & bits[0][name][0] & bits[1][name][0] == 0
        for name in bits[0].keys() & bits[1].keys()
    )


def test_some_matches_overlap_and_some_do_not() -> None:
    net, host = Match(ipv4_dst="10.0.0.0/30"), Match(ipv4_dst="10.0.0.1")
    assert overlap(net, host)
    assert overlap(net, Match(udp_dst=1))
    assert not overlap(net, Match(ipv4_dst="10.0.0.4"))
    assert not overlap(Match(vlan_vid=0), Match(vlan_vid=(0x1000, 0x1000)))


@given(st.dictionaries(st.text("abc", max_size=2), MATCHES), st.data())
def test_a_rival_is_the_first_name_that_overlaps(
    matches: dict[str, Match], data: st.DataObject
) -> None:
    known = Overlaps()
    kept: dict[str, Match] = {}
    for name, match in matches.items():
        rivals = [other for other, held in kept.items() if overlap(held, match)]
        assert known.rival("here", match) == min(rivals, default=None)
        assert known.rival("there", match) is None
        known.add("here", name, match)
        kept[name] = match
        if data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(sorted(kept)))
            known.remove("here", gone, kept.pop(gone))
    for name, match in kept.items():
        known.remove("here", name, match)
    assert known.rival("here", Match()) is None
