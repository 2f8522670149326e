"""Two real Open vSwitches in namespaces of their own, under one controller.

    source ----1 root 2----1 leaf 2---- viewer

The source sends to a multicast group; the viewer has an ordinary socket, address and MAC address.
"""

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from tests.lab.inside import socket_in

from anabranch.core.events import Event
from anabranch.fabric.controller import Controller
from anabranch.fabric.errors import FabricError
from anabranch.fabric.openflow.actions import Action, Output, SetField
from anabranch.fabric.openflow.oxm import ETH_IPV4, IP_UDP, Match
from anabranch.fabric.openvswitch import OpenVSwitch
from anabranch.fabric.tables import Rule, Tables
from anabranch.host.process import end_marked, find_marked

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.asyncio(loop_scope="module"),  # most tests share a lab, as it was
]

GROUP, GROUP_PORT = "239.1.2.3", 5004
VIEWER_MAC, VIEWER_IP, VIEWER_PORT = "02:00:00:00:00:02", "10.9.0.2", 6000
BRIDGE = "br0"


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


@dataclass
class Lab:
    """The two switches, their controller, and a socket at either end."""

    prefix: str
    directory: Path
    run_id: str
    events: list[Event] = field(default_factory=list)
    switches: dict[str, OpenVSwitch] = field(default_factory=dict)
    namespaces: list[str] = field(default_factory=list)
    controllers: list[Controller] = field(default_factory=list)
    source: socket.socket | None = None
    viewer: socket.socket | None = None
    sent: int = 0

    @property
    def controller(self) -> Controller:
        return self.controllers[-1]

    def namespace(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    async def build(self) -> None:
        for name in ("source", "root", "leaf", "viewer"):
            run("ip", "netns", "add", self.namespace(name))
            self.namespaces.append(self.namespace(name))
            quiet = "net.ipv6.conf.default.disable_ipv6=1"  # no multicast listener reports
            run("ip", "netns", "exec", self.namespace(name), "sysctl", "-qw", quiet)
            run("ip", "-n", self.namespace(name), "link", "set", "lo", "up")
        self.link("source", "eth0", "root", "r1")
        self.link("root", "r2", "leaf", "l1")
        self.link("leaf", "l2", "viewer", "eth0")
        viewer, source = self.namespace("viewer"), self.namespace("source")
        run("ip", "-n", viewer, "link", "set", "eth0", "address", VIEWER_MAC)
        run("ip", "-n", viewer, "addr", "add", f"{VIEWER_IP}/24", "dev", "eth0")
        run("ip", "-n", source, "addr", "add", "10.9.0.1/24", "dev", "eth0")
        await self.new_controller()
        for dpid, (name, ports) in enumerate(
            {"root": {"r1": 1, "r2": 2}, "leaf": {"l1": 1, "l2": 2}}.items(), 1
        ):
            switch = OpenVSwitch(
                name, self.namespace(name), self.directory / name, self.run_id, self.events.append
            )
            self.switches[name] = switch
            await switch.start()
            target = f"unix:{switch.controller_path(BRIDGE)}"
            await switch.configure(BRIDGE, dpid, ports, target)
        self.source = socket_in(source, _source)
        self.viewer = socket_in(viewer, _viewer)
        await self.connected("root", "leaf")

    def link(self, left: str, left_device: str, right: str, right_device: str) -> None:
        run(
            *("ip", "link", "add", left_device, "netns", self.namespace(left), "type", "veth"),
            *("peer", "name", right_device, "netns", self.namespace(right)),
        )
        for name, device in ((left, left_device), (right, right_device)):
            run("ip", "-n", self.namespace(name), "link", "set", device, "up")
            run("ip", "netns", "exec", self.namespace(name), "ethtool", "-K", device, "tx", "off")

    async def new_controller(self) -> None:
        controller = Controller(self.events.append)
        self.controllers.append(controller)
        for name in ("root", "leaf"):
            (self.directory / name).mkdir(exist_ok=True)
            await controller.listen_unix(self.directory / name / f"{BRIDGE}.controller", name)

    async def connected(self, *names: str) -> None:
        async with asyncio.timeout(5):
            while not all(self.controller.switches()[name].connected for name in names):
                await asyncio.sleep(0.005)

    async def synced(self, name: str, rules: int) -> None:
        async with asyncio.timeout(5):
            while self.controller.switches()[name].rules != rules:
                await asyncio.sleep(0.005)

    def send(self) -> None:
        assert self.source is not None
        self.sent += 1
        self.source.sendto(f"{self.sent}".encode(), (GROUP, GROUP_PORT))

    async def receive(self, timeout: float = 0.3) -> int | None:
        """Return the number of the next packet the viewer gets, None if there is none in time."""
        assert self.viewer is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                data = await asyncio.get_running_loop().sock_recv(self.viewer, 2048)
                return int(data)
        return None

    async def drained(self) -> list[int]:
        numbers = []
        while (number := await self.receive(0.2)) is not None:
            numbers.append(number)
        return numbers

    async def tear_down(self) -> None:
        for end in (self.source, self.viewer):
            if end is not None:
                end.close()
        for switch in self.switches.values():
            await switch.stop()
        for controller in self.controllers:
            await controller.close()
        end_marked(self.run_id)
        for name in self.namespaces:
            subprocess.run(["ip", "netns", "delete", name], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)


def _source() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.9.0.1"))
    made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 8)
    return made


