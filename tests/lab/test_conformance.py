"""The conformance suite against Open vSwitch's userspace datapath, and both on random programs.

Where the two differ, ``test_where_they_differ`` says how and who follows the specification.
"""

import asyncio
import json
import os
import secrets
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import Phase, given, seed, settings
from tests.fabric.openflow.matches import matches
from tests.fabric.softswitch.cases import (
    CASES,
    DIFFERENCES,
    PORTS,
    SENTINEL_COOKIE,
    Case,
    Copy,
    Device,
    Difference,
    flows_of,
    run,
)
from tests.fabric.softswitch.programs import Program, programs
from tests.fabric.softswitch.soft_device import SoftDevice
from tests.lab.inside import socket_in

from anabranch.fabric import frames
from anabranch.fabric.openflow.actions import PORT_IN_PORT, ApplyActions, Output
from anabranch.fabric.openflow.messages import Command, Error, FlowMod
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.openflow.prerequisites import fault_of
from anabranch.fabric.openvswitch import OpenVSwitch
from anabranch.host.process import end_marked

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

BRIDGE = "br0"
SENTINEL_TYPE = 0x88B5  # IEEE 802: for local experiments
_SOL_PACKET, _AUXDATA, _IGNORE_OUTGOING = 263, 8, 23
_VLAN_VALID, _TPID_VALID = 0x10, 0x40
_AUX = struct.Struct("=IIIHHHH")


def shell(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


def _end_of(port_no: int) -> socket.socket:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    end.setsockopt(_SOL_PACKET, _AUXDATA, 1)
    end.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
    end.bind((f"t{port_no}", 3))
    end.settimeout(3.0)
    return end


class OvsDevice(Device):
    """One bridge with four veth ports in a namespace of its own.

    A sentinel follows every frame into the same port: the datapath handles one port's frames in
    order, so when the sentinel has come out everything before it has, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.netns = f"ab-c{secrets.token_hex(3)}"
        self.directory = Path(tempfile.mkdtemp(prefix="ab-c"))
        self.run_id = f"test-{secrets.token_hex(6)}"
        self.loop = asyncio.new_event_loop()
        self.switch = OpenVSwitch(
            "conf", self.netns, self.directory, self.run_id, lambda event: None
        )
        self.ends: dict[int, socket.socket] = {}
        self.down: set[int] = set()
        self.control = socket.socket(socket.AF_UNIX)
        self.unixctl = socket.socket(socket.AF_UNIX)
        self.sentinels = 0
        self.processors = os.sched_getaffinity(0)

    def build(self) -> None:
        # A veth queues what it is given on the processor that gives it: were this thread or the
        # switch's moved to another between two frames, the second could overtake the first.
        os.sched_setaffinity(0, {min(self.processors)})
        shell("ip", "netns", "add", self.netns)
        quiet = "net.ipv6.conf.default.disable_ipv6=1"
        shell("ip", "netns", "exec", self.netns, "sysctl", "-qw", quiet)
        for port_no in PORTS:
            names = (f"s{port_no}", f"t{port_no}")
            add = ("type", "veth", "peer", "name", names[1])
            shell("ip", "-n", self.netns, "link", "add", names[0], *add)
            for name in names:
                shell("ip", "-n", self.netns, "link", "set", name, "up", "mtu", "1500")
                shell("ip", "netns", "exec", self.netns, "ethtool", "-K", name, "tx", "off")
        ports = {f"s{port_no}": port_no for port_no in PORTS}
        self.loop.run_until_complete(self._start(ports))
        self._open_ends()
        self.control.connect(str(self.directory / f"{BRIDGE}.mgmt"))
        self.control.settimeout(0.02)
        self.unixctl.connect(str(self.directory / "vswitchd.ctl"))
        self.unixctl.settimeout(5)
        self.handshake()

    async def _start(self, ports: dict[str, int]) -> None:
        await self.switch.start()
        await self.switch.configure(
            BRIDGE, 0xAB, ports, f"unix:{self.switch.controller_path(BRIDGE)}"
        )
        # 0: as many tags as the datapath can, two, are looked behind for the type
        database = f"--db=unix:{self.directory}/db.sock"
        shell("ovs-vsctl", database, "set", "open_vswitch", ".", "other_config:vlan-limit=0")

    def _open_ends(self) -> None:
        for port_no in PORTS:
            self.ends[port_no] = socket_in(self.netns, partial(_end_of, port_no))

    def tear_down(self) -> None:
        os.sched_setaffinity(0, self.processors)
        for end in (*self.ends.values(), self.control, self.unixctl):
            end.close()
        self.loop.run_until_complete(self.switch.stop())
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()
        end_marked(self.run_id)
        subprocess.run(["ip", "netns", "delete", self.netns], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def exchange(self, data: bytes) -> bytes:
        self.control.sendall(data)
        with suppress(TimeoutError):
            return self.control.recv(1 << 20)
        return b""

    def reset_rules(self) -> tuple[FlowMod, ...]:
        everywhere = ApplyActions((Output(0xFFFFFFFC), Output(PORT_IN_PORT)))
        match = Match(eth_type=SENTINEL_TYPE)
        return (FlowMod(Command.ADD, match, (everywhere,), priority=65535, cookie=SENTINEL_COOKIE),)

    def transfer(self, in_port: int, frame: bytes) -> list[Copy]:
        if in_port in self.down:
            in_port = next(port for port in PORTS if port not in self.down)
        elif frame:
            self.ends[in_port].send(frame)
        self.sentinels += 1
        mark = self.sentinels.to_bytes(46, "big")
        sentinel = frames.ethernet("02:00:00:00:00:fe", "02:00:00:00:00:fd", SENTINEL_TYPE, mark)
        self.ends[in_port].send(sentinel)
        copies: list[Copy] = []
        for port_no in PORTS:
            while port_no not in self.down:
                got = self._receive(port_no)
                if got == sentinel:
                    break
                copies.append((port_no, got))
        return copies

    def _receive(self, port_no: int) -> bytes:
        frame, control, _, _ = self.ends[port_no].recvmsg(65536, 256)
        for level, kind, raw in control:
            if (level, kind) == (_SOL_PACKET, _AUXDATA):
                status, _, _, _, _, tci, tpid = _AUX.unpack(raw[: _AUX.size])
                if status & _VLAN_VALID:  # the kernel has taken the outermost tag off
                    kind_of = tpid if status & _TPID_VALID else 0x8100
                    frame = frame[:12] + struct.pack("!HH", kind_of, tci) + frame[12:]
        return frame

    def set_port(self, port_no: int, up: bool) -> None:
        if up == (port_no not in self.down):
            return
        shell("ip", "-n", self.netns, "link", "set", f"t{port_no}", "up" if up else "down")
        (self.down.discard if up else self.down.add)(port_no)
        state = "LINK_DOWN" if not up else "LIVE"
        deadline = time.monotonic() + 3
        while (
            state
            not in self._ofctl("dump-ports-desc")
            .split(f"{port_no}(s{port_no})")[1]
            .split("speed")[0]
        ):
            assert time.monotonic() < deadline, f"port {port_no} is not {state}"
            time.sleep(0.005)
        time.sleep(0.05)
        if up:
            with suppress(OSError):  # "network is down", once
                self.ends[port_no].recv(1, socket.MSG_DONTWAIT)
        self.settle()

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def settle(self) -> None:
        """Empty the datapath's caches, which pushes their counters to the tables."""
        # What ovs-appctl does, without starting a process each time.
        self.unixctl.sendall(b'{"id":0,"method":"revalidator/purge","params":[]}')
        answer = json.loads(self.unixctl.recv(4096))
        assert answer["error"] is None

    def _ofctl(self, command: str) -> str:
        management = f"unix:{self.directory}/{BRIDGE}.mgmt"
        return shell("ovs-ofctl", "-O", "OpenFlow14", command, management)


@pytest.fixture(scope="module")
def ovs() -> Iterator[OvsDevice]:
    device = OvsDevice()
    try:
        device.build()
        yield device
    finally:
        device.tear_down()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(ovs: OvsDevice, case: Case) -> None:
    run(ovs, case)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=str)
