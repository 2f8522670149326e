"""Service nodes, the modules on them, and who may install some."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from pydantic import BaseModel, ConfigDict, Field

from anabranch.services.controller.users import User
from anabranch.site.site import Site


class ModuleOut(BaseModel):
    """A module on a node."""

    user: str
    name: str = Field(description="with its version")
    filter: str | None = Field(description="which packets it is given")
    expires_s: int = Field(description="seconds until it is removed, unless it is renewed")
    state: str = Field(description="running, failed, restarting or gone")
    figures: dict[str, str] = Field(description="what it says of itself")


class ServiceNodeOut(BaseModel):
    """A service node."""

    name: str
    address: str | None = Field(description="where this machine reaches it")
    answers: bool
    pid: int | None
    restarts: int
    sessions: int = Field(description="of signalling that it holds")
    building_blocks: dict[str, str]
    modules: list[ModuleOut]


class ServiceUserIn(BaseModel):
    """What a user may do."""

    model_config = ConfigDict(extra="forbid")

    public_key: str = Field(max_length=4096, description="as OpenSSH or PEM writes it")
    address: str | None = Field(default=None, description="of the user's sandboxes, IPv4")
    address6: str | None = None
    listen_ports: list[int | str] = Field(default=[], max_length=256)
    filter_prefixes: list[str] = Field(default=[], max_length=256)
    may_prove: bool = True
    max_modules: int = Field(default=16, ge=1, le=1000)
    max_ttl: int = Field(default=7 * 24 * 3600, ge=1)


class ServiceUserOut(BaseModel):
    """A user."""

    name: str
    public_key: str
    address: str | None
    address6: str | None
    listen_ports: list[str]
    filter_prefixes: list[str]
    may_prove: bool
    max_modules: int
    max_ttl: int
    in_file: bool = Field(description="written in the operator's file, and to be changed there")


class ServicesOut(BaseModel):
    """All of it."""

    enabled: bool
    nodes: list[ServiceNodeOut]


class LogOut(BaseModel):
    """What a user's modules have printed on a node."""

    lines: list[str]


def make_router() -> APIRouter:
    """Return the routes under ``/api/services``."""
    router = APIRouter(prefix="/api/services", tags=["services"])

    @router.get("")
    async def services(request: Request) -> ServicesOut:
        """Show the service nodes and the modules on them."""
        site = _site(request)
        return ServicesOut(
            enabled=site.settings.services is not None,
            nodes=[ServiceNodeOut(**each) for each in await site.services.report()],
        )

    @router.delete("/nodes/{node}/modules/{user}/{module}", status_code=204)
    async def remove(node: str, user: str, module: str, request: Request) -> None:
        """Remove a module from a node; its user can install it again."""
        await _site(request).services.remove(node, user, module)

    @router.get("/nodes/{node}/log/{user}")
    async def log(
        node: str, user: str, request: Request, lines: Annotated[int, Query(ge=1, le=500)] = 50
    ) -> LogOut:
        """Read the last lines that a user's modules printed on a node."""
        return LogOut(lines=await _site(request).services.log(node, user, lines))

    @router.get("/users")
    async def users(request: Request) -> list[ServiceUserOut]:
        """List who may install modules."""
        site = _site(request)
        return [_user_out(site, user) for user in site.services.users.all.values()]

    @router.put("/users/{name}")
    async def put(name: str, wanted: ServiceUserIn, request: Request) -> ServiceUserOut:
        """Add a user, or change one; all nodes know at once."""
        site = _site(request)
        user = await site.services.users.put(name, wanted.model_dump())
        await site.services.tell_users()
        return _user_out(site, user)

    @router.delete("/users/{name}", status_code=204)
    async def forget(name: str, request: Request) -> None:
        """Remove a user; modules that are there stay until their time is over."""
        site = _site(request)
        await site.services.users.remove(name)
        await site.services.tell_users()

    return router


def _site(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


def _user_out(site: Site, user: User) -> ServiceUserOut:
    document = user.document()
    document.pop("sandbox")  # a path of this machine
    return ServiceUserOut(**document, in_file=site.services.users.in_file(user.name))


async def service_metrics(site: Site) -> list[Metric]:
    """Return the figures of the service nodes; of modules the two that all have."""
    if site.settings.services is None:
        return []
    up = GaugeMetricFamily("anabranch_service_node_up", "1 if it answers", labels=["node"])
    sessions = GaugeMetricFamily(
        "anabranch_service_sessions", "Sessions of signalling", labels=["node"]
    )
    labels = ["node", "user", "module"]
    running = GaugeMetricFamily("anabranch_service_module_up", "1 if it runs", labels=labels)
    counters = {
        name: CounterMetricFamily(f"anabranch_service_module_{name}", text, labels=labels)
        for name, text in (
            ("packets", "Packets that it was given"),
            ("failures", "Batches at which it failed"),
        )
    }
    for node in await site.services.report():
        up.add_metric([node["name"]], float(node["answers"]))
        sessions.add_metric([node["name"]], node["sessions"])
        for module in node["modules"]:
            place = [node["name"], module["user"], module["name"]]
            running.add_metric(place, float(module["state"] == "running"))
            for name, family in counters.items():
                family.add_metric(place, _number(module["figures"], name))
    return [up, sessions, running, *counters.values()]


def _number(figures: Mapping[str, Any], name: str) -> float:
    value = str(figures.get(name, "0"))
    return float(value) if value.isdecimal() else 0.0
