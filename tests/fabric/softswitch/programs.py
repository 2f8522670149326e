"""Random tables and packets on which any two switches must agree.

Left out is what the specification leaves open: two matching entries of one priority, the choice of
a SELECT group, tags beyond the second, and what ``cases.DIFFERENCES`` lists.
"""

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from tests.fabric.softswitch.cases import (
    ALL_PORTS,
    IP_A,
    IP_B,
    IP_C,
    TAGGED,
    A,
    B,
    C,
    Case,
    Mod,
    group,
    tagged,
    tcp,
    to,
    udp,
)

from anabranch.fabric import frames
from anabranch.fabric.openflow.actions import (
    PORT_IN_PORT,
    Action,
    Group,
    Output,
    PopVlan,
    PushVlan,
    SetField,
)
from anabranch.fabric.openflow.messages import TABLE_ALL, Bucket, Command, FlowMod, GroupType
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.tables import Rule

PLAIN = (
    udp(),
    udp(dst=C, ip_dst=IP_C, dport=9),
    udp(src=C, ip_src=IP_C, dscp=46),
    tcp(),
    tcp(ip_dst=IP_C),
    frames.arp_request(A, IP_A, IP_B),
    frames.arp_reply(B, IP_B, A, IP_A),
    frames.icmp_echo(B, A, IP_A, IP_B, data=b"ping"),
)
FRAMES = (
    *PLAIN,
    *(tagged(frame, vid, pcp) for frame in PLAIN[:6] for vid, pcp in ((5, 0), (6, 3))),
)
GROUPS = (
    group(1, GroupType.ALL, to(2, SetField("eth_dst", C)), to(3), Bucket((Output(PORT_IN_PORT),))),
    group(2, GroupType.FAST_FAILOVER, replace(to(4), watch_port=4), replace(to(3), watch_port=3)),
    group(3, GroupType.INDIRECT, Bucket((SetField("eth_src", B), Group(1)))),
    group(4, GroupType.SELECT, to(2, weight=7)),
)


@dataclass(frozen=True)
class Program:
    """Tables, the frames that pass, and what then changes the tables, with more frames."""

    rules: tuple[Rule, ...]
    frames: tuple[tuple[int, bytes], ...]
    mods: tuple[Mod, ...]

    @property
    def case(self) -> Case:
        return Case("random program", self.rules, (), GROUPS)


def _maybe(*values: Any) -> st.SearchStrategy[Any]:
    """Return one of ``values``, but mostly None: a match of many fields matches nothing."""
    return st.sampled_from([*[None] * (3 * len(values)), *values])


@st.composite
def _matches(draw: st.DrawFn, table: int = 0) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "in_port": draw(_maybe(1, 2)),
        "eth_dst": draw(_maybe(B, C, "02:00:00:00:00:08/ff:ff:ff:ff:ff:f8")),
        "vlan_vid": draw(_maybe(0, TAGGED, 0x1005, (0x1004, 0x1006))),
    }
    if table:
        fields["metadata"] = draw(st.sampled_from([None, 1, (1, 1), (0x10, 0xF0)]))
    if fields["vlan_vid"] in (TAGGED, 0x1005):
        fields["vlan_pcp"] = draw(_maybe(0, 3))
    layer = draw(st.sampled_from(["", "", "", "ipv4", "ipv4", "arp"]))
    if layer == "arp":
        fields |= {"eth_type": 0x0806, "arp_op": draw(_maybe(1, 2))}
        fields["arp_tpa"] = draw(_maybe(IP_B, "10.0.0.0/24", IP_C))
    if layer == "ipv4":
        fields |= {"eth_type": 0x0800, "ip_dscp": draw(_maybe(0, 46))}
        fields["ipv4_src"] = draw(_maybe(IP_A, "10.0.0.0/16"))
        fields["ipv4_dst"] = draw(_maybe(IP_B, IP_C, "10.0.0.0/16", "10.0.0.1/255.0.0.1"))
        fields["ip_proto"] = draw(st.sampled_from([None, 17, 17, 6]))
        kind = {17: "udp", 6: "tcp"}.get(fields["ip_proto"])
        if kind:
            fields[f"{kind}_dst"] = draw(_maybe(5004, 9, 80))
            fields[f"{kind}_src"] = draw(_maybe(1000, 9))
    return {name: value for name, value in fields.items() if value is not None}


