"""The seed's functional test (7.3), on soft switches."""

from collections import Counter
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints

import pytest
from tests.fabric.worlds import World, network_of, without

from anabranch.core import plugins
from anabranch.fabric import frames
from anabranch.fabric.compiler import Compiler
from anabranch.fabric.errors import MisuseError
from anabranch.fabric.intents import Intents, Service
from anabranch.fabric.model import Host, Network, PortRef
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.pathlogic import logic
from anabranch.fabric.pathlogic.logic import Path, PathLogic, Role, find
from anabranch.fabric.pathlogic.soleil import Soleil

LINE = network_of(3, [(0, 1, False), (1, 2, False)])
DETOUR = network_of(4, [(0, 1, False), (1, 2, False), (0, 3, True), (3, 2, True)])
ROLES = {"s0": Role.ROOT, "s1": Role.RELAY, "s2": Role.LEAF}
PATH = Path(
    "news",
    PortRef("s0", 1),
    PortRef("s2", 2),
    "192.168.1.181",
    Match(eth_type=0x0800, ipv4_dst="10.0.0.255"),
    roles=ROLES,
)
FRAME = frames.ipv4_udp(
    "ff:ff:ff:ff:ff:ff", "02:00:00:00:00:09", "10.0.0.9", "10.0.0.255", 4000, 5004, b"picture"
)
DELIVERED = Counter({(PATH.exit, frames.rewrite(FRAME, "ipv4_dst", "192.168.1.181")): 1})


def with_vms(network: Network, *at: PortRef) -> Network:
    hosts = {
        mac: Host(mac, ref, f"10.0.0.{number}", vm=True)
        for number, ref in enumerate(at, 1)
        for mac in (f"02:00:00:00:00:{number:02x}",)
    }
    plain = Host("02:00:00:00:01:00", PortRef("s1", 3))
    return replace(network, hosts=hosts | {plain.mac: plain})


def names(network: Network) -> list[str]:
    flow = Soleil().flow(PATH, network)
    plan = Compiler().compile(Intents((flow,)), network)
    return [rule.name for rule in Soleil().names(flow, plan.trees["news"], network)]


def test_rules_change_as_vms_come_and_move_and_the_stream_goes_on() -> None:
    root, relay, leaf = PortRef("s0", 1), PortRef("s1", 4), PortRef("s2", 4)
    compiler, world = Compiler(), World(LINE)
    for vms, passed in (
        ((), ()),
        ((root,), ()),
        ((root, leaf), (leaf,)),
        ((root, relay, leaf), (relay, leaf)),
        ((root, PortRef("s1", 5), leaf), (PortRef("s1", 5), leaf)),
        ((root,), ()),
    ):
        network = with_vms(LINE, *vms)
        flow = Soleil().flow(PATH, network)
        assert flow.through == tuple(Service(at, at) for at in passed)
        world.load(compiler.compile(Intents((flow,)), network).tables)
        assert world.deliver(flow, FRAME) == DELIVERED
    world.load(compiler.compile(Intents(), LINE).tables)
    assert not world.send(PATH.ingress, FRAME), "no path, no stream"


def test_rules_have_the_names_of_the_seed() -> None:
    assert names(LINE) == [
        "RTP_PASSTHROUGH0000000000000001",
        "RTP_PASSTHROUGH0000000000000002",
        "RTP_PASSTHROUGH0000000000000003",
    ]
    assert names(with_vms(LINE, PortRef("s1", 4), PortRef("s2", 5))) == [
        "RTP_PASSTHROUGH0000000000000001",
        "RTP_TOVNET4_0000000000000002",
        "RTP_FROMVNET4_0000000000000002",
        "RTP_TOVNET5_0000000000000003",
        "RTP_FROMVNET5_0000000000000003",
    ]


def test_another_way_passes_other_vms() -> None:
    network = with_vms(DETOUR, PortRef("s1", 4), PortRef("s3", 4))
    lost = next(link for link in DETOUR.links if link.dst.switch == "s1")
    assert Soleil().flow(PATH, network).through == (Service(PortRef("s1", 4), PortRef("s1", 4)),)
    moved = Soleil().flow(PATH, without(network, lost))
    assert moved.through == (Service(PortRef("s3", 4), PortRef("s3", 4)),)
    cut = without(network, *network.links)
    assert not Soleil().flow(PATH, cut).through


def test_a_vm_is_passed_once_it_has_an_address() -> None:
    at = PortRef("s1", 4)
    (booted,) = (host for host in with_vms(LINE, at).hosts.values() if host.vm)
    for host, through in ((replace(booted, ipv4=None), ()), (booted, (Service(at, at),))):
        network = replace(LINE, hosts={host.mac: host})
        assert Soleil().flow(PATH, network).through == through


def test_a_path_that_cannot_be_is_misuse() -> None:
    for path in (
        replace(PATH, match=Match()),
        replace(PATH, roles={"s0": Role.LEAF}),
        replace(PATH, roles={"s2": Role.RELAY}),
    ):
        with pytest.raises(MisuseError, match="path news"):
            Soleil().flow(path, LINE)


class Straight(Soleil):
    """Somebody else's logic."""


NOTHING = object()


def test_a_logic_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(find(), Soleil)
    points = [
        EntryPoint(name, f"{__name__}:{value}", logic.GROUP)
        for name, value in (("straight", "Straight"), ("nothing", "NOTHING"), ("gone", "Gone"))
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda **want: EntryPoints(points).select(**want))
    found = find("straight")
    assert isinstance(found, PathLogic)
    assert type(found).__name__ == "Straight"
    with pytest.raises(MisuseError, match="no PathLogic"):
        find("nothing")
    with pytest.raises(MisuseError, match="gone"):
        find("gone")
    with pytest.raises(MisuseError, match="there are: gone, nothing, soleil, straight"):
        find("other")
