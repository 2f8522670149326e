"""Real switches for a measurement: namespaces, cables and an Open vSwitch in each; all removed."""

import asyncio
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from anabranch.core.errors import UnavailableError
from anabranch.fabric.bridges import Bfd, Bridge, ControllerTarget, Device
from anabranch.fabric.controller import Controller
from anabranch.fabric.model import Link, PortRef
from anabranch.fabric.openvswitch import OpenVSwitch
from anabranch.host.network import Port, make_link, make_namespace, remove_namespace
from anabranch.host.process import end_marked, run_command

BRIDGE = "br0"
HOST_DEVICE = "eth0"
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Shape:
    """Which switches there are, and what is plugged into what.

    Attributes:
        cables: pairs of ports of two switches.
        hosts: name of a host to the port it is at.
        bfd: what watches the cables; None: nothing does.
        realtime: have the switches come before all ordinary processes, as a site with BFD has it.
    """

    switches: tuple[str, ...]
    cables: tuple[tuple[PortRef, PortRef], ...] = ()
    hosts: Mapping[str, PortRef] = field(default_factory=dict)
    bfd: Bfd | None = None
    realtime: bool = False

    @property
    def links(self) -> tuple[Link, ...]:
        """Both directions of every cable."""
        return tuple(link for a, b in self.cables for link in (Link(a, b), Link(b, a)))

    def dpid(self, switch: str) -> int:
        """Return the datapath id of a switch."""
        return self.switches.index(switch) + 1


def device(port: PortRef) -> str:
    """Return the name of a port's device, in the switch's namespace."""
    return f"{port.switch}-p{port.port_no}"


class Lab:
    """The switches of a shape, running; each waits for its controller at a socket of its own.

    Attributes:
        switches: by name.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.switches: dict[str, OpenVSwitch] = {}
        self._prefix = f"abb{secrets.token_hex(3)}"
        # Short: Unix socket paths end at 107 bytes.
        self._directory = Path(tempfile.mkdtemp(prefix="abb", dir="/tmp"))
        self._run_id = f"bench-{secrets.token_hex(6)}"

    def namespace(self, name: str) -> str:
        """Return the namespace of a switch or host."""
        return f"{self._prefix}-{name}"

    def controller_path(self, switch: str) -> Path:
        """Return where a switch looks for its controller."""
        return self._directory / switch / f"{BRIDGE}.controller"

    def management_path(self, switch: str) -> Path:
        """Return the socket at which a controller may call a switch."""
        return self._directory / switch / f"{BRIDGE}.mgmt"

    async def build(self, target: str | None = None) -> None:
        """Make everything. ``target``: where every switch looks for its controller instead.

        Raises:
            UnavailableError: this needs root.
            NetworkError, FabricError: something cannot be made.
        """
        if os.geteuid() != 0:
            raise UnavailableError("this measurement needs root: it makes network namespaces")
        await asyncio.to_thread(self._cable)
        for name in self.shape.switches:
            switch = OpenVSwitch(
                name,
                self.namespace(name),
                self._directory / name,
                self._run_id,
                lambda _: None,
                realtime=self.shape.realtime,
            )
            self.switches[name] = switch
            await switch.start()
            wanted = target or f"unix:{self.controller_path(name)}"
            controllers = (ControllerTarget(wanted),)
            bridge = Bridge(
                BRIDGE, self._ports(name), self.shape.dpid(name), controllers=controllers
            )
            await switch.apply([bridge])

    async def remove(self) -> None:
        """End and remove everything."""
        for switch in self.switches.values():
            await switch.stop()
        end_marked(self._run_id)
        for name in (*self.shape.switches, *self.shape.hosts):
            await asyncio.to_thread(remove_namespace, self.namespace(name))
        shutil.rmtree(self._directory, ignore_errors=True)

    async def set_link(self, port: PortRef, *, up: bool) -> None:
        """Take the device of a port down, or up again: the peer sees its carrier go."""
        state = "up" if up else "down"
        await run_command(
            *("ip", "link", "set", device(port), state), netns=self.namespace(port.switch)
        )

    async def set_black_hole(self, ports: Sequence[PortRef], *, there: bool) -> None:
        """Have the cables at ``ports`` swallow whatever leaves by them, while all seem up."""
        for port in ports:
            namespace, name = self.namespace(port.switch), device(port)
            if there:
                chain = f"{{ type filter hook egress device {name} priority 0; policy drop; }}"
                await run_command("nft", "add", "table", "netdev", name, netns=namespace)
                await run_command(
                    *("nft", "add", "chain", "netdev", name, "hole", chain), netns=namespace
                )
            else:
                with suppress(Exception):
                    await run_command("nft", "delete", "table", "netdev", name, netns=namespace)

    def _cable(self) -> None:
        for name in (*self.shape.switches, *self.shape.hosts):
            make_namespace(self.namespace(name))
        for a, b in self.shape.cables:
            make_link(self._end(a), self._end(b))
        for host, at in self.shape.hosts.items():
            make_link(Port(HOST_DEVICE, self.namespace(host)), self._end(at))

    def _end(self, port: PortRef) -> Port:
        return Port(device(port), self.namespace(port.switch))

    def _ports(self, switch: str) -> tuple[Device, ...]:
        inner = {end for cable in self.shape.cables for end in cable if end.switch == switch}
        outer = {at for at in self.shape.hosts.values() if at.switch == switch}
        return tuple(
            Device(
                name=device(port),
                ofport=port.port_no,
                bfd=self.shape.bfd if port in inner else None,
            )
            for port in sorted(inner | outer)
        )


@asynccontextmanager
async def lab(shape: Shape, target: str | None = None) -> AsyncIterator[Lab]:
    """Give a running lab, and remove it afterwards."""
    quieten()
    made = Lab(shape)
    try:
        await made.build(target)
        yield made
    finally:
        await made.remove()


async def connected(
    controller: Controller, names: Collection[str], patience: float = _PATIENCE_S
) -> None:
    """Wait until switches are there.

    Raises:
        UnavailableError: they do not come.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(patience):
            while True:
                states = controller.switches()
                if all(name in states and states[name].connected for name in names):
                    return
                await asyncio.sleep(0.01)
    raise UnavailableError("the switches do not connect")


def quieten() -> None:
    """Log errors only: what is measured here fails on purpose all the time."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
