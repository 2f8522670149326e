"""The controller and one real Open vSwitch: groups, meters, roles, TLS, nothing touched in vain.

    sender ---- 1 br0 2 ---- receiver; port 3 leads nowhere

Frames are sent and read raw. The switch has a namespace of its own; controllers that it reaches by
TCP listen in there.
"""

import asyncio
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.lab.inside import inside
from tests.waiting import until

from anabranch.core.events import Event
from anabranch.fabric.bridges import Bridge, ControllerTarget, Device, Internal, Tls
from anabranch.fabric.controller import Controller
from anabranch.fabric.doors import server_context
from anabranch.fabric.errors import FabricError
from anabranch.fabric.frames import ipv4_udp, parse
from anabranch.fabric.openflow.actions import Group, Output, SetField
from anabranch.fabric.openflow.messages import Bucket, ControllerRole, GroupType, MeterBand
from anabranch.fabric.openflow.oxm import ETH_IPV4, IP_UDP, Match
from anabranch.fabric.openvswitch import OpenVSwitch
from anabranch.fabric.tables import (
    INTENT_COOKIE,
    REACTIVE_COOKIE,
    GroupSpec,
    MeterSpec,
    Rule,
    Tables,
)
from anabranch.host.process import end_marked

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

BRIDGE, DPID = "br0", 0x5EED
IN, OUT, NOWHERE = 1, 2, 3
NEWS, SPORT = "239.0.0.1", "239.0.0.2"


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


def report(line: str) -> None:
    """Leave a measurement in the test's output: shown with -s, kept with -rA."""
    sys.stdout.write(f"\n{line}\n")


@dataclass
class Lab:
    prefix: str
    directory: Path
    run_id: str
    switch: OpenVSwitch
    events: list[Event] = field(default_factory=list)
    controllers: list[Controller] = field(default_factory=list)
    ends: list[socket.socket] = field(default_factory=list)
    received: list[tuple[float, int, int]] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    pids: list[int] = field(default_factory=list)

    @property
    def netns(self) -> str:
        return f"{self.prefix}-s"

    @property
    def hosts(self) -> str:
        return f"{self.prefix}-h"

    async def build(self) -> None:
        for name in (self.netns, self.hosts):
            run("ip", "netns", "add", name)
            quiet = "net.ipv6.conf.default.disable_ipv6=1"
            run("ip", "netns", "exec", name, "sysctl", "-qw", quiet)
            run("ip", "-n", name, "link", "set", "lo", "up")
        for number in (IN, OUT):
            far = ("peer", "name", f"h{number}", "netns", self.hosts)
            run("ip", "-n", self.netns, "link", "add", f"p{number}", "type", "veth", *far)
            run("ip", "-n", self.netns, "link", "set", f"p{number}", "up")
            run("ip", "-n", self.hosts, "link", "set", f"h{number}", "up")
        with inside(self.hosts):
            for device, protocol in (("h1", 0), ("h2", 0x0800)):
                end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
                end.bind((device, protocol))
                end.setblocking(False)
                end.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
                self.ends.append(end)
        asyncio.get_running_loop().add_reader(self.ends[1], self._receive)
        await self.switch.start()

    async def target(self, *targets: str, tls: Tls | None = None) -> None:
        ports = (
            Device(name="p1", ofport=IN),
            Device(name="p2", ofport=OUT),
            Internal(name="p3", ofport=NOWHERE),
        )
        controllers = tuple(map(ControllerTarget, targets))
        await self.switch.apply([Bridge(BRIDGE, ports, DPID, controllers=controllers)], tls=tls)

    def controller(self, **options: object) -> Controller:
        made = Controller(self.events.append, names={DPID: "sw"}, **options)  # type: ignore[arg-type]
        self.controllers.append(made)
        return made

    async def unix(self) -> Controller:
        """Return a controller that has the switch, over its Unix socket."""
        made = self.controller()
        path = self.switch.controller_path(BRIDGE)
        await made.listen_unix(path, "sw")
        await self.target(f"unix:{path}")
        await until(lambda: made.switches()["sw"].connected)
        return made

    async def tcp(self, controller: Controller, tls: ssl.SSLContext | None = None) -> str:
        with inside(self.netns):
            port = await controller.listen_tcp("127.0.0.1", 0, tls=tls)
        return f"{'ssl' if tls else 'tcp'}:127.0.0.1:{port}"

    def send(self, group: str) -> None:
        self.sent[group] += 1
        data = f"{group} {self.sent[group]}".encode()
        frame = ipv4_udp(
            "01:00:5e:00:00:01", "02:00:00:00:00:01", "10.0.0.1", group, 4000, 5004, data
        )
        self.ends[0].send(frame)

    def _receive(self) -> None:
        with suppress(BlockingIOError):
            while True:
                headers = parse(self.ends[1].recv(2048))
                group, number = headers.payload.decode().split()
                channel = 1 if group == NEWS else 2
                udp_dst = headers.fields["udp_dst"]
                self.received.append((time.monotonic(), udp_dst, channel * 1_000_000 + int(number)))

    async def quiet(self) -> None:
        """Wait until nothing arrives any more."""
        count = -1
        while count != len(self.received):
            count = len(self.received)
            await asyncio.sleep(0.1)

    async def stream(self, interval: float) -> None:
        while True:
            for group in (NEWS, SPORT):
                self.send(group)
            await asyncio.sleep(interval)

    async def tear_down(self) -> None:
        asyncio.get_running_loop().remove_reader(self.ends[1]) if len(self.ends) > 1 else None
        for end in self.ends:
            end.close()
        for controller in self.controllers:
            await controller.close()
        await self.switch.stop()
        end_marked(self.run_id)
        for name in (self.netns, self.hosts):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    directory = Path(tempfile.mkdtemp(prefix="ab-t"))
    prefix, run_id = f"ab-t{secrets.token_hex(3)}", f"test-{secrets.token_hex(6)}"
    switch = OpenVSwitch("sw", f"{prefix}-s", directory / "sw", run_id, lambda _: None)
    lab = Lab(prefix, directory, run_id, switch)
    try:
        await lab.build()
        yield lab
    finally:
        await lab.tear_down()