def _viewer() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((VIEWER_IP, VIEWER_PORT))
    made.setblocking(False)
    return made


@pytest.fixture(autouse=True)
def no_child_left() -> None:
    """A switch that is shared starts children anew: they are looked for when its lab ends."""


async def running() -> AsyncIterator[Lab]:
    directory = Path(tempfile.mkdtemp(prefix="ab-t"))
    lab = Lab(f"ab-t{secrets.token_hex(3)}", directory, f"test-{secrets.token_hex(6)}")
    others = asyncio.all_tasks()
    try:
        await lab.build()
        yield lab
        for switch in lab.switches.values():
            began = time.monotonic()
            await switch.stop()
            assert time.monotonic() - began < 2
            links = run("ip", "-n", str(switch.netns), "-o", "link")
            assert "ovs-netdev" not in links
            assert BRIDGE not in links
        assert find_marked(lab.run_id) == []
        for controller in lab.controllers:
            await controller.close()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() <= others | {asyncio.current_task()}
    finally:
        await lab.tear_down()


fresh = pytest_asyncio.fixture(loop_scope="module", name="fresh")(running)
shared = pytest_asyncio.fixture(loop_scope="module", scope="module", name="shared")(running)


@pytest_asyncio.fixture(loop_scope="module")
async def lab(shared: Lab) -> Lab:
    """The lab of all tests that leave both switches at work, with nothing in their tables.

    A test that kills more than once gets a fresh one: pauses grow with each restart.
    """
    await shared.connected("root", "leaf")
    await shared.controller.apply({}, ORDER)
    for name in ORDER:  # no decision about earlier packets is remembered, as in a new switch
        control = str(shared.directory / name / "vswitchd.ctl")
        run("ovs-appctl", "--timeout=5", "-t", control, "revalidator/purge")
    while await shared.receive(0.01) is not None:
        pass
    shared.events.clear()
    shared.sent = 0
    return shared


def tables(rules: Mapping[str, Iterable[Rule]]) -> dict[str, Tables]:
    return {name: Tables(frozenset(of_switch)) for name, of_switch in rules.items()}


def flow_rule(cookie: int, *actions: Action) -> Rule:
    match = Match(in_port=1, eth_type=ETH_IPV4, ip_proto=IP_UDP, ipv4_dst=GROUP, udp_dst=GROUP_PORT)
    return Rule(0, 1000, match, actions, cookie)


TO_VIEWER = (
    SetField("eth_dst", VIEWER_MAC),
    SetField("ipv4_dst", VIEWER_IP),
    SetField("udp_dst", VIEWER_PORT),
    Output(2),
)


def wanted(cookie: int = 7) -> dict[str, Tables]:
    to_leaf, to_viewer = flow_rule(cookie, Output(2)), flow_rule(cookie, *TO_VIEWER)
    return tables({"root": [to_leaf], "leaf": [to_viewer]})


ORDER = ("root", "leaf")