def test_where_they_differ(ovs: OvsDevice, difference: Difference) -> None:
    """What each difference is, and who is right, stands at ``cases._differences``."""
    run(ovs, difference.open_vswitch)
    with pytest.raises(AssertionError):
        run(ovs, difference.specified)


@seed(20260121)
@settings(
    max_examples=400,
    deadline=None,
    database=None,
    # A failure is reported as found: to shrink it takes minutes on a real switch.
    phases=[Phase.generate],
)
@given(program=programs())
def test_random_programs(ovs: OvsDevice, program: Program) -> None:
    soft = SoftDevice()
    for device in (soft, ovs):
        device.load(program.case)
    for _ in range(2):
        for in_port, frame in program.frames:
            expected = Counter(soft.transfer(in_port, frame))
            assert Counter(ovs.transfer(in_port, frame)) == expected, (in_port, frame.hex())
        assert flows_of(ovs) == flows_of(soft)
        for device in (soft, ovs):
            assert device.request([*program.mods, *device.reset_rules()]) == []
            device.settle()  # what follows meets the new tables
    assert flows_of(ovs) == flows_of(soft)


@seed(20261121)
@settings(max_examples=2000, deadline=None, database=None, phases=[Phase.generate])
@given(match=matches())
def test_a_match_is_refused_here_as_there(ovs: OvsDevice, match: Match) -> None:
    answers = ovs.request([FlowMod(Command.ADD, match)])
    refused = [answer for answer in answers if isinstance(answer, Error)]
    assert (fault_of(match) is not None) == bool(refused), (match, fault_of(match), refused)


@pytest.mark.parametrize("match", [Match(vlan_vid=5), Match(vlan_vid=0x1FFF)])
def test_a_vlan_that_no_packet_has_is_refused_here_alone(ovs: OvsDevice, match: Match) -> None:
    assert fault_of(match) is not None
    assert ovs.request([FlowMod(Command.ADD, match)]) == []