@contextmanager
def streaming(lab: Lab, interval: float = 0.002) -> Iterator[None]:
    task = asyncio.create_task(lab.stream(interval), name="stream")
    try:
        yield
    finally:
        task.cancel()


def channel(number: int, group: str, group_id: int, **more: object) -> Rule:
    match = Match(in_port=IN, eth_type=ETH_IPV4, ip_proto=IP_UDP, ipv4_dst=group)
    cookie = INTENT_COOKIE | number
    return Rule(0, 100, match, (Group(group_id),), cookie, **more)  # type: ignore[arg-type]


def receiver(number: int, port: int = NOWHERE) -> Bucket:
    rewritten = (
        SetField("eth_dst", f"02:00:00:01:{number >> 8:02x}:{number & 255:02x}"),
        SetField("ipv4_dst", f"10.1.{number >> 8}.{number & 255}"),
        SetField("udp_dst", 10_000 + number),
    )
    return Bucket((*rewritten, Output(port)))


def two_channels(news: list[Bucket], sport: list[Bucket]) -> dict[str, Tables]:
    """Return the tables that copy each channel to its receivers."""
    groups = (GroupSpec(1, GroupType.ALL, tuple(news)), GroupSpec(2, GroupType.ALL, tuple(sport)))
    rules = (channel(1, NEWS, 1), channel(2, SPORT, 2))
    return {"sw": Tables(frozenset(rules), frozenset(groups))}


