"""Paths under ``/api/fabric``: flows that are asked for, and paths past virtual machines."""

import asyncio
from collections import deque
from collections.abc import Collection

from fastapi import APIRouter

from anabranch.console import fabric_json as convert
from anabranch.console import fabric_models as models
from anabranch.console.fabric_view import FabricView, Limit, Offset, PlanView, TheFabric, page
from anabranch.core.errors import ConflictError, NotFoundError
from anabranch.core.names import check_name
from anabranch.fabric.intents import Flow, Intents
from anabranch.fabric.model import Link
from anabranch.fabric.pathlogic.logic import Path

OWNER = "operator"
"""Whose intents the paths are that are asked for here."""


def make_paths() -> APIRouter:
    """Return the routes."""
    router = APIRouter()
    changing = asyncio.Lock()  # what is wanted is read, changed and put back
    router.include_router(_paths(changing))
    router.include_router(_vm_paths(changing))
    return router


def _paths(changing: asyncio.Lock) -> APIRouter:
    router = APIRouter()

    async def want(fabric: FabricView, flows: list[Flow]) -> frozenset[str]:
        taps = fabric.intents(OWNER).taps
        return await fabric.put(Intents(tuple(flows), taps), OWNER)

    def others(fabric: FabricView, name: str) -> list[Flow]:
        return [flow for flow in fabric.intents(OWNER).flows if flow.name != name]

    @router.get("/paths")
    async def paths(
        fabric: TheFabric, limit: Limit = 500, offset: Offset = 0
    ) -> models.Page[models.PathOut]:
        """List every flow with the way it takes now."""
        found = sorted(fabric.intents().flows, key=lambda flow: flow.name)
        own = fabric.intents(OWNER).names
        return page(found, offset, limit, lambda f: path_out(fabric.plan(), f, f.name in own))

    @router.get("/paths/{name}")
    async def path(name: str, fabric: TheFabric) -> models.PathOut:
        """Show one flow."""
        return _path_named(fabric, name)

    @router.post("/paths", status_code=201)
    async def add(wanted: models.PathIn, fabric: TheFabric) -> models.PathMadeOut:
        """Ask for a path; the answer comes when the switches have confirmed their rules."""
        flow = convert.flow_of(check_name(wanted.name), wanted)
        async with changing:
            _check_free(fabric, flow.name)
            pending = await want(fabric, [*others(fabric, flow.name), flow])
            return _made(fabric, flow.name, pending)

    @router.put("/paths/{name}")
    async def change(name: str, wanted: models.PathChange, fabric: TheFabric) -> models.PathMadeOut:
        """Change a path that was asked for here; what stays the same goes on uninterrupted."""
        flow = convert.flow_of(name, wanted)
        async with changing:
            _check_own(fabric, name)
            pending = await want(fabric, [*others(fabric, name), flow])
            return _made(fabric, name, pending)

    @router.delete("/paths/{name}", status_code=204)
    async def remove(name: str, fabric: TheFabric) -> None:
        """Take back a path that was asked for here."""
        async with changing:
            _check_own(fabric, name)
            await want(fabric, others(fabric, name))

    @router.get("/intents")
    async def intents(fabric: TheFabric) -> models.IntentsOut:
        """Show what is wanted of the fabric as a whole, and what cannot be had now."""
        unreachable = {
            name: sorted({str(egress.at) for egress in egresses})
            for name, egresses in fabric.plan().unreachable.items()
            if egresses
        }
        return convert.intents_out(fabric.intents(), unreachable)

    return router


def _vm_paths(changing: asyncio.Lock) -> APIRouter:
    router = APIRouter(prefix="/vm-paths")

    @router.get("")
    async def paths(
        fabric: TheFabric, limit: Limit = 500, offset: Offset = 0
    ) -> models.Page[models.VmPathOut]:
        """List the paths past virtual machines."""
        found = sorted(fabric.followed().values(), key=lambda path: path.name)
        return page(found, offset, limit, lambda path: vm_path_out(fabric, path))

    @router.get("/{name}")
    async def path(name: str, fabric: TheFabric) -> models.VmPathOut:
        """Show one path past virtual machines, with its rules at every switch."""
        return vm_path_out(fabric, _followed(fabric, name))

    @router.post("", status_code=201)
    async def add(wanted: models.VmPathIn, fabric: TheFabric) -> models.VmPathMadeOut:
        """Ask for a path through every virtual machine on its way, whichever come and go."""
        path = convert.vm_path_of(check_name(wanted.name), wanted)
        async with changing:
            _check_free(fabric, path.name)
            pending = await fabric.follow([*fabric.followed().values(), path])
            out = vm_path_out(fabric, _followed(fabric, path.name))
        return models.VmPathMadeOut(path=out, pending=sorted(pending))

    @router.delete("/{name}", status_code=204)
    async def remove(name: str, fabric: TheFabric) -> None:
        """Take back a path past virtual machines."""
        async with changing:
            _followed(fabric, name)
            await fabric.follow([path for path in fabric.followed().values() if path.name != name])

    return router


