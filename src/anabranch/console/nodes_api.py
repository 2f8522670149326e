"""The nodes and the tree they make: seen and changed by operators."""

from typing import Annotated

from fastapi import APIRouter, Body, Request

from anabranch.console.nodes_models import (
    BranchOut,
    NodeOut,
    ReserveOut,
    StartIn,
    StopIn,
    TreeOut,
)
from anabranch.core.errors import NotFoundError
from anabranch.site.site import Site


def make_router() -> APIRouter:
    """Return the routes under ``/api/nodes`` and ``/api/tree``."""
    router = APIRouter(prefix="/api", tags=["nodes"])

    @router.get("/nodes")
    async def nodes(request: Request) -> list[NodeOut]:
        """List the nodes, those of the pool too."""
        return [NodeOut(**fields) for fields in await _site(request).nodes.report()]

    @router.post("/nodes/{name}/start")
    async def start(
        name: str, request: Request, how: Annotated[StartIn | None, Body()] = None
    ) -> NodeOut:
        """Bring a node of the pool up; returns when it is at work."""
        await _site(request).nodes.start_node(name, below=how.below if how else None)
        return await _node(request, name)

    @router.post("/nodes/{name}/drain")
    async def drain(name: str, request: Request) -> NodeOut:
        """Have a leaf take nobody new; those who watch stay."""
        _site(request).nodes.drain(name)
        return await _node(request, name)

    @router.post("/nodes/{name}/undrain")
    async def undrain(name: str, request: Request) -> NodeOut:
        """Have a leaf take viewers again."""
        _site(request).nodes.undrain(name)
        return await _node(request, name)

    @router.post("/nodes/{name}/stop")
    async def stop(
        name: str, request: Request, how: Annotated[StopIn | None, Body()] = None
    ) -> NodeOut:
        """Switch a node off; what hangs from it hangs elsewhere before, its viewers' seats end."""
        patience_s = (how or StopIn()).patience_s
        await _site(request).nodes.switch_off(name, patience_s=patience_s)
        return await _node(request, name)

    @router.get("/tree")
    async def tree(request: Request) -> TreeOut:
        """Show how the nodes hang."""
        plan = _site(request).nodes.tree
        if plan is None:
            raise NotFoundError("this site has no switches, and so no tree")
        return TreeOut(
            nodes=[
                BranchOut(
                    name=node.name,
                    role=str(node.role),
                    parent=node.parent,
                    rate_mbit=node.rate_mbit if node.parent is not None else None,
                )
                for node in plan.tree
            ],
            reserve=[
                ReserveOut(between=link.ends, rate_mbit=link.rate_mbit) for link in plan.redundancy
            ],
            pruned={name: reason.text for name, reason in plan.pruned.items()},
        )

    return router


def _site(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


async def _node(request: Request, name: str) -> NodeOut:
    report = await _site(request).nodes.report()
    return next(NodeOut(**fields) for fields in report if fields["name"] == name)