def report(line: str) -> None:
    """Leave a measurement in the test's output: shown with -s, kept with -rA."""
    sys.stdout.write(f"\n{line}\n")


async def flow_back(lab: Lab, patience: float) -> float:
    """Send until something arrives; return when (monotonic seconds)."""
    began = time.monotonic()
    while True:
        lab.send()
        if await lab.receive(0.01) is not None:
            return time.monotonic()
        assert time.monotonic() - began < patience, "the flow is not back"


async def test_copies_reach_the_viewer_only_while_a_rule_wants_it(lab: Lab) -> None:
    for _ in range(20):
        lab.send()
    assert await lab.receive() is None
    counters = {stats.port_no: stats for stats in await lab.controller.readings.ports("root")}
    assert counters[1].rx_packets >= 20
    assert counters[2].tx_packets == 0

    assert await lab.controller.apply(wanted(), ORDER) == frozenset()
    await flow_back(lab, 1)  # the datapath's cache follows the tables within milliseconds
    await lab.drained()
    began = lab.sent
    for _ in range(50):
        lab.send()
        await asyncio.sleep(0.001)
    assert await lab.drained() == list(range(began + 1, began + 51))
    (flow,) = await lab.controller.readings.flows("leaf")
    assert flow.cookie == 7
    assert {Rule.installed(flow)} == wanted()["leaf"].rules

    await lab.controller.apply({}, ORDER)
    await asyncio.sleep(0.1)
    lab.send()
    assert await lab.receive() is None
    assert await lab.controller.readings.flows("root") == []


async def test_a_rule_changes_in_place_without_loss(lab: Lab) -> None:
    await lab.controller.apply(wanted(1), ORDER)
    for cookie in range(2, 42):
        lab.send()
        await lab.controller.apply(wanted(cookie), ORDER)
        lab.send()
    assert await lab.drained() == list(range(1, lab.sent + 1))
    assert [flow.cookie for flow in await lab.controller.readings.flows("root")] == [41]


async def test_a_delivery_to_two_viewers_and_a_plain_copy(lab: Lab) -> None:
    """Three copies of each packet leave by one port, each with its own header."""
    other = (SetField("udp_dst", VIEWER_PORT + 1), Output(2))
    rules = {
        "root": [flow_rule(1, Output(2))],
        "leaf": [flow_rule(1, Output(2), *TO_VIEWER, *other)],
    }
    sniffer = socket_in(
        lab.namespace("viewer"),
        lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)),
    )
    try:
        sniffer.bind(("eth0", 0x0800))
        sniffer.settimeout(2)
        await lab.controller.apply(tables(rules), ORDER)
        lab.send()
        frames = [await asyncio.to_thread(sniffer.recv, 2048) for _ in range(3)]
    finally:
        sniffer.close()
    seen = {
        (frame[:6].hex(":"), socket.inet_ntoa(frame[30:34]), int.from_bytes(frame[36:38]))
        for frame in frames
    }
    assert seen == {
        ("01:00:5e:01:02:03", GROUP, GROUP_PORT),
        (VIEWER_MAC, VIEWER_IP, VIEWER_PORT),
        (VIEWER_MAC, VIEWER_IP, VIEWER_PORT + 1),
    }


@pytest.mark.parametrize("name", ["root", "leaf"])
async def test_rules_are_back_after_the_switch_was_killed(lab: Lab, name: str) -> None:
    await lab.controller.apply(wanted(), ORDER)
    lab.send()
    assert await lab.receive() == 1
    began = time.monotonic()
    lab.switches[name].vswitchd.kill()
    await asyncio.sleep(0.02)
    await lab.drained()
    report(f"{name} killed: flow back after {await flow_back(lab, 2) - began:.3f} s")
    kinds = [event.kind for event in lab.events if event.subject in (name, f"{name}-vswitchd")]
    assert kinds.count("child.restarted") == 1
    assert kinds.count("switch.lost") == 1
    assert kinds.count("switch.connected") == 1