def path_out(plan: PlanView, flow: Flow, own: bool) -> models.PathOut:
    """Return a flow and the way it takes."""
    return models.PathOut(
        name=flow.name,
        match=convert.match_out(flow.match),
        ingress=str(flow.ingress),
        egresses=[convert.egress_out(egress) for egress in sorted(flow.egress, key=repr)],
        through=[models.ServiceIO(to=str(s.to), back=str(s.back)) for s in flow.through],
        policy=flow.policy,
        protected=flow.protected,
        rate_kbps=flow.rate_kbps,
        priority=flow.priority,
        links=_hops(plan, flow.name, flow.ingress.switch, protected=flow.protected),
        unreachable=_unreachable(plan, flow.name),
        own=own,
    )


def vm_path_out(fabric: FabricView, path: Path) -> models.VmPathOut:
    """Return a path past virtual machines and what it is made of now."""
    plan = fabric.plan()
    return models.VmPathOut(
        name=path.name,
        ingress=str(path.ingress),
        exit=str(path.exit),
        external=path.external,
        external_mac=path.external_mac,
        match=convert.match_out(path.match),
        roles=dict(path.roles or {}),
        rules=[convert.named_rule_out(rule) for rule in fabric.named_rules(path.name)],
        links=_hops(plan, path.name, path.ingress.switch, protected=True),
        unreachable=_unreachable(plan, path.name),
    )


def _hops(plan: PlanView, name: str, root: str, *, protected: bool) -> list[models.HopOut]:
    tree = plan.trees.get(name)
    hops = []
    for link in from_root(tree.links, root) if tree is not None else ():
        bypass = plan.bypasses.get(link) if protected else None
        around = None if bypass is None else [str(step.src) for step in bypass]
        hops.append(models.HopOut(src=str(link.src), dst=str(link.dst), bypass=around))
    return hops


def from_root(links: Collection[Link], root: str) -> list[Link]:
    """Return links as packets come to them from the switch ``root``, the nearest first."""
    onward: dict[str, list[Link]] = {}
    for link in sorted(links):
        onward.setdefault(link.src.switch, []).append(link)
    found: list[Link] = []
    queue, seen = deque([root]), {root}
    while queue:
        for link in onward.pop(queue.popleft(), ()):
            found.append(link)
            if link.dst.switch not in seen:
                seen.add(link.dst.switch)
                queue.append(link.dst.switch)
    # Nothing leads from the root to these: shown all the same.
    return found + sorted(link for rest in onward.values() for link in rest)


def _unreachable(plan: PlanView, name: str) -> list[str]:
    return sorted({str(egress.at) for egress in plan.unreachable.get(name, ())})


def _followed(fabric: FabricView, name: str) -> Path:
    try:
        return fabric.followed()[name]
    except KeyError:
        raise NotFoundError(f"there is no path {name[:40]!r}") from None


def _check_free(fabric: FabricView, name: str) -> None:
    if name in fabric.intents().names or name in fabric.followed():
        raise ConflictError(f"the name {name} is taken")


def _path_named(fabric: FabricView, name: str) -> models.PathOut:
    for flow in fabric.intents().flows:
        if flow.name == name:
            return path_out(fabric.plan(), flow, name in fabric.intents(OWNER).names)
    raise NotFoundError(f"there is no path {name[:40]!r}")


def _made(fabric: FabricView, name: str, pending: Collection[str]) -> models.PathMadeOut:
    return models.PathMadeOut(path=_path_named(fabric, name), pending=sorted(pending))


def _check_own(fabric: FabricView, name: str) -> None:
    if name in fabric.intents(OWNER).names:
        return
    if name in fabric.intents().names:
        raise ConflictError(f"the path {name} is the site's own")
    raise NotFoundError(f"there is no path {name[:40]!r}")
