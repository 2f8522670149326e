"""What the network is now: switches, ports, links, hosts, VMs and load. Without any I/O.

Edge ports make no link: those of the administrator's plan, those of VMs, and those where a host
was seen. Only the first is a defence against a host that has never sent anything before it
carries discovery frames from one port to another; see ``lldp.py``.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from zlib import crc32

from anabranch.core.events import Event, EventData
from anabranch.fabric.bookkeeping import Alarms, Register
from anabranch.fabric.damping import DampingRules
from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.hosts import HostRules, Hosts, Vms
from anabranch.fabric.links import Heard, Links, pairs
from anabranch.fabric.lldp import Authenticator, Refusal, is_lldp, probe_in
from anabranch.fabric.load import LoadMeter
from anabranch.fabric.model import Link, LinkInfo, Network, PortInfo, PortRef
from anabranch.fabric.moves import probe_frame
from anabranch.fabric.openflow.actions import PORT_LOCAL, PORT_MAX
from anabranch.fabric.openflow.messages import Port, PortStats

_MAX_EVENTS = 100_000

_LINK_PORT_MAX = 0xFEFF  # Open vSwitch has no port above


@dataclass(frozen=True, slots=True)
class TopologyRules:
    """Times in seconds.

    Attributes:
        probe_interval: between two discovery frames of a port.
        misses: as many lost in a row end a discovered link. A switch whose connection is dead
            must be found lost before that, or a dead connection tears down links that work:
            ``hold`` has to exceed the session's ``lost_after`` by ``probe_interval``.
        probe_valid: how long a discovery frame may be under way.
        grace: how long a switch that has lost its controller counts as forwarding.
        settling: after a port has come up, hosts seen there do not yet make it an edge port:
            frames of a network that is just being taken over may still be under way.
        load_time_constant: see :class:`~anabranch.fabric.load.LoadMeter`.
        complain_every: between two ``topology.forged`` or ``.conflict`` events about one port.
        max_ports: of one switch; further ones are not heeded.
    """

    probe_interval: float = 5.0
    misses: int = 3
    probe_valid: float = 5.0
    grace: float = 10.0
    settling: float = 2.0
    load_time_constant: float = 0.0
    complain_every: float = 60.0
    max_ports: int = 4096
    damping: DampingRules = field(default_factory=DampingRules)
    hosts: HostRules = field(default_factory=HostRules)

    @property
    def hold(self) -> float:
        """How long one discovery frame confirms a link: until the last miss is certain."""
        return (self.misses + 1) * self.probe_interval


@dataclass(slots=True)
class _Switch:
    dpid: int
    away: bool = False
    ports: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Complaint:
    last: float
    count: int = 0


class Topology:
    """Keeps the picture; monotonic seconds are handed in as ``now``.

    Call ``handle_timer`` when ``next_timer`` is due, send what ``frames_to_send`` gives out of the
    ports it names, and publish ``events``. Of switches and ports the controller itself reports;
    from here come ``link.added``, ``.up``, ``.down``, ``.removed``, ``.damped``, ``.undamped``,
    ``host.added``, ``.moved``, ``.removed``, ``.conflict``, ``vm.added``, ``.moved``, ``.removed``,
    ``topology.forged`` (a discovery frame or MAC address is not what it claims to be) and
    ``topology.conflict`` (a port seems to lead elsewhere than it is known to); the last two at
    first and then at most once a minute for one port, with their number.

    Args:
        key: secret random bytes, at least 16, drawn anew by every controller.
        edge: ports that are never links.

    Attributes:
        counts: what was contained: ``forged``, ``conflict``, ``malformed``, ``foreign`` (somebody
            else's LLDP), ``ports`` beyond the limit.
    """

    def __init__(
        self,
        *,
        key: bytes,
        edge: frozenset[PortRef] = frozenset(),
        rules: TopologyRules | None = None,
    ) -> None:
        self._rules = rules = rules or TopologyRules()
        self._edge = edge
        self._authenticator = Authenticator(key, valid=rules.probe_valid)
        self._known: dict[str, _Switch] = {}
        self._switches: Register[str, int] = Register()
        self._ports: Register[PortRef, PortInfo] = Register()
        self._speeds: dict[PortRef, float] = {}
        self._came_up: dict[PortRef, float] = {}
        self._unhealthy: set[PortRef] = set()
        self._links = Links(
            self,
            self._emit,
            hold=rules.hold,
            patience=rules.probe_interval,
            damping=rules.damping,
        )
        self._hosts = Hosts(self._emit, rules.hosts, self._carries)
        self._host_ports: set[PortRef] = set()
        self._vms = Vms(self._emit, rules.hosts)
        self._load = LoadMeter(time_constant=rules.load_time_constant)
        self._grace: Alarms[str] = Alarms()
        self._probing: Alarms[PortRef] = Alarms()
        self._frames: dict[PortRef, bytes] = {}
        self._events: deque[Event] = deque(maxlen=_MAX_EVENTS)
        self._complaints: dict[tuple[PortRef, str], _Complaint] = {}
        self._network = Network()
        self._version = 0
        self.counts: Counter[str] = Counter()

    @property
    def version(self) -> int:
        """Grows with whatever matters for paths, and not with load.

        That is: switches, ports (there, up), links (all but their load) and the whereabouts of
        hosts.
        """
        return self._version + self._links.version + self._hosts.version

    @property
    def host_counts(self) -> Mapping[str, int]:
        """What of hosts was not heeded, see :class:`~anabranch.fabric.hosts.Hosts`."""
        return self._hosts.counts

    def snapshot(self) -> Network:
        """Return the network as it is now; the same object until something changes."""
        known = self._network
        switches, ports = self._switches.copy(), self._ports.copy()
        links, hosts = self._links.copy(), self._hosts.copy()
        if not (
            switches is known.switches
            and ports is known.ports
            and links is known.links
            and hosts is known.hosts
        ):
            self._network = Network(switches, ports, links, hosts)
        return self._network

    def events(self) -> list[Event]:
        """Return, once, what has happened."""
        events = list(self._events)
        self._events.clear()
        return events

    def frames_to_send(self) -> list[tuple[PortRef, bytes]]:
        """Return, once, the discovery frames to be sent now, each out of its port."""
        frames = [item for item in self._frames.items() if not self.away(item[0].switch)]
        self._frames.clear()
        return frames

    def questions(self) -> list[tuple[PortRef, bytes]]:
        """Return, once, the frames that ask hosts whether they are still at their ports."""
        hosts = self._hosts.questions()
        return [(host.at, probe_frame(host.mac, host.ipv4)) for host in hosts if host.ipv4]

    # what the administrator says

    def declare(self, links: Mapping[Link, LinkInfo]) -> None:
        """Take ``links`` as all that the administrator knows, in place of earlier ones.

        A link that is given in one direction is the same in the other. ``up=False`` takes it out
        of service; loads are ignored.

        Raises:
            MisuseError: a port is none, in two links or an edge port, or a link stays in one
                switch.
        """
        declared = pairs(links)
        for port in (port for pair in declared for port in pair):
            if not 1 <= port.port_no <= _LINK_PORT_MAX:
                raise MisuseError(f"{port} is no port for a link: 1 to {_LINK_PORT_MAX} are")
            if port in self._edge:
                raise MisuseError(f"{port} is an edge port and in a declared link")
        for port in sorted(self._links.declare(declared)):
            self._find_vm(port, None)

    def set_edge(self, edge: frozenset[PortRef]) -> None:
        """Take ``edge`` as all ports that are never links, in place of earlier ones.

        Raises:
            MisuseError: one is in a declared link.
        """
        for port in sorted(edge):
            if self._links.declared_at(port):
                raise MisuseError(f"{port} is an edge port and in a declared link")
        self._edge = edge
        for port in sorted(edge):
            self._links.forbid(port)

    # what switches say

    def switch_up(self, name: str, dpid: int, ports: Mapping[int, Port], now: float) -> None:
        """A switch has connected (again) and has these ports."""
        switch = self._known.get(name)
        if switch is not None and switch.dpid != dpid:
            self._remove_switch(name, now)
            switch = None
        if switch is None:
            switch = self._known[name] = _Switch(dpid)
            self._switches.put(name, dpid)
            self._version += 1
        back = switch.away
        self._grace.cancel(name)
        for port_no in sorted(switch.ports - ports.keys()):
            self._port_gone(PortRef(name, port_no), now)
        for port_no in sorted(ports):
            self._set_port(PortRef(name, port_no), ports[port_no], now)
        self._links.switch_changed(name, now)
        switch.away = False  # only now: what has become of its links meanwhile is no flap
        for port_no in sorted(switch.ports) if back else ():
            self._links.confirm(PortRef(name, port_no), now)
            self._start_probing(PortRef(name, port_no), now)

    def switch_lost(self, name: str, now: float) -> None:
        """The controller has lost a switch, which forwards on for all that is known."""
        switch = self._known.get(name)
        if switch is not None and not switch.away:
            switch.away = True
            self._grace.set(name, now + self._rules.grace)

    def port_changed(self, name: str, port: Port | None, port_no: int, now: float) -> None:
        """A port of a switch is new or different, or (None) has gone."""
        if name not in self._known:
            return
        if port is None:
            self._port_gone(PortRef(name, port_no), now)
        else:
            self._set_port(PortRef(name, port_no), port, now)

    def port_health(self, port: PortRef, up: bool, now: float) -> None:
        """BFD says whether packets pass between a port and its peer."""
        if up:
            self._unhealthy.discard(port)
        else:
            self._unhealthy.add(port)
        self._links.changed(port, now)

    def counters(self, name: str, stats: Sequence[PortStats], now: float) -> None:
        """Take a switch's port counters for the load of its links."""
        known = [entry for entry in stats if PortRef(name, entry.port_no) in self._ports.now]
        self._links.reload(self._load.sample(name, known, now))

    def host_seen(
        self, mac: str, at: PortRef, ipv4: str | None, now: float, *, certain: bool = False
    ) -> None:
        """A packet from ``mac`` came in at ``at``; at links and unknown ports that means nothing.

        ``certain``: nobody but that host can be there, so it need not be asked elsewhere.

        Raises:
            MisuseError: ``mac`` or ``ipv4`` is no address.
        """
        if at not in self._ports.now or self._links.known_at(at):
            return
        certain = certain or self._vms.is_of(mac, at)
        if not self._hosts.seen(mac, at, ipv4, now, vm=at in self._vms, certain=certain):
            self._complain("forged", at, "the MAC address of a VM elsewhere", now)
            return
        self._vms.host_seen(mac, at, now)
        if now >= self._came_up.get(at, now) + self._rules.settling:
            self._host_ports.add(at)

    def frame(self, switch: str, in_port: int, data: bytes, now: float) -> bool:
        """Take a frame that a switch handed to the controller; say whether it was LLDP.

        LLDP is consumed whatever is in it.
        """
        if not is_lldp(data):
            return False
        at = PortRef(switch, in_port)
        if at not in self._ports.now:
            return True
        try:
            probe = probe_in(data)
        except ProtocolError:
            self.counts["malformed"] += 1
            return True
        if probe is None:
            self.counts["foreign"] += 1
            return True
        origin = self._authenticator.accept(probe, at, now)
        if isinstance(origin, Refusal):
            self._complain("forged", at, str(origin), now)
        elif self._is_edge(at) or self._is_edge(origin):
            self._complain("forged", at, f"carried from {origin} although one is an edge port", now)
        elif origin.switch != switch and self.works(origin) and self.works(at):
            heard = self._links.hear(origin, at, now)
            if heard is Heard.CONFLICT:
                self._complain("conflict", at, f"reached from {origin}", now)
            elif heard is Heard.ONE_WAY:
                self._probe(at, now)  # the other direction shall not have to wait for its turn
        return True

    # time

    def next_timer(self) -> float | None:
        """Return when ``handle_timer`` is due, in monotonic seconds; None for never."""
        due = (
            self._probing.next(),
            self._grace.next(),
            self._links.next_timer(),
            self._hosts.next_timer(),
        )
        return min((when for when in due if when is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Do what is due at ``now``."""
        for name in self._grace.due(now):
            self._remove_switch(name, now)
        for port in self._probing.due(now):
            if self.works(port):
                self._probe(port, now)
                self._probing.set(port, now + self._rules.probe_interval)
        self._links.handle_timer(now)
        self._hosts.handle_timer(now)

    # what links must know of their ends

    def present(self, switch: str) -> bool:
        return switch in self._known

    def away(self, switch: str) -> bool:
        known = self._known.get(switch)
        return known is not None and known.away

    def works(self, port: PortRef) -> bool:
        info = self._ports.now.get(port)
        return info is not None and info.up

    def healthy(self, port: PortRef) -> bool:
        return port not in self._unhealthy

    def capacity(self, port: PortRef) -> float | None:
        return self._speeds.get(port)

    def load(self, src: PortRef, dst: PortRef) -> float:
        sent, received = self._load.of(src), self._load.of(dst)
        if sent is not None and sent.tx_mbit is not None:
            return round(sent.tx_mbit, 3)
        return round((received.rx_mbit if received is not None else None) or 0.0, 3)

    def linked(self, port: PortRef) -> None:
        """What was seen at a port that is a link after all is somewhere behind that link."""
        self._host_ports.discard(port)
        self._vms.detach(port, frozenset(), None)
        self._hosts.port_gone(port, None)

    # switches and ports

    def _remove_switch(self, name: str, now: float) -> None:
        self._known[name].away = True  # that it is gone is no flap of its links
        # BFD reports by another way than the switch itself, and only what changes.
        unhealthy = {port for port in self._unhealthy if port.switch == name}
        for port_no in sorted(self._known[name].ports):
            self._port_gone(PortRef(name, port_no), now)
        self._unhealthy |= unhealthy
        del self._known[name]
        self._grace.cancel(name)
        self._switches.drop(name)
        self._version += 1
        self._links.switch_changed(name, now)

    def _set_port(self, ref: PortRef, port: Port, now: float) -> None:
        if not 1 <= ref.port_no <= PORT_MAX and ref.port_no != PORT_LOCAL:
            return
        old = self._ports.now.get(ref)
        if old is not None and old.name != port.name:  # another one has got its number
            self._port_gone(ref, now)
            old = None
        ports = self._known[ref.switch].ports
        if old is None and len(ports) >= self._rules.max_ports:
            self.counts["ports"] += 1
            return
        ports.add(ref.port_no)
        self._speeds[ref] = port.curr_speed / 1000
        self._ports.put(ref, PortInfo(port.name, port.hw_addr, port.up))
        was_up = old is not None and old.up
        self._version += old is None or was_up != port.up
        if was_up and not port.up:
            self._port_down(ref, now, gone=False)
        elif port.up and not was_up:
            self._came_up[ref] = now
            self._find_vm(ref, now)
            self._start_probing(ref, now)
        self._links.changed(ref, now)

    def _port_down(self, ref: PortRef, now: float, *, gone: bool) -> None:
        self._probing.cancel(ref)
        self._frames.pop(ref, None)
        self._links.unplugged(ref, now, gone=gone)
        if ref in self._vms:
            self._vms.detach(ref, self._hosts.at(ref), now)
            self._hosts.port_gone(ref, now)

    def _port_gone(self, ref: PortRef, now: float) -> None:
        if not self._ports.drop(ref):
            return
        self._known[ref.switch].ports.discard(ref.port_no)
        self._version += 1
        self._port_down(ref, now, gone=True)
        self._hosts.port_gone(ref, now)
        self._host_ports.discard(ref)
        self._unhealthy.discard(ref)
        self._load.forget(ref)
        self._speeds.pop(ref, None)
        self._came_up.pop(ref, None)
        for kind in ("forged", "conflict"):
            self._complaints.pop((ref, kind), None)

    def _find_vm(self, ref: PortRef, now: float | None) -> None:
        """Note a VM if there is one at a port that works."""
        if self.works(ref) and not self._links.known_at(ref):
            info = self._ports.now[ref]
            if self._rules.hosts.is_vm_port(info.name):
                self._vms.attach(ref, self._known[ref.switch].dpid, info, now)

    def _carries(self, port: PortRef) -> bool:
        """Say whether packets pass by a port and the controller would hear of them."""
        return self.works(port) and not self.away(port.switch)

    def _is_edge(self, port: PortRef) -> bool:
        if port in self._edge or port.port_no > PORT_MAX:
            return True
        if self._links.declared_at(port):
            return False
        info = self._ports.now.get(port)
        if info is not None and self._rules.hosts.is_vm_port(info.name):
            return True
        return port in self._host_ports and self._hosts.any_at(port)

    # discovery

    def _start_probing(self, port: PortRef, now: float) -> None:
        """Send a frame out of a port now, and from now on as often as the rules say."""
        if not self.works(port):
            return
        self._probe(port, now)
        # Ports that come up together, with their switch, do not stay in step for good.
        phase = 0.5 + crc32(str(port).encode()) / 0x200000000
        self._probing.set(port, now + phase * self._rules.probe_interval)

    def _probe(self, port: PortRef, now: float) -> None:
        """Make a discovery frame, unless the port is to have none now."""
        switch = self._known[port.switch]
        if switch.away or self._is_edge(port):
            return
        probe = self._authenticator.probe(port, switch.dpid, now)
        ttl = min(0xFFFF, round(self._rules.hold))
        self._frames[port] = probe.frame(self._ports.now[port].hw_addr, ttl)

    # telling

    def _complain(self, kind: str, at: PortRef, reason: str, now: float) -> None:
        """Count what somebody tried, and tell of the first and then at most once in a while."""
        self.counts[kind] += 1
        complaint = self._complaints.get((at, kind))
        if complaint is None:
            complaint = self._complaints[at, kind] = _Complaint(float("-inf"))
        complaint.count += 1
        if now - complaint.last < self._rules.complain_every:
            return
        number, complaint.last, complaint.count = complaint.count, now, 0
        data: EventData = {"port_no": at.port_no, "reason": reason, "count": number}
        self._emit(f"topology.{kind}", at.switch, data)

    def _emit(self, kind: str, subject: str, data: EventData) -> None:
        self._events.append(Event(kind, subject, data))
