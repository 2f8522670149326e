"""What the tree reports of itself, and what was done about it."""

from collections.abc import Collection, Iterable, Iterator

from fastapi import APIRouter, Request
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from pydantic import BaseModel, Field

from anabranch.core.errors import NotFoundError
from anabranch.site.gauges import parts_of
from anabranch.site.site import Site
from anabranch.site.steward import Steward
from anabranch.tree.metrics import MACHINES, weight_of
from anabranch.tree.soleil.messages import StreamStats


class FiguresOut(BaseModel):
    """Figures of one stream, or of machines."""

    stream: str = Field(description="CHANNEL/RENDITION; *: the machines themselves")
    weight: float = Field(description="how many viewers, or machines, this is about")
    values: dict[str, float] = Field(description="see docs/tree.md, Statistics")


class SubtreeOut(BaseModel):
    """What one child of the root, or a node of this machine, has reported last."""

    node: str
    streams: list[FiguresOut]


class DiagnosisOut(BaseModel):
    """Where a trouble is."""

    node: str
    stream: str
    metric: str
    severity: str
    suffer: str = Field(description="most or few viewers; node: the machine")
    share: float


class LoweringOut(BaseModel):
    """Viewers of a stream below a node see a lower rendition."""

    node: str
    stream: str


class StatisticsOut(BaseModel):
    """The tree's figures in the last round."""

    round: int | None
    whole: list[FiguresOut]
    children: list[SubtreeOut] = Field(description="of the root, each with all that is below it")
    nodes: list[SubtreeOut] = Field(description="of this machine, each with its own figures")
    present: dict[str, str] = Field(description="nodes that report, and from whom they hang")
    diagnoses: list[DiagnosisOut]
    lowered: list[LoweringOut]
    acting: bool = Field(description="False: what would be done is only told")


class DeedOut(BaseModel):
    """An action, or what would have been one."""

    time: float
    action: str
    node: str
    outcome: str = Field(description="done, told, or why it failed")
    data: dict[str, str | int | float | bool | None]


def make_router() -> APIRouter:
    """Return the routes under ``/api/tree``."""
    router = APIRouter(prefix="/api/tree", tags=["nodes"])

    @router.get("/statistics")
    async def statistics(request: Request) -> StatisticsOut:
        """Show the figures of the last round."""
        return statistics_of(_steward(request))

    @router.get("/history")
    async def history(request: Request, node: str | None = None) -> list[DeedOut]:
        """List what was done about the tree, or about one node; the newest last."""
        steward = _steward(request)
        if node is not None and node not in steward.views.roles:
            raise NotFoundError(f"there is no node named {node[:60]!r}")
        return [
            DeedOut(
                time=deed.event.time,
                action=deed.event.kind.removeprefix("tree."),
                node=deed.event.subject,
                outcome=deed.outcome,
                data=dict(deed.event.data),
            )
            for deed in steward.reaction.history
            if node is None or deed.concerns(node)
        ]

    @router.post("/restart", status_code=204)
    async def restart(request: Request) -> None:
        """Have the root forget the tree and find it again; what flows is not touched."""
        await _steward(request).restart()

    return router


def statistics_of(steward: Steward) -> StatisticsOut:
    """Return the figures of the last round."""
    agents, reaction = steward.agents, steward.reaction
    reporter = agents.root.reporter
    return StatisticsOut(
        round=reporter.whole.round,
        whole=_figures(reporter.whole.containers),
        children=[
            SubtreeOut(node=name, streams=_figures(streams))
            for name, streams in sorted(reporter.last().items())
        ],
        nodes=[
            SubtreeOut(node=name, streams=_figures(agent.reporter.own))
            for name in steward.views.roles
            if (agent := agents.agent(name)) is not None
        ],
        present={
            name: place.parent
            for name, place in sorted(agents.registry.nodes.items())
            if place.lost is None
        },
        diagnoses=[
            DiagnosisOut(
                node=each.node,
                stream=each.stream,
                metric=each.metric,
                severity=each.severity.name.lower(),
                suffer=str(each.scope),
                share=each.share,
            )
            for each in reaction.diagnoses
        ],
        lowered=[
            LoweringOut(node=node, stream=stream)
            for (node, stream), lowering in sorted(reaction.picture.lowerings.items())
            if lowering.restored is None
        ],
        acting=reaction.rules.act,
    )


def tree_metrics(site: Site, listed: Collection[str]) -> Iterator[Metric]:
    """Yield the tree's figures for Prometheus; of channels only of those that are ``listed``."""

    def is_shown(stream: str) -> bool:
        return stream == MACHINES or parts_of(stream)[0] in listed

    found = statistics_of(site.steward)
    figure = GaugeMetricFamily(
        "anabranch_tree_figure", "Figures of the whole tree", labels=["stream", "figure"]
    )
    for stream in found.whole:
        if not is_shown(stream.stream):
            continue
        for name, value in stream.values.items():
            figure.add_metric([stream.stream, name], value)
        figure.add_metric([stream.stream, "weight"], stream.weight)
    yield figure
    machine = GaugeMetricFamily(
        "anabranch_tree_node_figure", "Figures of a node itself", labels=["node", "figure"]
    )
    for node in found.nodes:
        for stream in node.streams:
            for name, value in stream.values.items() if stream.stream == MACHINES else ():
                machine.add_metric([node.node, name], value)
    yield machine
    yield GaugeMetricFamily(
        "anabranch_tree_nodes", "Nodes that hang in the tree", value=len(found.present)
    )
    trouble = GaugeMetricFamily(
        "anabranch_tree_trouble", "Share that suffers", labels=["node", "stream", "metric"]
    )
    for each in found.diagnoses:
        if not is_shown(each.stream):
            continue
        trouble.add_metric([each.node, each.stream, each.metric], each.share)
    yield trouble
    actions = CounterMetricFamily(
        "anabranch_tree_actions", "Actions by kind and outcome", labels=["action", "outcome"]
    )
    for (kind, outcome), count in site.steward.reaction.counts.items():
        actions.add_metric([kind, outcome], count)
    yield actions


def _steward(request: Request) -> Steward:
    site: Site = request.app.state.site
    return site.steward


def _figures(containers: Iterable[StreamStats]) -> list[FiguresOut]:
    return [
        FiguresOut(stream=each.stream, weight=weight_of(each), values=dict(each.values))
        for each in containers
    ]
