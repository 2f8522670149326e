"""Paths under ``/api/fabric``: flows that are asked for, and paths past virtual machines."""

from collections import deque
from collections.abc import Awaitable, Collection, Mapping

from fastapi import APIRouter

from anabranch.console import fabric_json as convert
from anabranch.console import fabric_models as models
from anabranch.console.fabric_view import FabricView, Limit, Offset, PlanView, TheFabric, page
from anabranch.core.errors import ConflictError, NotFoundError
from anabranch.core.names import check_name
from anabranch.fabric.failures import NotDoneError
from anabranch.fabric.intents import Flow, Intents
from anabranch.fabric.model import Link
from anabranch.fabric.pathlogic.logic import Path
from anabranch.fabric.wishes import OPERATOR, Wishes


def make_paths(wishes: Wishes) -> APIRouter:
    """Return the routes; ``wishes`` keeps what is asked for here."""
    router = APIRouter()
    router.include_router(_paths(wishes))
    router.include_router(_vm_paths(wishes))
    return router


def _paths(wishes: Wishes) -> APIRouter:
    router = APIRouter()

    async def want(fabric: FabricView, name: str, flows: list[Flow]) -> frozenset[str]:
        taps = fabric.intents(OPERATOR).taps
        return await _as_for(name, fabric.put(Intents(tuple(flows), taps), OPERATOR))

    def others(fabric: FabricView, name: str) -> list[Flow]:
        return [flow for flow in fabric.intents(OPERATOR).flows if flow.name != name]

    @router.get("/paths")
    async def paths(
        fabric: TheFabric, limit: Limit = 500, offset: Offset = 0
    ) -> models.Page[models.PathOut]:
        """List every flow with the way it takes now."""
        found = sorted(fabric.intents().flows, key=lambda flow: flow.name)
        own = fabric.intents(OPERATOR).names
        plan, refused = fabric.plan(), convert.refusals_out(fabric.failures())
        return page(found, offset, limit, lambda f: path_out(plan, f, f.name in own, refused))

    @router.get("/paths/{name}")
    async def path(name: str, fabric: TheFabric) -> models.PathOut:
        """Show one flow."""
        return _path_named(fabric, name)

    @router.post("/paths", status_code=201)
    async def add(wanted: models.PathIn, fabric: TheFabric) -> models.PathMadeOut:
        """Ask for a path; the answer comes when the switches have confirmed their rules.

        503: a switch refuses a rule of it, say for want of room. The path is wanted all the same
        and the switch is told again after 1 to 30 s: its `refused` says when that has helped. Take
        the path back if that is not what you want.
        """
        flow = convert.flow_of(check_name(wanted.name), wanted)
        async with wishes.changing(fabric):
            _check_free(fabric, flow.name)
            pending = await want(fabric, flow.name, [*others(fabric, flow.name), flow])
            return _made(fabric, flow.name, pending)

    @router.put("/paths/{name}")
    async def change(name: str, wanted: models.PathChange, fabric: TheFabric) -> models.PathMadeOut:
        """Change a path that was asked for here; what stays the same goes on uninterrupted.

        503: as when it is asked for.
        """
        flow = convert.flow_of(name, wanted)
        async with wishes.changing(fabric):
            _check_own(fabric, name)
            pending = await want(fabric, name, [*others(fabric, name), flow])
            return _made(fabric, name, pending)

    @router.delete("/paths/{name}", status_code=204)
    async def remove(name: str, fabric: TheFabric) -> None:
        """Take back a path that was asked for here."""
        async with wishes.changing(fabric):
            _check_own(fabric, name)
            await want(fabric, name, others(fabric, name))

    @router.get("/intents")
    async def intents(fabric: TheFabric) -> models.IntentsOut:
        """Show what is wanted of the fabric as a whole, and what cannot be had now."""
        unreachable = {
            name: sorted({str(egress.at) for egress in egresses})
            for name, egresses in fabric.plan().unreachable.items()
            if egresses
        }
        return convert.intents_out(fabric.intents(), unreachable, fabric.failures())

    return router


def _vm_paths(wishes: Wishes) -> APIRouter:
    router = APIRouter(prefix="/vm-paths")

    @router.get("")
    async def paths(
        fabric: TheFabric, limit: Limit = 500, offset: Offset = 0
    ) -> models.Page[models.VmPathOut]:
        """List the paths past virtual machines."""
        found = sorted(fabric.followed().values(), key=lambda path: path.name)
        refused = convert.refusals_out(fabric.failures())
        return page(found, offset, limit, lambda path: vm_path_out(fabric, path, refused))

    @router.get("/{name}")
    async def path(name: str, fabric: TheFabric) -> models.VmPathOut:
        """Show one path past virtual machines, with its rules at every switch."""
        refused = convert.refusals_out(fabric.failures())
        return vm_path_out(fabric, _followed(fabric, name), refused)

    @router.post("", status_code=201)
    async def add(wanted: models.VmPathIn, fabric: TheFabric) -> models.VmPathMadeOut:
        """Ask for a path through every virtual machine on its way, whichever come and go.

        503: as for a path.
        """
        path = convert.vm_path_of(check_name(wanted.name), wanted)
        async with wishes.changing(fabric):
            _check_free(fabric, path.name)
            following = fabric.follow([*fabric.followed().values(), path])
            pending = await _as_for(path.name, following)
            out = vm_path_out(fabric, _followed(fabric, path.name), {})
        return models.VmPathMadeOut(path=out, pending=sorted(pending))

    @router.delete("/{name}", status_code=204)
    async def remove(name: str, fabric: TheFabric) -> None:
        """Take back a path past virtual machines."""
        async with wishes.changing(fabric):
            _followed(fabric, name)
            left = [path for path in fabric.followed().values() if path.name != name]
            await _as_for(name, fabric.follow(left))

    return router


async def _as_for(name: str, asking: Awaitable[frozenset[str]]) -> frozenset[str]:
    """Wait for what is asked; what goes wrong with other paths than ``name`` is theirs."""
    try:
        return await asking
    except NotDoneError as error:
        own = [failure for failure in error.failures if name in failure.hit]
        if own:
            raise NotDoneError(own, error.pending) from None
        return error.pending


Refused = Mapping[str, list[models.RefusalOut]]


def path_out(plan: PlanView, flow: Flow, own: bool, refused: Refused) -> models.PathOut:
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
        refused=refused.get(flow.name, []),
        own=own,
    )


def vm_path_out(fabric: FabricView, path: Path, refused: Refused) -> models.VmPathOut:
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
        refused=refused.get(path.name, []),
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
            own = name in fabric.intents(OPERATOR).names
            return path_out(fabric.plan(), flow, own, convert.refusals_out(fabric.failures()))
    raise NotFoundError(f"there is no path {name[:40]!r}")


def _made(fabric: FabricView, name: str, pending: Collection[str]) -> models.PathMadeOut:
    return models.PathMadeOut(path=_path_named(fabric, name), pending=sorted(pending))


def _check_own(fabric: FabricView, name: str) -> None:
    if name in fabric.intents(OPERATOR).names:
        return
    if name in fabric.intents().names:
        raise ConflictError(f"the path {name} is the site's own")
    raise NotFoundError(f"there is no path {name[:40]!r}")
