"""Who is where: hosts by the packets they send, virtual machines by the ports they come with."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from anabranch.core.events import EventData
from anabranch.fabric.bookkeeping import Register
from anabranch.fabric.errors import MisuseError
from anabranch.fabric.model import Host, PortInfo, PortRef
from anabranch.fabric.moves import Claim, Moves
from anabranch.fabric.openflow.wire import canonical_ipv4, canonical_mac, mac_bytes

Emit = Callable[[str, str, EventData], None]
_UNSPECIFIED = "0.0.0.0"
_NO_TAIL = "00:00:00:00:00"  # of a MAC address after its first byte


@dataclass(frozen=True, slots=True)
class HostRules:
    """How hosts are tracked.

    Attributes:
        max_age: seconds of silence after which a host is forgotten, unless it is a VM.
        per_port, total: most hosts at one port and in all; beyond, the most silent is forgotten.
        burst, per_second: how many hosts may appear at or move to one port at once and then per
            second; whoever sends from ever new addresses makes no more work than that.
        port_security: an address at a VM's port cannot be taken over from elsewhere, and any
            other only from where it does not answer any more.
        vm_ports: patterns of the names of ports that belong to VMs.
        vm_move: seconds between a VM's departure here and arrival there that are one move.
    """

    max_age: float = 300.0
    per_port: int = 256
    total: int = 65536
    burst: int = 256
    per_second: float = 10.0
    port_security: bool = True
    vm_ports: tuple[str, ...] = ("vnet*", "tap*", "vm*")
    vm_move: float = 10.0

    def __post_init__(self) -> None:
        if min(self.per_port, self.total, self.burst) < 1:
            raise MisuseError("limits below one host")

    def is_vm_port(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.vm_ports)


@dataclass(slots=True)
class _Port:
    """The hosts of a port, most silent first, and how many more may appear there now."""

    allowance: float
    refilled: float
    macs: OrderedDict[str, None] = field(default_factory=OrderedDict)


@dataclass(frozen=True, slots=True)
class _VmClaim:
    at: PortRef
    ipv4: str | None
    made: float


class Hosts:
    """Where each MAC address is. Times are monotonic seconds.

    One that is seen at another port is there at once if no packet passes by its old port. Else it
    is asked for there, see :mod:`.moves`: it moves if it stays silent, and ``host.conflict`` tells,
    once, of one who uses its address if it does not.

    ``counts`` has what was not heeded: ``invalid`` source addresses, ``excess`` appearances,
    ``forgotten`` because of a limit, ``refused`` by port security. ``version`` grows when a host
    comes, goes or moves.

    Args:
        works: says whether packets pass by a port, as far as is known.
    """

    def __init__(
        self, emit: Emit, rules: HostRules, works: Callable[[PortRef], bool] = lambda _: True
    ) -> None:
        self._emit = emit
        self._rules = rules
        self._works = works
        self._moves = Moves()
        self._questions: list[Host] = []
        self._hosts: Register[str, Host] = Register()
        self._ports: dict[PortRef, _Port] = {}
        self._plain: OrderedDict[str, float] = OrderedDict()  # last seen, most silent first
        self._vms: OrderedDict[str, None] = OrderedDict()  # likewise
        self._claims: dict[str, _VmClaim] = {}
        self.counts: Counter[str] = Counter()
        self.version = 0

    def copy(self) -> Mapping[str, Host]:
        """Return all hosts by MAC address; the same object until something changes."""
        return self._hosts.copy()

    def at(self, port: PortRef) -> frozenset[str]:
        """Return the MAC addresses at a port."""
        known = self._ports.get(port)
        return frozenset(known.macs) if known else frozenset()

    def any_at(self, port: PortRef) -> bool:
        known = self._ports.get(port)
        return known is not None and bool(known.macs)

    def seen(
        self,
        mac: str,
        at: PortRef,
        ipv4: str | None,
        now: float,
        *,
        vm: bool,
        certain: bool = False,
    ) -> bool:
        """Note that a packet from ``mac`` came in at ``at``, which may be a VM's port.

        ``certain``: nobody but that host can be there.

        Returns False if the address belongs to a VM elsewhere and port security is on.

        Raises:
            MisuseError: ``mac`` or ``ipv4`` is no address.
        """
        mac = canonical_mac(mac)
        ipv4 = None if ipv4 in (None, _UNSPECIFIED) else canonical_ipv4(str(ipv4))
        if mac_bytes(mac)[0] & 1 or mac == "00:00:00:00:00:00":
            self.counts["invalid"] += 1
            return True
        known = self._hosts.now.get(mac)
        if known is not None and known.at == at and known.vm == vm:
            self._refresh(replace(known, ipv4=ipv4 or known.ipv4), now)
            if (claim := self._moves.spoke(mac, now)) is not None:
                self._emit("host.conflict", mac, {**_place(at), **_claimed(claim)})
            return True
        secured = known is not None and known.at != at and self._rules.port_security
        if known is not None and secured and known.vm:
            self.counts["refused"] += 1
            if vm:  # its port here may come before its port there goes
                self._claims[mac] = _VmClaim(at, ipv4, now)
            return False
        asked = known is not None and secured and not certain and self._works(known.at)
        if asked and not self._moves.asks(mac, at, now):
            self.counts["refused"] += 1
            return True
        if not self._allowed(self._port(at, now), now):
            self.counts["excess"] += 1
            return True
        if asked:
            self._moves.begin(mac, at, ipv4, now, vm=vm)
        else:
            self._put(mac, at, ipv4, now, vm=vm)
        return True

    def _put(self, mac: str, at: PortRef, ipv4: str | None, now: float, *, vm: bool) -> None:
        """Let a host be at a port, wherever it was."""
        known = self._hosts.now.get(mac)
        self._moves.end(mac)
        if known is not None:
            self._detach(known)
        port = self._port(at, now)
        self._make_room(port, more=known is None)
        host = Host(mac, at, ipv4 or (known.ipv4 if known else None), vm)
        port.macs[mac] = None
        self._refresh(host, now)
        self.version += 1
        data: dict[str, str | int | bool | None] = {**_place(at), "ipv4": host.ipv4, "vm": vm}
        if known is None:
            self._emit("host.added", mac, data)
        elif known.at != at:
            data |= {"from_switch": known.at.switch, "from_port_no": known.at.port_no}
            self._emit("host.moved", mac, data)

    def questions(self) -> list[Host]:
        """Return, once, the hosts to be asked, at their ports, whether they are still there."""
        questions, self._questions = self._questions, []
        return questions

    def port_gone(self, port: PortRef, now: float | None) -> None:
        """Forget the hosts of a port; one that is already seen elsewhere is there now.

        Without ``now`` nothing has gone: the port is none where hosts can be.
        """
        known = self._ports.pop(port, None)
        self._moves.withdraw(port)
        for mac in known.macs if known else ():
            asked = self._moves.end(mac)
            self._remove(mac)
            claim = self._claims.pop(mac, None)
            if now is None:
                continue
            if asked is not None:
                self._put(mac, asked.at, asked.ipv4, now, vm=asked.vm)
            elif claim is not None and now - claim.made <= self._rules.vm_move:
                self.seen(mac, claim.at, claim.ipv4, now, vm=True)
        for mac in [mac for mac, claim in self._claims.items() if claim.at == port]:
            del self._claims[mac]

    def next_timer(self) -> float | None:
        """Return when ``handle_timer`` is due; None for never."""
        if not self._plain:
            return None
        oldest = next(iter(self._plain.values())) + self._rules.max_age
        asking = self._moves.next_timer()
        return oldest if asking is None else min(oldest, asking)

    def handle_timer(self, now: float) -> None:
        """Forget who has been silent for too long, and ask for those who may have moved."""
        while self._plain:
            mac, seen = next(iter(self._plain.items()))
            if now < seen + self._rules.max_age:
                break
            self._forget(mac)
        for mac, claim in self._moves.due(now):
            host = self._hosts.now[mac]
            if claim.silent:
                self._put(mac, claim.at, claim.ipv4, now, vm=claim.vm)
            else:
                self._questions.append(replace(host, ipv4=host.ipv4 or claim.ipv4))

    def _port(self, at: PortRef, now: float) -> _Port:
        return self._ports.setdefault(at, _Port(self._rules.burst, now))

    def _allowed(self, port: _Port, now: float) -> bool:
        earned = max(0.0, now - port.refilled) * self._rules.per_second
        port.allowance = min(port.allowance + earned, self._rules.burst)
        port.refilled = max(now, port.refilled)
        if port.allowance < 1:
            return False
        port.allowance -= 1
        return True

    def _make_room(self, port: _Port, *, more: bool) -> None:
        """Forget whoever is one too many at the port, or, if there will be ``more``, in all."""
        if len(port.macs) >= self._rules.per_port:
            self._forget(next(iter(port.macs)))
            self.counts["forgotten"] += 1
        if more and len(self._hosts.now) >= self._rules.total:
            self._forget(next(iter(self._plain or self._vms)))
            self.counts["forgotten"] += 1

    def _refresh(self, host: Host, now: float) -> None:
        self._hosts.put(host.mac, host)
        if host.vm:
            self._vms[host.mac] = None
            self._vms.move_to_end(host.mac)
        else:
            self._plain[host.mac] = now
            self._plain.move_to_end(host.mac)
        self._ports[host.at].macs.move_to_end(host.mac)

    def _detach(self, host: Host) -> None:
        self._plain.pop(host.mac, None)
        self._vms.pop(host.mac, None)
        if host.at in self._ports:
            self._ports[host.at].macs.pop(host.mac, None)

    def _forget(self, mac: str) -> None:
        self._claims.pop(mac, None)
        self._remove(mac)

    def _remove(self, mac: str) -> None:
        host = self._hosts.now[mac]
        self._moves.end(mac)
        self._detach(host)
        self._hosts.drop(mac)
        self.version += 1
        self._emit("host.removed", mac, {**_place(host.at), "ipv4": host.ipv4, "vm": host.vm})


@dataclass(frozen=True, slots=True)
class _Vm:
    at: PortRef
    dpid: int
    name: str
    hw_addr: str
    since: float | None

    @property
    def data(self) -> dict[str, str | int | float | bool | None]:
        return {
            "switch": self.dpid.to_bytes(8, "big").hex(":"),
            "vnet": f"{self.name}/{self.at.port_no}",
            "name": self.at.switch,
            "port_no": self.at.port_no,
        }

    def same_machine(self, other: "_Vm") -> bool:
        """Say whether both ports belong to one VM.

        A hypervisor gives a VM's port the VM's own MAC address with another first byte, wherever
        the VM runs; names such as ``vnet0`` say nothing.
        """
        mine, its = self.hw_addr[3:], other.hw_addr[3:]
        return self.at != other.at and mine == its != _NO_TAIL


@dataclass(frozen=True, slots=True)
class _Gone:
    vm: _Vm
    macs: frozenset[str]
    at: float


class Vms:
    """VMs attached and detached, told by ports that come and go.

    Event data are those of the seed's notification (section 7.3): ``switch`` is the datapath id,
    ``vnet`` the port's name and number.
    """

    def __init__(self, emit: Emit, rules: HostRules) -> None:
        self._emit = emit
        self._rules = rules
        self._attached: dict[PortRef, _Vm] = {}
        self._gone: list[_Gone] = []

    def __contains__(self, port: PortRef) -> bool:
        return port in self._attached

    def attach(self, at: PortRef, dpid: int, port: PortInfo, now: float | None) -> None:
        """A VM's port has appeared or come up; nothing happens if it is known.

        Without ``now``, here and in :meth:`detach`, the port was there and is only now taken for a
        VM's, or no longer: nothing has moved.
        """
        if at in self._attached:
            return
        vm = _Vm(at, dpid, port.name, port.hw_addr, now)
        self._attached[at] = vm
        self._emit("vm.added", at.switch, vm.data)
        back = (at, port.hw_addr)
        self._gone = [gone for gone in self._gone if (gone.vm.at, gone.vm.hw_addr) != back]
        for gone in self._departed(now) if now is not None else ():
            if gone.vm.same_machine(vm):
                self._gone.remove(gone)
                self._moved(gone.vm, vm)
                return

    def detach(self, at: PortRef, macs: frozenset[str], now: float | None) -> None:
        """A VM's port has gone or gone down; ``macs`` were seen there."""
        vm = self._attached.pop(at, None)
        if vm is None:
            return
        self._emit("vm.removed", at.switch, vm.data)
        if now is None:
            return
        for other in self._attached.values():
            fresh = other.since is not None and now - other.since <= self._rules.vm_move
            if fresh and other.same_machine(vm):
                self._moved(vm, other)
                return
        self._departed(now).append(_Gone(vm, macs, now))

    def is_of(self, mac: str, at: PortRef) -> bool:
        """Say whether the hypervisor has made the port ``at`` for the VM ``mac``."""
        vm = self._attached.get(at)
        return vm is not None and vm.hw_addr[3:] == mac[3:] != _NO_TAIL

    def host_seen(self, mac: str, at: PortRef, now: float) -> None:
        """An address seen at a VM's port may tell that this VM has come from elsewhere."""
        vm = self._attached.get(at)
        if vm is None or not self._gone:
            return
        for gone in self._departed(now):
            if mac in gone.macs and gone.vm.at != at:
                self._gone.remove(gone)
                self._moved(gone.vm, vm)
                return

    def _departed(self, now: float) -> list[_Gone]:
        self._gone = [gone for gone in self._gone if now - gone.at <= self._rules.vm_move]
        return self._gone

    def _moved(self, old: _Vm, new: _Vm) -> None:
        data = {f"from_{name}": value for name, value in old.data.items()}
        self._emit("vm.moved", new.at.switch, {**new.data, **data})


def _claimed(claim: Claim) -> dict[str, str | int | bool | None]:
    at = claim.at
    return {"by_switch": at.switch, "by_port_no": at.port_no, "ipv4": claim.ipv4, "vm": claim.vm}


def _place(port: PortRef) -> dict[str, str | int]:
    return {"switch": port.switch, "port_no": port.port_no}