@pytest.mark.parametrize("size", [20, 500])
async def test_a_receiver_moves_between_groups_and_others_lose_nothing(lab: Lab, size: int) -> None:
    """Of 500 buckets all but three lead nowhere: the switch makes the copies all the same."""
    controller = await lab.unix()
    rest = [receiver(number) for number in range(size - 2)]
    one, other, mover = (receiver(number, OUT) for number in (1001, 1002, 1003))
    places = [two_channels([*rest, one, mover], [*rest, other])]
    places.append(two_channels([*rest, one], [*rest, mover, other]))
    await controller.apply(places[0])
    await asyncio.sleep(0.1)
    gaps = []
    with streaming(lab, 0.004 if size > 100 else 0.002):
        await asyncio.sleep(0.1)
        for turn in range(1, 9):
            wanted = 2 if turn % 2 else 1
            began, start = time.monotonic(), len(lab.received)
            await controller.apply(places[turn % 2])

            def arrived(start: int = start, wanted: int = wanted) -> bool:
                fresh = lab.received[start:]
                return any(to == 11_003 and n // 1_000_000 == wanted for _, to, n in fresh)

            await until(arrived)
            first = next(
                at
                for at, to, n in lab.received[start:]
                if to == 11_003 and n // 1_000_000 == wanted
            )
            gaps.append(first - began)
            await asyncio.sleep(0.05)
    await lab.quiet()
    report(
        f"{size} buckets: moved after {1e3 * sorted(gaps)[4]:.1f} ms, {1e3 * max(gaps):.1f} at most"
    )
    for to, first in ((11_001, 1_000_001), (11_002, 2_000_001)):
        numbers = [n for _, at, n in lab.received if at == to]
        count = lab.sent[NEWS if to == 11_001 else SPORT]
        assert numbers == list(range(first, first + count))
    moved = [n for _, at, n in lab.received if at == 11_003]
    assert len(moved) == len(set(moved)), "a packet came twice"
    switches = sum(a // 1_000_000 != b // 1_000_000 for a, b in pairwise(moved))
    assert switches == len(gaps), "both channels at the same time"


async def test_a_group_of_1000_is_split_and_every_receiver_gets_its_copy(lab: Lab) -> None:
    controller = await lab.unix()
    # The receiving kernel takes some 1,000 frames at once: every other one goes nowhere.
    receivers = [receiver(number, NOWHERE if number % 2 else OUT) for number in range(1000)]
    await controller.apply(two_channels(receivers, []))
    (event,) = [event for event in lab.events if event.kind == "group.split"]
    assert (event.subject, event.data) == ("sw", {"group": 1, "buckets": 1000})
    assert sorted(len(group.buckets) for group in await controller.readings.group_stats("sw")) == [
        *(0, 1, 1, 1, 3, 200, 400, 400)
    ]
    await asyncio.sleep(0.1)
    lab.send(NEWS)
    await lab.quiet()
    assert sorted(to for _, to, _ in lab.received) == [10_000 + n for n in range(0, 1000, 2)]
    await controller.apply(two_channels(receivers[:2], []))
    assert sorted(len(group.buckets) for group in await controller.readings.group_stats("sw")) == [
        0,
        2,
    ]
    assert not [event for event in lab.events if event.kind == "switch.error"]


def with_everything() -> dict[str, Tables]:
    """Return tables with one of each kind."""
    failover = (
        Bucket((Output(OUT),), watch_port=OUT),
        Bucket((SetField("eth_src", "02:00:00:00:00:09"), Output(NOWHERE)), watch_port=NOWHERE),
    )
    select = (replace(receiver(1, OUT), weight=1), replace(receiver(2, OUT), weight=3))
    groups = (
        GroupSpec(1, GroupType.ALL, (receiver(3, OUT), Bucket((Group(7),)))),
        GroupSpec(2, GroupType.SELECT, select),
        GroupSpec(7, GroupType.FAST_FAILOVER, failover),
        GroupSpec(8, GroupType.INDIRECT, (receiver(4),)),
    )
    meters = (
        MeterSpec(1, (MeterBand(100_000, 10_000),)),
        MeterSpec(2, (MeterBand(50_000, 5_000),), packets=True),
    )
    rules = (
        channel(1, NEWS, 1, meter=1),
        channel(2, SPORT, 2, meter=2, notify=True),
        Rule(0, 0, Match(in_port=OUT), (), INTENT_COOKIE, goto_table=2, metadata=(1, 0xFF)),
        Rule(2, 5, Match(metadata=(1, 0xFF)), (Group(8),), INTENT_COOKIE),
    )
    return {"sw": Tables(frozenset(rules), frozenset(groups), frozenset(meters))}


async def durations(controller: Controller) -> dict[object, float]:
    """Return the age of every entry: what is written anew is young."""
    flows, groups, meters = await asyncio.gather(
        controller.readings.flows("sw"),
        controller.readings.group_stats("sw"),
        controller.readings.meter_stats("sw"),
    )
    return (
        {flow.cookie: flow.duration for flow in flows}
        | {f"group {group.group_id}": group.duration for group in groups}
        | {f"meter {meter.meter_id}": meter.duration for meter in meters}
    )


async def test_a_new_controller_touches_nothing_that_is_right(lab: Lab) -> None:
    """Counters go on, entries grow older, and not one of 2 x 500 packets is lost."""
    controller = await lab.unix()
    await controller.apply(with_everything())
    await asyncio.sleep(0.05)
    born = time.monotonic()
    with streaming(lab):
        await asyncio.sleep(0.4)
        await controller.close()
        path = f"unix:{lab.switch.directory}/{BRIDGE}.mgmt"
        for command, strange in (
            ("add-flow", "table=3,priority=9,arp,actions=output:1"),
            ("add-flow", f"table=4,cookie={REACTIVE_COOKIE | 1},actions=output:1"),
            ("add-group", "group_id=55,type=all,bucket=output:1"),
            ("add-meter", "meter=9,kbps,band=type=drop,rate=5"),
        ):
            run("ovs-ofctl", "-O", "OpenFlow13", command, path, strange)
        successor = await lab.unix()
        assert len(await successor.readings.flows("sw")) == 6  # nothing is touched before apply
        await successor.apply(with_everything())
        ages = await durations(successor)
        looked = time.monotonic()
        await asyncio.sleep(0.2)
    await asyncio.sleep(0.6)  # the switch counts what its datapath did twice a second
    flows = {flow.cookie: flow for flow in await successor.readings.flows("sw")}
    assert set(flows) == {rule.cookie for rule in with_everything()["sw"].rules} | {
        REACTIVE_COOKIE | 1
    }
    del ages[REACTIVE_COOKIE | 1]
    assert len(ages) == 3 + 4 + 2  # two rules have one cookie
    assert min(ages.values()) > looked - born
    assert await successor.audit() == frozenset()
    await lab.quiet()
    for group, number, copies in ((NEWS, 1, 2), (SPORT, 2, 1)):
        assert flows[INTENT_COOKIE | number].packet_count == lab.sent[group]
        got = Counter(n for _, _, n in lab.received if n // 1_000_000 == number)
        assert got == {number * 1_000_000 + n: copies for n in range(1, lab.sent[group] + 1)}


async def test_what_others_delete_is_put_back(lab: Lab) -> None:
    controller = await lab.unix()
    wanted = with_everything()
    await controller.apply(wanted)
    path = f"unix:{lab.switch.directory}/{BRIDGE}.mgmt"

    async def ofctl(*command: str) -> None:
        await asyncio.to_thread(run, "ovs-ofctl", "-O", "OpenFlow13", *command)

    async def cookies() -> set[int]:
        return {flow.cookie for flow in await controller.readings.flows("sw")}

    whole = await cookies()
    sport = f"cookie={INTENT_COOKIE | 2}/-1"
    await ofctl("del-flows", path, sport)  # this rule gives notice
    async with asyncio.timeout(2):
        while await cookies() != whole:
            await asyncio.sleep(0.01)
    await ofctl("del-groups", path, "group_id=1")  # with it goes a rule without notice
    await ofctl("del-meter", path, "meter=2")
    await ofctl("mod-flows", path, "table=2,actions=drop")
    assert await controller.audit(whole=False) == {"sw"}
    assert await cookies() == whole
    assert {group.group_id for group in await controller.readings.group_stats("sw")} == {1, 2, 7, 8}
    assert await controller.audit() == frozenset()


async def test_a_full_table_is_told_and_the_rest_is_installed(lab: Lab) -> None:
    controller = await lab.unix()
    limit = ("--", "--id=@t", "create", "Flow_Table", "flow_limit=3", "overflow_policy=refuse")
    database = f"--db=unix:{lab.switch.directory}/db.sock"
    run("ovs-vsctl", database, *limit, "--", "set", "Bridge", BRIDGE, "flow_tables:5=@t")

    def some(*numbers: int, **more: Rule) -> dict[str, Tables]:
        rules = {Rule(5, number, Match(in_port=number), (), INTENT_COOKIE) for number in numbers}
        return {"sw": Tables(frozenset({*rules, *more.values()}))}

    other = channel(1, NEWS, 1)
    other = replace(other, actions=(Output(OUT),))
    with pytest.raises(FabricError, match=r"sw refused rule table=5 .*full"):
        await controller.apply(some(1, 2, 3, 4, 5, other=other))
    assert Counter(flow.table_id for flow in await controller.readings.flows("sw")) == {0: 1, 5: 3}
    assert len([event for event in lab.events if event.kind == "switch.error"]) == 1
    assert controller.refusals["sw"] >= 2  # a connection settles by itself, maybe at the same time
    await controller.apply(some(6, 7, 8))  # there is room only once the others are gone
    assert sorted(f.priority for f in await controller.readings.flows("sw")) == [6, 7, 8]


async def test_meters_hold_back_what_is_too_much(lab: Lab) -> None:
    controller = await lab.unix()
    meter = MeterSpec(1, (MeterBand(100, 20),), packets=True)
    rule = channel(1, NEWS, 1, meter=1)
    group = GroupSpec(1, GroupType.ALL, (receiver(1, OUT),))
    await controller.apply(
        {"sw": Tables(frozenset({rule}), frozenset({group}), frozenset({meter}))}
    )
    await asyncio.sleep(0.1)
    for _ in range(20):
        for _ in range(20):
            lab.send(NEWS)
        await asyncio.sleep(0.005)
    await lab.quiet()
    (stats,) = await controller.readings.meter_stats("sw")
    ((dropped, _),) = stats.bands
    assert dropped > 200
    assert len(lab.received) == stats.packet_count - dropped >= 10


# two controllers


async def test_two_controllers_one_takes_over_under_traffic(lab: Lab) -> None:
    first, second = lab.controller(), lab.controller()
    tables = two_channels([receiver(1, OUT)], [receiver(2, OUT)])
    await first.take_role(ControllerRole.MASTER, 1)
    await second.take_role(ControllerRole.SLAVE, 0)  # older than what the switch knows by then
    await lab.target(await lab.tcp(first), await lab.tcp(second))
    for controller in (first, second):
        await until(lambda c=controller: c.switches().get("sw") and c.switches()["sw"].connected)
    await first.apply(tables)
    assert await second.apply(tables) == {"sw"}  # remembered, not sent
    await asyncio.sleep(0.1)
    before = await durations(first)
    with streaming(lab):
        await asyncio.sleep(0.1)
        await second.take_role(ControllerRole.MASTER, 2)
        await until(lambda: any(event.kind == "controller.role_lost" for event in lab.events))
        after_loss = two_channels([], [])
        assert await first.apply(after_loss) == {"sw"}  # its word counts no more
        await second.apply(tables)
        after = await durations(second)
        assert all(after[key] > age for key, age in before.items())
        await second.apply(two_channels([receiver(1, OUT)], [receiver(2, OUT), receiver(3)]))
        await asyncio.sleep(0.1)
    await lab.quiet()
    for to, start, group in ((10_001, 1_000_000, NEWS), (10_002, 2_000_000, SPORT)):
        numbers = [n - start for _, at, n in lab.received if at == to]
        assert numbers == list(range(1, lab.sent[group] + 1))
    with pytest.raises(FabricError):
        await first.take_role(ControllerRole.MASTER, 1)


async def test_a_second_controller_may_dial_the_switchs_own_socket(lab: Lab) -> None:
    first = await lab.unix()
    await first.take_role(ControllerRole.MASTER, 1)
    tables = two_channels([receiver(1, OUT)], [])
    await first.apply(tables)
    second = lab.controller()
    await second.connect_unix(lab.switch.directory / f"{BRIDGE}.mgmt", "sw")
    await second.take_role(ControllerRole.SLAVE, 1)
    await until(lambda: second.switches()["sw"].connected)
    assert await second.apply(tables) == {"sw"}
    await second.take_role(ControllerRole.MASTER, 2)
    assert await second.apply(two_channels([], [])) == frozenset()
    assert [len(group.buckets) for group in await second.readings.group_stats("sw")] == [0, 0]
    with suppress(FabricError):
        await first.apply(two_channels([receiver(1, OUT)], []))
    assert [event.kind for event in lab.events if "role" in event.kind] == ["controller.role_lost"]
    assert [len(group.buckets) for group in await second.readings.group_stats("sw")] == [0, 0]


# TLS


@dataclass
class Authority:
    """Signs certificates; everything is in ``directory``."""

    directory: Path
    name: str

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self.directory / f"{self.name}.pem"
        self.certificate.write_bytes(self._sign(self.name, self.key.public_key(), authority=True))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return the files of a new certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        paths = (self.directory / f"{name}.pem", self.directory / f"{name}.key")
        paths[0].write_bytes(self._sign(name, key.public_key(), authority=False))
        plain = serialization.NoEncryption()
        form = serialization.PrivateFormat.PKCS8
        paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
        return paths

    def _sign(self, name: str, key: ec.EllipticCurvePublicKey, *, authority: bool) -> bytes:
        now = datetime.now(UTC)
        subject, issuer = (
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, who)])
            for who in (name, self.name)
        )
        serial = x509.random_serial_number()
        builder = x509.CertificateBuilder(issuer, subject, key, serial)
        builder = builder.not_valid_before(now - timedelta(days=1))
        builder = builder.not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(authority, None), critical=True)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


