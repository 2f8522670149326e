"""Forwarding on the real kernel, in a machine that is a namespace: what is set is set back."""

import secrets
import socket
import struct
import subprocess
from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Address, IPv6Address, IPv6Interface
from pathlib import Path

import pytest
from tests.lab.inside import inside, socket_in
from tests.waiting import wait_until

from anabranch.host import forwarding, network
from anabranch.host.addresses import global_addresses_6, ipv6, outward_address_6
from anabranch.host.forwarding import family_of
from anabranch.host.journal import TABLE_PREFIX, Journal
from anabranch.host.network import Port

_ROUTER_ADVERTISEMENT = 134
_FORWARDING_4 = Path("/proc/sys/net/ipv4/ip_forward")


def test_an_addresss_family_is_that_of_its_table() -> None:
    assert [family_of(each) for each in ("192.0.2.1", "2001:db8::1", "::")] == ["ip", "ip6", "ip6"]


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def setting(place: str, value: str | None = None) -> str:
    """Read, or write, a setting of IPv6 where this thread is."""
    path = Path("/proc/sys/net/ipv6/conf") / place
    if value is not None:
        path.write_text(value)
    return path.read_text().strip()


@pytest.fixture
def machine() -> Iterator[str]:
    """A machine with IPv6 and no site, and ``router`` on its link."""
    tag = secrets.token_hex(2)
    machine, router = f"abx-{tag}", f"abx-{tag}-r"
    try:
        for name in (machine, router):
            run("ip", "netns", "add", name)
            with inside(name):
                setting("default/accept_dad", "0")
                _FORWARDING_4.write_text("0")  # of IPv4 a namespace has what this machine has
        run("ip", "link", "add", "eth0", "netns", machine, "type", "veth",
            "peer", "name", "lan0", "netns", router)  # fmt: skip
        for name, device in ((machine, "eth0"), (router, "lan0")):
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("ip", "-n", name, "link", "set", device, "up")
        yield machine
    finally:
        for name in (machine, router):
            subprocess.run(["ip", "netns", "delete", name], check=False)


def advertise(router: str, prefix: str) -> None:
    """Send a router advertisement (RFC 4861 section 4.2) with a prefix for addresses."""

    def made() -> socket.socket:
        sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        index = socket.if_nametoindex("lan0")
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        return sender

    head = struct.pack("!BBHBBHII", _ROUTER_ADVERTISEMENT, 0, 0, 64, 0, 1800, 0, 0)
    option = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + IPv6Address(prefix).packed
    with socket_in(router, made) as sender:
        sender.sendto(head + option, ("ff02::1", 0))


def until_addressed(machine: str, prefix: str) -> None:
    wait_until(lambda: prefix in run("ip", "-n", machine, "-6", "addr", "show", "dev", "eth0"))


@pytest.mark.lab
def test_a_host_that_forwards_stays_a_host(machine: str, tmp_path: Path) -> None:
    keeper = tmp_path / "keeper"
    router = f"{machine}-r"

    def can_send() -> bool:
        shown = run("ip", "-n", router, "-6", "addr", "show", "dev", "lan0")
        return "fe80" in shown and "tentative" not in shown

    wait_until(can_send)

    def default_route() -> str:
        return run("ip", "-n", machine, "-6", "route", "show", "default")

    with inside(machine):
        setting("lo/forwarding", "1")  # any device's makes the kernel drop routes
    advertise(router, "2001:db8:77::")
    until_addressed(machine, "2001:db8:77:")
    assert "proto ra" in default_route()
    with inside(machine):
        forwarding.enable_forwarding("ip6", keeper)
        forwarding.enable_forwarding("ip6", keeper)  # another site: what was is not forgotten
        assert setting("all/forwarding") == setting("eth0/forwarding") == "1"
        assert setting("eth0/accept_ra") == setting("default/accept_ra") == "2"
    assert "proto ra" in default_route()  # a router would have dropped it
    advertise(router, "2001:db8:78::")
    until_addressed(machine, "2001:db8:78:")  # and would not have listened
    with inside(machine):
        assert str(outward_address_6()).startswith("2001:db8:7")
        forwarding.release_forwarding("ip6", keeper, TABLE_PREFIX)
        forwarding.release_forwarding("ip6", keeper, TABLE_PREFIX)
        assert setting("all/forwarding") == setting("eth0/forwarding") == "0"
        assert setting("eth0/accept_ra") == setting("default/accept_ra") == "1"
        assert setting("lo/forwarding") == "1"
    assert "proto ra" in default_route()
    assert not keeper.exists()


@pytest.mark.lab
def test_a_router_is_left_as_it_is(machine: str, tmp_path: Path) -> None:
    keeper = tmp_path / "keeper"
    with inside(machine):
        setting("all/forwarding", "1")
        forwarding.enable_forwarding("ip6", keeper)
        forwarding.release_forwarding("ip6", keeper, TABLE_PREFIX)
        assert setting("eth0/accept_ra") == "1"
        assert setting("all/forwarding") == "1"
    assert not keeper.exists()


@pytest.mark.lab
@pytest.mark.parametrize("kept", ["", '{"forwarding": []', "[]", "1"])
def test_a_keeper_that_was_cut_short_says_that_nothing_was_changed(
    machine: str, tmp_path: Path, kept: str
) -> None:
    keeper = tmp_path / "keeper"
    keeper.write_text(kept)
    with inside(machine):
        forwarding.release_forwarding("ip6", keeper, TABLE_PREFIX)
        assert setting("all/forwarding") == "0"
    assert not keeper.exists()


