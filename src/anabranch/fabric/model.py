"""The network as it is known now: switches, ports, links, hosts. Plain records, no behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True, order=True)
class PortRef:
    """One port of one switch."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  # see intents.py

    switch: str
    port_no: int

    def __str__(self) -> str:
        return f"{self.switch}:{self.port_no}"


@dataclass(frozen=True, slots=True, order=True)
class Link:
    """One direction of a connection between two switches."""

    src: PortRef
    dst: PortRef

    @property
    def reverse(self) -> "Link":
        return Link(self.dst, self.src)


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """What is known of a direction of a link.

    Attributes:
        up: packets arrive at its far end, as far as anybody knows.
        capacity_mbit: what it can carry; None: unknown.
        load_mbit: what it carried over the last interval of measurement.
        redundant: the administrator's reserve: carries flows only where no other way is left.
        last_resort: not up, but nothing proves that it cannot carry: it is damped, or BFD alone
            says no although both ports are up. Tried where not even a redundant way is left.
    """

    up: bool = True
    capacity_mbit: float | None = None
    load_mbit: float = 0.0
    redundant: bool = False
    last_resort: bool = False


@dataclass(frozen=True, slots=True)
class Host:
    """Something with a MAC address at an edge port; ``vm``: attached by a port of its own."""

    mac: str
    at: PortRef
    ipv4: str | None = None
    vm: bool = False


@dataclass(frozen=True, slots=True)
class PortInfo:
    """A port as its switch reports it."""

    name: str
    hw_addr: str = "00:00:00:00:00:00"
    up: bool = True


@dataclass(frozen=True, slots=True)
class Network:
    """A snapshot of everything known. Mappings are not to be changed by anybody.

    Attributes:
        switches: name to datapath id of every switch that is connected.
        ports: every port of these switches.
        links: every known link, both directions as entries of their own, up or not.
        hosts: by MAC address.
    """

    switches: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    ports: Mapping[PortRef, PortInfo] = field(default_factory=lambda: MappingProxyType({}))
    links: Mapping[Link, LinkInfo] = field(default_factory=lambda: MappingProxyType({}))
    hosts: Mapping[str, Host] = field(default_factory=lambda: MappingProxyType({}))