async def test_the_death_of_the_database_server_is_a_pause(fresh: Lab) -> None:
    """Without its database's lock ovs-vswitchd forwards nothing, so it is replaced as well."""
    await fresh.controller.apply(wanted(), ORDER)
    leaf = fresh.switches["leaf"]
    for kill in (1, 2, 3):  # again and again: no pause may grow
        pid = leaf.vswitchd.pid
        began = time.monotonic()
        leaf.ovsdb.kill()
        await asyncio.sleep(0.05)
        report(f"ovsdb-server killed: flow back after {await flow_back(fresh, 4) - began:.3f} s")
        assert leaf.ovsdb.restarts == kill
        assert leaf.vswitchd.pid != pid
    assert (await fresh.controller.readings.flows("leaf"))[0].cookie == 7
    ports = {"l1": 1, "l2": 2}
    await leaf.configure(BRIDGE, 2, ports, f"unix:{leaf.controller_path(BRIDGE)}")
    await fresh.drained()
    fresh.send()
    assert await fresh.receive() == fresh.sent


async def test_both_killed_at_once_come_back(fresh: Lab) -> None:
    await fresh.controller.apply(wanted(), ORDER)
    leaf = fresh.switches["leaf"]
    began = time.monotonic()
    leaf.ovsdb.kill()
    leaf.vswitchd.kill()
    await asyncio.sleep(0.05)
    report(f"both killed: flow back after {await flow_back(fresh, 4) - began:.3f} s")


async def test_a_new_controller_keeps_right_rules_and_removes_strange_ones(lab: Lab) -> None:
    await lab.controller.apply(wanted(), ORDER)
    born = time.monotonic()
    await asyncio.sleep(0.3)
    await lab.controller.close()
    management = f"unix:{lab.directory}/leaf/{BRIDGE}.mgmt"
    for strange in ("priority=9,arp,actions=output:1", "priority=3,tun_id=5,actions=normal"):
        run("ovs-ofctl", "-O", "OpenFlow13", "add-flow", management, strange)
    sending = asyncio.create_task(_stream(lab))
    restarted = time.monotonic()
    await lab.new_controller()
    await lab.connected("root", "leaf")
    report(f"reconnected {time.monotonic() - restarted:.3f} s after the restart")
    assert len(await lab.controller.readings.flows("leaf")) == 3  # nothing is touched before apply
    await lab.controller.apply(wanted(), ORDER)
    (flow,) = await lab.controller.readings.flows("leaf")
    assert flow.duration > restarted - born  # not installed anew
    await asyncio.sleep(0.1)
    sending.cancel()
    with suppress(asyncio.CancelledError):
        await sending
    assert await lab.drained() == list(range(1, lab.sent + 1))


async def _stream(lab: Lab) -> None:
    while True:
        lab.send()
        await asyncio.sleep(0.005)


async def test_rules_wait_for_a_switch_that_is_away(lab: Lab) -> None:
    leaf = lab.switches["leaf"]
    await leaf.stop()
    async with asyncio.timeout(2):
        while lab.controller.switches()["leaf"].connected:
            await asyncio.sleep(0.01)
    assert await lab.controller.apply(wanted(), ORDER) == {"leaf"}
    await leaf.start()
    await lab.connected("leaf")
    await lab.synced("leaf", 1)
    lab.send()
    assert await lab.receive() == 1


async def test_a_refused_rule_is_named_and_the_others_stay(lab: Lab) -> None:
    right = wanted()
    wrong = Rule(0, 5, Match(udp_dst=9), (), 1)  # a UDP port without the protocol
    with pytest.raises(FabricError, match=r"leaf refused rule .*udp_dst=9"):
        await lab.controller.apply({**right, "leaf": Tables(right["leaf"].rules | {wrong})}, ORDER)
    lab.send()
    assert await lab.receive() == 1
    assert [event.subject for event in lab.events if event.kind == "switch.error"] == ["leaf"]


async def test_links_going_down_and_up_are_events(lab: Lab) -> None:
    for state in ("down", "up"):
        run("ip", "-n", lab.namespace("viewer"), "link", "set", "eth0", state)
        async with asyncio.timeout(3):
            while not any(event.kind == f"port.{state}" for event in lab.events):
                await asyncio.sleep(0.01)
    event = next(event for event in lab.events if event.kind == "port.down")
    assert (event.subject, event.data) == ("leaf", {"port_no": 2, "port": "l2"})