async def test_over_tls_only_our_switches_come_in(lab: Lab) -> None:
    ours, strange = (Authority(lab.directory, name) for name in ("ours", "strange"))
    context = server_context(*ours.issue("director"), ours.certificate)
    controller = lab.controller()
    target = await lab.tcp(controller, context)

    def files(authority: Authority) -> Tls:
        certificate, key = authority.issue(f"switch-of-{authority.name}")
        return Tls(str(key), str(certificate), str(ours.certificate))

    await lab.target(target, tls=files(strange))
    address = ("127.0.0.1", int(target.rpartition(":")[2]))
    with inside(lab.netns):
        plain = socket.create_connection(address, timeout=5)
    try:
        plain.sendall(b"\x06\x00\x00\x08\x00\x00\x00\x01")
        with suppress(ConnectionResetError):
            assert await asyncio.to_thread(plain.recv, 100) in (b"", b"\x15\x03\x01\x00\x02\x02F")
    finally:
        plain.close()
    await asyncio.sleep(0.5)
    assert "sw" not in controller.switches()
    await lab.target(target, tls=files(ours))
    await until(lambda: "sw" in controller.switches())
    assert await controller.apply(two_channels([receiver(1, OUT)], [])) == frozenset()
    assert len(await controller.readings.flows("sw")) == 2