@st.composite
def _actions(draw: st.DrawFn, fields: dict[str, Any], table: int) -> tuple[Action, ...]:
    """Only what the match makes possible: Open vSwitch refuses everything else."""
    tags = int(fields.get("vlan_vid") in (TAGGED, 0x1005))
    pushed = False
    settable: dict[str, tuple[Any, ...]] = {"eth_dst": (B, C), "eth_src": (B, C)}
    if fields.get("eth_type") == 0x0800:
        settable |= {"ipv4_dst": (IP_B, IP_C), "ipv4_src": (IP_A, "192.0.2.1"), "ip_dscp": (0, 46)}
        kind = {17: "udp", 6: "tcp"}.get(fields.get("ip_proto", 0))
        if kind:
            settable |= {f"{kind}_dst": (5004, 9), f"{kind}_src": (1000, 7)}
    if fields.get("eth_type") == 0x0806:
        settable |= {"arp_op": (1, 2), "arp_spa": (IP_C,), "arp_tha": (C,), "arp_tpa": (IP_B,)}
    actions: list[Action] = []
    for _ in range(draw(st.integers(0, 5))):
        choice = draw(st.sampled_from(["output", "output", "set", "set", "group", "vlan"]))
        if choice == "output":
            port = draw(st.sampled_from([1, 2, 3, 4, PORT_IN_PORT, ALL_PORTS]))
            actions.append(Output(port))
        elif choice == "group":
            actions.append(Group(draw(st.integers(1, 4))))
        elif choice == "set":
            name = draw(st.sampled_from(sorted(settable)))
            actions.append(SetField(name, draw(st.sampled_from(settable[name]))))
        elif tags and draw(st.booleans()):
            actions.append(PopVlan())
            tags -= 1
        elif table == 0 and not pushed:
            actions += [PushVlan(), SetField("vlan_vid", 0x1005), SetField("vlan_pcp", 3)]
            tags, pushed = tags + 1, True
        elif tags:
            actions.append(SetField("vlan_vid", draw(st.sampled_from([0x1005, 0x1006]))))
    return tuple(actions)


@st.composite
def _rules(draw: st.DrawFn, number: int) -> Rule:
    """``number`` is its priority and its cookie, so that no two rules can be confused."""
    table = draw(st.sampled_from([0, 0, 1, 2]))
    fields = draw(_matches(table))
    return Rule(
        table,
        number,
        Match(**fields),
        draw(_actions(fields, table)),
        cookie=number << 4 | draw(st.integers(0, 3)),
        goto_table=draw(st.sampled_from([None, *range(table + 1, 4)])),
        metadata=draw(st.sampled_from([None, (1, 0xF), (0x10, 0xF0), (0x22, 0xFF)])),
    )


@st.composite
def _mods(draw: st.DrawFn) -> Mod:
    """A deletion that one filter narrows; the match rarely does."""
    everything = FlowMod(Command.DELETE, table_id=draw(st.sampled_from([0, 1, 2, TABLE_ALL])))
    match draw(st.sampled_from(["match", "cookie", "port", "group"])):
        case "match":
            return replace(everything, match=Match(**draw(_matches())))
        case "cookie":
            cookie, mask = draw(st.integers(0, 3)), draw(st.sampled_from([1, 2, 3]))
            return replace(everything, cookie=cookie, cookie_mask=mask)
        case "port":
            return replace(everything, out_port=draw(st.integers(1, 4)))
        case _:
            return replace(everything, out_group=draw(st.integers(1, 4)))


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Return programs of up to a dozen rules."""
    count = draw(st.integers(4, 12))
    rules = tuple(draw(_rules(number)) for number in range(1, count + 1))
    sent = st.tuples(st.integers(1, 3), st.sampled_from(FRAMES))
    return Program(
        rules,
        tuple(draw(st.lists(sent, min_size=6, max_size=12))),
        tuple(draw(st.lists(_mods(), min_size=1, max_size=3))),
    )