async def test_configure_replaces_ports_and_reports_missing_devices(lab: Lab) -> None:
    leaf = lab.switches["leaf"]
    target = f"unix:{leaf.controller_path(BRIDGE)}"
    await leaf.configure(BRIDGE, 2, {"l1": 1}, target)
    async with asyncio.timeout(2):
        while 2 in lab.controller.switches()["leaf"].ports:
            await asyncio.sleep(0.01)
    with pytest.raises(FabricError, match="nothere shall be port 3 but cannot be opened"):
        await leaf.configure(BRIDGE, 2, {"l1": 1, "nothere": 3}, target)
    await leaf.configure(BRIDGE, 2, {"l1": 1, "l2": 2}, target)
    async with asyncio.timeout(2):
        while 2 not in lab.controller.switches()["leaf"].ports:
            await asyncio.sleep(0.01)


async def test_a_switch_whose_children_were_killed_for_good_can_be_started_again(lab: Lab) -> None:
    """What a killed director leaves: no graceful end, devices and sockets still there."""
    leaf = lab.switches["leaf"]
    for child in (leaf.vswitchd, leaf.ovsdb):
        await child.stop()
    await leaf.database.close()
    again = OpenVSwitch("leaf", leaf.netns, leaf.directory, lab.run_id, lab.events.append)
    lab.switches["leaf"] = again
    await again.start()
    target = f"unix:{again.controller_path(BRIDGE)}"
    await again.configure(BRIDGE, 2, {"l1": 1, "l2": 2}, target)
    await lab.connected("leaf")
    await lab.controller.apply(wanted(), ORDER)
    lab.send()
    assert await lab.receive() == 1


async def test_a_switch_that_hangs_is_killed_and_its_devices_are_removed(fresh: Lab) -> None:
    leaf = fresh.switches["leaf"]
    assert leaf.vswitchd.pid is not None
    os.kill(leaf.vswitchd.pid, signal.SIGSTOP)
    began = time.monotonic()
    await leaf.stop()
    assert time.monotonic() - began < 4
    assert "ovs-netdev" not in run("ip", "-n", str(leaf.netns), "-o", "link")


IN_OWN_NAMESPACE = """
import asyncio, sys
from pathlib import Path
from anabranch.fabric.openvswitch import OpenVSwitch

async def main():
    switch = OpenVSwitch("alone", None, Path(sys.argv[1]), sys.argv[2], print)
    await switch.start()
    await switch.configure("br0", 1, {"lone0": 5}, "tcp:127.0.0.1:6653")
    print("configured")
    await switch.stop()

asyncio.run(main())
"""


async def test_it_runs_in_the_directors_own_namespace_too(lab: Lab) -> None:
    """The director is a process inside the viewer's namespace, so as not to touch the machine's."""
    netns = lab.namespace("viewer")
    run("ip", "-n", netns, "link", "add", "lone0", "type", "veth", "peer", "name", "lone1")
    arguments = (sys.executable, "-c", IN_OWN_NAMESPACE, str(lab.directory / "alone"), lab.run_id)
    out = await asyncio.to_thread(run, "ip", "netns", "exec", netns, *arguments)
    assert "configured" in out
    assert "ovs-netdev" not in run("ip", "-n", netns, "-o", "link")


async def test_two_thousand_rules_are_installed_and_read_back(lab: Lab) -> None:
    rules = [
        Rule(0, 10, Match(in_port=1, eth_type=0x0800, ipv4_dst=f"239.2.{n >> 8}.{n & 255}"), (), n)
        for n in range(1, 2001)
    ]
    began = time.monotonic()
    await lab.controller.apply(tables({"leaf": rules}), ORDER)
    report(f"2000 rules installed in {time.monotonic() - began:.3f} s")
    await lab.controller.close()
    await lab.new_controller()
    await lab.connected("leaf")
    began = time.monotonic()
    await lab.controller.apply(tables({"leaf": rules}), ORDER)
    report(f"2000 rules read back and compared in {time.monotonic() - began:.3f} s")
    flows = await lab.controller.readings.flows("leaf")
    assert len(flows) == 2000
    assert min(flow.duration for flow in flows) > time.monotonic() - began  # none anew
