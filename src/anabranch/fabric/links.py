"""Links between switches: declared by the administrator or discovered, up or down, damped.

A declared link is the administrator's word and there as soon as both switches are. A discovered
one is there once signed LLDP frames have crossed it both ways, and is forgotten when they stay
away. Either is up while both ports are, no BFD session says otherwise, discovery is confirmed and
it is not damped. A link is up in both directions or in none (as UDLD has it, RFC 5171).

Damping and BFD may keep a link down that would carry: it is then one of last resort. A change to
down is no flap if a switch at an end is away: that says nothing of the link.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum, auto
from typing import Protocol

from anabranch.core.events import EventData
from anabranch.fabric.bookkeeping import Alarms, Register
from anabranch.fabric.damping import Damper, DampingRules
from anabranch.fabric.errors import MisuseError
from anabranch.fabric.hosts import Emit
from anabranch.fabric.model import Link, LinkInfo, PortRef

Pair = tuple[PortRef, PortRef]  # the two ends of a link, the smaller first
Declared = dict[Pair, tuple[LinkInfo, LinkInfo]]


class Fault(StrEnum):
    """Why a link is down, damping apart."""

    GONE = "gone"
    PORT_DOWN = "port down"
    OUT_OF_SERVICE = "out of service"
    NOT_CONFIRMED = "not confirmed"
    BFD_DOWN = "BFD down"


class Ports(Protocol):
    """What links must know of their ends."""

    def present(self, switch: str) -> bool:
        """Say whether a switch is there, be it without its controller for a while."""

    def away(self, switch: str) -> bool:
        """Say whether a switch is there, but without its controller."""

    def works(self, port: PortRef) -> bool:
        """Say whether a port is there and up."""

    def healthy(self, port: PortRef) -> bool:
        """Say whether no BFD session at a port denies that packets pass to its peer."""

    def capacity(self, port: PortRef) -> float | None:
        """Return the speed of a port, Mbit/s."""

    def load(self, src: PortRef, dst: PortRef) -> float:
        """Return what goes from one port to its peer, Mbit/s."""

    def linked(self, port: PortRef) -> None:
        """Hear that a port has turned out to be the end of a link."""


class Heard(Enum):
    """What a discovery frame has told."""

    CONFIRMED = auto()
    ONE_WAY = auto()
    CONFLICT = auto()


@dataclass(slots=True)
class _Wire:
    """Two ports that are or may be connected.

    Attributes:
        declared: the administrator's word, on both directions.
        heard: when a frame last came from which end.
        proven: since it was found, frames have come from both.
        expires: when silence ends a discovered one.
        sound: nothing but damping keeps it down.
        last_resort: not up, for no other reasons than BFD and damping.
        shown, up: as last announced.
    """

    ends: Pair
    declared: tuple[LinkInfo, LinkInfo] | None = None
    heard: dict[PortRef, float] = field(default_factory=dict)
    proven: bool = False
    expires: float | None = None
    sound: bool = False
    last_resort: bool = False
    shown: bool = False
    up: bool = False

    @property
    def known(self) -> bool:
        return self.declared is not None or self.proven

    @property
    def firm(self) -> bool:
        """Nothing that is discovered takes the place of this one."""
        return self.declared is not None or (self.proven and bool(self.heard))

    def disprove(self) -> None:
        self.heard.clear()
        self.expires = None
        self.proven = False


class Links:
    """All links; monotonic seconds are handed in as ``now``.

    Args:
        hold: seconds for which a discovery frame confirms one direction.
        patience: seconds between two looks at a link one of whose switches is away.

    Attributes:
        version: grows when a link comes, goes, or is different for those who look for paths.
    """

    def __init__(
        self, ports: Ports, emit: Emit, *, hold: float, patience: float, damping: DampingRules
    ) -> None:
        self._ports = ports
        self._emit = emit
        self._hold = hold
        self._patience = patience
        self._damping = damping
        self._links: Register[Link, LinkInfo] = Register()
        self._wires: dict[Pair, _Wire] = {}
        self._at: dict[PortRef, dict[Pair, _Wire]] = {}
        self._of: dict[str, dict[Pair, _Wire]] = {}
        self._dampers: dict[Pair, Damper] = {}
        self._ageing: Alarms[Pair] = Alarms()
        self._calming: Alarms[Pair] = Alarms()
        self.version = 0

    def copy(self) -> Mapping[Link, LinkInfo]:
        """Return every link, both directions; the same object until something changes."""
        return self._links.copy()

    def known_at(self, port: PortRef) -> bool:
        """Say whether a port is the end of a link, be it up or not."""
        return any(wire.known for wire in self._wires_at(port))

    def declared_at(self, port: PortRef) -> bool:
        return any(wire.declared is not None for wire in self._wires_at(port))

    def declare(self, declared: Declared) -> frozenset[PortRef]:
        """Take these as all declared links; return the ports that are in none any longer."""
        ended = [wire for wire in self._wires.values() if wire.declared is not None]
        for wire in ended:
            wire.declared = None
        rivals = {
            wire.ends: wire
            for pair in declared
            for port in pair
            for wire in self._wires_at(port)
            if wire.ends != pair
        }
        for wire in rivals.values():
            wire.disprove()
        for pair, infos in declared.items():
            self._wire(pair).declared = infos
        # Those that end make room before those that begin.
        first = {wire.ends: wire for wire in (*ended, *rivals.values())}
        for pair in sorted(first.keys() - declared.keys()):
            self._settle(first[pair], None)
        for pair in declared:
            self._settle(self._wires[pair], None)
        still = {port for pair in declared for port in pair}
        return frozenset(port for wire in ended for port in wire.ends) - still

    def hear(self, origin: PortRef, at: PortRef, now: float) -> Heard:
        """A genuine frame has come from ``origin`` to ``at``; both ports are up.

        A port has one peer. Who is there first stays until it is silent: a frame that is carried
        elsewhere does not take a link away.
        """
        pair = (min(origin, at), max(origin, at))
        others = [wire for port in pair for wire in self._wires_at(port) if wire.ends != pair]
        if any(wire.firm for wire in others):
            return Heard.CONFLICT
        wire = self._wire(pair)
        wire.heard[origin] = now
        wire.expires = now + self._hold
        if len(wire.heard) == len(pair):
            wire.proven = True
            for other in others:
                other.disprove()
                self._settle(other, now)
        if pair not in self._ageing:
            self._ageing.set(pair, wire.expires)
        self._settle(wire, now)
        return Heard.CONFIRMED if at in wire.heard else Heard.ONE_WAY

    def changed(self, port: PortRef, now: float) -> None:
        """Something about a port is different."""
        for wire in self._wires_at(port):
            self._settle(wire, now)

    def unplugged(self, port: PortRef, now: float, *, gone: bool) -> None:
        """A port is down (or ``gone``): nothing that was heard of its links holds."""
        for wire in self._wires_at(port):
            wire.heard.clear()
            if gone:
                wire.disprove()
            self._settle(wire, now)

    def switch_changed(self, name: str, now: float) -> None:
        """A switch has become present, or is not any longer."""
        for wire in tuple(self._of.get(name, {}).values()):
            self._settle(wire, now)

    def confirm(self, port: PortRef, now: float) -> None:
        """Its switch is back: what was known holds until discovery has had time again."""
        for wire in self._wires_at(port):
            wire.heard = dict.fromkeys(wire.heard, now)
            if wire.expires is not None:
                wire.expires = now + self._hold

    def forbid(self, port: PortRef) -> None:
        """A port is none of a discovered link."""
        for wire in self._wires_at(port):
            wire.disprove()
            self._settle(wire, None)

    def reload(self, ports: Iterable[PortRef]) -> None:
        """The load of these ports is different."""
        for wire in {wire.ends: wire for port in ports for wire in self._wires_at(port)}.values():
            self._show(wire)

    def next_timer(self) -> float | None:
        """Return when ``handle_timer`` is due; None for never."""
        due = (self._ageing.next(), self._calming.next())
        return min((when for when in due if when is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Do what is due at ``now``."""
        for pair in self._ageing.due(now):
            self._age(pair, now)
        for pair in self._calming.due(now):
            self._calm(pair, now)

    def _wires_at(self, port: PortRef) -> Collection[_Wire]:
        at = self._at.get(port)
        return tuple(at.values()) if at else ()

    def _wire(self, pair: Pair) -> _Wire:
        wire = self._wires.get(pair)
        if wire is None:
            wire = self._wires[pair] = _Wire(pair)
            for port in pair:
                self._at.setdefault(port, {})[pair] = wire
                self._of.setdefault(port.switch, {})[pair] = wire
        return wire

    def _age(self, pair: Pair, now: float) -> None:
        """Drop what has not been confirmed for too long."""
        wire = self._wires.get(pair)
        if wire is None or wire.expires is None:
            return
        if any(self._ports.away(port.switch) for port in pair):
            # A switch without controller hears nothing; that says nothing of its links.
            self._ageing.set(pair, now + self._patience)
            return
        wire.heard = {port: at for port, at in wire.heard.items() if now < at + self._hold}
        if now < wire.expires:
            due = [wire.expires, *(at + self._hold for at in wire.heard.values())]
            self._ageing.set(pair, min(due))
        else:
            wire.disprove()
        self._settle(wire, now)

    def _settle(self, wire: _Wire, now: float | None) -> None:
        """Announce what has become of a link; without ``now`` a change is no flap."""
        shown = wire.known and all(self._ports.present(port.switch) for port in wire.ends)
        fault = self._fault(wire) if shown else Fault.GONE
        fallen = wire.sound and fault is not None
        away = any(self._ports.away(port.switch) for port in wire.ends)
        damped = fallen and now is not None and not away and self._flap(wire, now)
        wire.sound = fault is None
        damper = self._dampers.get(wire.ends)
        up = wire.sound and not (damper is not None and damper.suppressed)
        wire.last_resort = not up and fault in (None, Fault.BFD_DOWN)
        if shown and not wire.shown:
            wire.shown = True
            for port in wire.ends:
                self._ports.linked(port)
            self._tell("added", wire)
        if up != wire.up:
            wire.up = up
            self._tell("up" if up else "down", wire, reason=fault and fault.value)
        if damped:
            self._tell("damped", wire)
        if wire.shown and not shown:
            wire.shown = False
            self._tell("removed", wire)
        self._show(wire)
        if not wire.known and not wire.heard:
            self._drop(wire.ends)

    def _drop(self, pair: Pair) -> None:
        if self._wires.pop(pair, None) is None:
            return
        for port in pair:
            del self._at[port][pair]
            del self._of[port.switch][pair]
            if not self._at[port]:
                del self._at[port]
            if not self._of[port.switch]:
                del self._of[port.switch]

    def _fault(self, wire: _Wire) -> Fault | None:
        """Return why a link does not carry anything now, BFD only if it is the only reason."""
        if not all(map(self._ports.works, wire.ends)):
            return Fault.PORT_DOWN
        if wire.declared is not None:
            if not all(info.up for info in wire.declared):
                return Fault.OUT_OF_SERVICE
        elif len(wire.heard) < len(wire.ends):
            return Fault.NOT_CONFIRMED
        return None if all(map(self._ports.healthy, wire.ends)) else Fault.BFD_DOWN

    def _flap(self, wire: _Wire, now: float) -> bool:
        """Count a change to down; say whether it has made the link suppressed."""
        damper = self._dampers.get(wire.ends)
        if damper is None:
            damper = self._dampers[wire.ends] = Damper(self._damping, now)
        damped = damper.flap(now)
        self._calming.set(wire.ends, damper.next_timer())
        return damped

    def _calm(self, pair: Pair, now: float) -> None:
        """Look whether a link has been quiet for long enough."""
        damper = self._dampers[pair]
        if damper.release(now):
            wire = self._wires.get(pair)
            self._tell("undamped", wire or _Wire(pair))
            if wire is not None:
                self._settle(wire, now)
        if damper.forgettable(now):
            del self._dampers[pair]
        else:
            self._calming.set(pair, damper.next_timer())

    def _show(self, wire: _Wire) -> None:
        """Bring both directions of a link in line with what is known of it."""
        speeds = [speed for port in wire.ends if (speed := self._ports.capacity(port))]
        for number, (src, dst) in enumerate((wire.ends, wire.ends[::-1])):
            link = Link(src, dst)
            old = self._links.now.get(link)
            if not wire.shown:
                self.version += self._links.drop(link)
                continue
            said = wire.declared[number] if wire.declared else LinkInfo()
            new = LinkInfo(
                wire.up,
                said.capacity_mbit or min(speeds, default=None),
                self._ports.load(src, dst),
                said.redundant,
                wire.last_resort,
            )
            self._links.put(link, new)
            self.version += old is None or _for_paths(old) != _for_paths(new)

    def _tell(self, what: str, wire: _Wire, *, reason: str | None = None) -> None:
        a, b = wire.ends
        data: EventData = {
            "src": a.switch,
            "src_port": a.port_no,
            "dst": b.switch,
            "dst_port": b.port_no,
            "declared": wire.declared is not None,
        }
        if reason is not None:
            data = {**data, "reason": reason}
        self._emit(f"link.{what}", f"{a}-{b}", data)


def _for_paths(info: LinkInfo) -> LinkInfo:
    return replace(info, load_mbit=0.0)


def pairs(links: Mapping[Link, LinkInfo]) -> Declared:
    """Return what is said of both directions, by the two ends.

    A link that is given in one direction only is the same in the other.

    Raises:
        MisuseError: a port is in two links, or a link stays in one switch.
    """
    declared: Declared = {}
    partners: dict[PortRef, PortRef] = {}
    for link, info in links.items():
        if link.src.switch == link.dst.switch:
            raise MisuseError(f"a link from {link.src} to the same switch")
        for port, partner in ((link.src, link.dst), (link.dst, link.src)):
            if partners.setdefault(port, partner) != partner:
                raise MisuseError(f"{port} is in two declared links")
        back = links.get(link.reverse, info)
        if link.src < link.dst:
            declared[link.src, link.dst] = (info, back)
        else:
            declared[link.dst, link.src] = (back, info)
    return declared
