"""``/api/fabric/service-nodes``: nodes at the switches that run modules on packets."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from anabranch.console.fabric_json import port_of
from anabranch.console.fabric_models import In, PortText
from anabranch.console.fabric_view import TheFabric
from anabranch.console.service_keys import Name
from anabranch.core.errors import NotFoundError
from anabranch.fabric.steering import Filter, ServiceNode
from anabranch.fabric.steering.model import MAX_FILTERS, MAX_PORTS

PortNumber = Annotated[int, Field(ge=1, le=65535)]


class FilterIO(In):
    """Packets that a user's modules claim, by where they go."""

    user: Annotated[str, Field(min_length=1, max_length=100)]
    destination: IPv4Network
    protocol: Annotated[int, Field(ge=1, le=255)] | None = None
    ports: Annotated[list[PortNumber], Field(max_length=MAX_PORTS)] = []  # noqa: RUF012


class ServiceNodeIn(In):
    """A node as it is now, for so many seconds."""

    at: PortText
    mac: Annotated[str, Field(max_length=17, examples=["02:00:00:00:00:01"])]
    address: IPv4Address
    stage: Annotated[str, Field(max_length=40)] = ""
    seconds: Annotated[float, Field(ge=0.5, le=60)] = 3.0
    filters: Annotated[list[FilterIO], Field(max_length=MAX_FILTERS)] = []  # noqa: RUF012


class RegisteredOut(BaseModel):
    """Whether packets can be led to the node: its port is there, and up."""

    reached: bool


class ServiceNodeOut(BaseModel):
    """A node that has registered."""

    name: str
    at: str
    mac: str
    address: str
    stage: str
    reached: bool
    flows: int = Field(description="that are led to it now")
    filters: list[FilterIO]


def make_services(operators: Sequence[Any] = (), own: Sequence[Any] = ()) -> APIRouter:
    """Return the routes; see docs/protocols/steering.md.

    Args:
        operators: dependencies that let operators pass; none: these are guarded already.
        own: dependencies that let pass the node that is named, too.
    """
    router = APIRouter(prefix="/service-nodes")

    @router.get("", dependencies=operators)
    async def nodes(fabric: TheFabric) -> list[ServiceNodeOut]:
        """List the nodes in the order in which a packet passes them, switch by switch."""
        found = sorted(fabric.service_nodes(), key=lambda each: (each[0].at.switch, each[0].rank))
        return [_out(*each) for each in found]

    @router.put("/{name}", dependencies=own)
    async def register(name: Name, given: ServiceNodeIn, fabric: TheFabric) -> RegisteredOut:
        """Register a node, or say again that it is there; answered when its switch goes by it."""
        node = ServiceNode(
            name,
            port_of(given.at),
            given.mac,
            given.address,
            given.stage,
            tuple(
                Filter(each.user, each.destination, each.protocol, tuple(each.ports))
                for each in given.filters
            ),
        )
        return RegisteredOut(reached=await fabric.register(node, given.seconds))

    @router.delete("/{name}", status_code=204, dependencies=own)
    async def withdraw(name: Name, fabric: TheFabric) -> None:
        """Take a node away; its flows go to others, or their plain way."""
        if not await fabric.withdraw(name):
            raise NotFoundError(f"there is no service node {name}")

    return router


def _out(node: ServiceNode, reached: bool, flows: int) -> ServiceNodeOut:
    return ServiceNodeOut(
        name=node.name,
        at=str(node.at),
        mac=node.mac,
        address=str(node.address),
        stage=node.stage,
        reached=reached,
        flows=flows,
        filters=[
            FilterIO(
                user=each.user,
                destination=each.destination,
                protocol=each.protocol,
                ports=list(each.ports),
            )
            for each in node.filters
        ],
    )