@pytest.mark.lab
def test_the_last_table_of_a_family_lets_its_forwarding_go(machine: str, tmp_path: Path) -> None:
    one, other = f"{TABLE_PREFIX}one", f"{TABLE_PREFIX}other"
    kept = {"ip": tmp_path / "ip", "ip6": tmp_path / "ip6"}
    with inside(machine):
        for table in (one, other):
            forwarding.forward_ports(table, "ip6", {IPv6Address("fd00::1"): (1, 9)})
        forwarding.forward_ports(one, "ip", {IPv4Address("10.0.0.1"): (1, 9)})
        for family, keeper in (("ip", kept["ip"]), ("ip6", kept["ip6"])):
            forwarding.enable_forwarding(family, keeper)
        assert "dnat to fd00::1" in run("nft", "list", "table", "ip6", one)
        forwarding.remove_table(one)  # in both families
        for family, keeper in kept.items():
            forwarding.release_forwarding(family, keeper, TABLE_PREFIX)
        assert _FORWARDING_4.read_text().strip() == "0"
        assert setting("all/forwarding") == "1"
        assert run("nft", "list", "tables").split() == ["table", "ip6", other]
        forwarding.remove_table(other)
        forwarding.remove_table(other)
        forwarding.release_forwarding("ip6", kept["ip6"], TABLE_PREFIX)
        assert setting("all/forwarding") == "0"
    assert not any(keeper.exists() for keeper in kept.values())


@pytest.mark.lab
def test_streams_that_nobody_asked_for_go_out_as_this_machines(machine: str) -> None:
    router = f"{machine}-r"
    run("ip", "-n", machine, "addr", "add", "192.0.2.1/24", "dev", "eth0")
    run("ip", "-n", machine, "addr", "add", "10.0.0.1/32", "dev", "lo")
    run("ip", "-n", router, "addr", "add", "192.0.2.2/24", "dev", "lan0")
    run("ip", "-n", router, "route", "add", "10.0.0.1", "via", "192.0.2.1")

    def bound(address: str, port: int) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, port))
        made.settimeout(5)
        return made

    with inside(machine):
        for port in (5002, 5004):  # made anew the second time
            forwarding.forward_ports(
                f"{TABLE_PREFIX}one", "ip", {IPv4Address("10.0.0.1"): (1, 9)}, streams_from=port
            )
    with socket_in(router, lambda: bound("192.0.2.2", 9000)) as receiver:
        for port, seen in ((5002, "10.0.0.1"), (5004, "192.0.2.1")):
            with socket_in(machine, partial(bound, "10.0.0.1", port)) as sender:
                sender.sendto(b"x", ("192.0.2.2", 9000))
            assert receiver.recvfrom(10)[1] == (seen, port)


@pytest.mark.lab
def test_only_addresses_that_last_are_told(machine: str) -> None:
    add = ("ip", "-n", machine, "addr", "add")
    run(*add, "2001:db8:77::5/64", "dev", "eth0")
    run(*add, "2001:db8:77::6/64", "dev", "eth0", "preferred_lft", "0")  # deprecated
    run(*add, "fd00:77::1/64", "dev", "lo")
    run(
        "ip", "-n", machine, "-6", "route", "add", "default", "via", "2001:db8:77::1", "dev", "eth0"
    )
    with inside(machine):
        found = global_addresses_6()
        assert list(map(str, found)) == ["2001:db8:77::5", "fd00:77::1"]
        assert global_addresses_6(but=lambda device: device == "eth0") == found[1:]
        # An address that the link is still asked about cannot be bound to.
        setting("eth0/accept_dad", "1")
        setting("eth0/dad_transmits", "1000")
        run(*add, "2001:db8:77::7/64", "dev", "eth0")
        assert global_addresses_6() == found
        assert ipv6() == "on"
        setting("all/disable_ipv6", "1")
        assert (ipv6(), global_addresses_6(), outward_address_6()) == ("disabled", [], None)
        setting("eth0/disable_ipv6", "0")  # by somebody who wants it there
        wait_until(lambda: ipv6() == "on")


@pytest.mark.lab
def test_a_link_has_ipv6_and_nothing_of_it_but_its_addresses(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    tag = secrets.token_hex(2)
    names = [f"ab-{tag}-{end}" for end in "ab"]
    inner, outer = IPv6Interface("fd00:77::3/127"), IPv6Interface("fd00:77::2/127")
    try:
        for name in names:
            journal.record("netns", name)
            network.make_namespace(name)
        network.make_link(
            Port("gate0", names[0], address_6=outer), Port("access0", names[1], address_6=inner)
        )
        network.add_route(names[1], "default", device="access0", via=str(outer.ip))
        for name, device, address in zip(names, ("gate0", "access0"), (outer, inner), strict=True):
            shown = run("ip", "-n", name, "-6", "-o", "addr").splitlines()  # lo has none
            ours = [[device, str(address)], [device, f"fe80::{int(address) & 3}/64"]]
            assert sorted(line.split()[1:4:2] for line in shown) == sorted(ours)
        assert run("ip", "-n", names[1], "-6", "route", "show", "default").split()[2] == str(
            outer.ip
        )
        run("nsenter", f"--net=/run/netns/{names[1]}", "ping", "-c", "1", "-W", "5", str(outer.ip))
    finally:
        journal.undo()
