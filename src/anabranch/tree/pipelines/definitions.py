"""The pipelines that a node has been told of, and the decisions about them. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from anabranch.core.errors import UsageError
from anabranch.tree.pipelines.description import DescriptionError, Element, Graph, parse, with_ports
from anabranch.tree.pipelines.elements import ELEMENTS, OUTLET, SOURCE
from anabranch.tree.pipelines.overlay import Overlay
from anabranch.tree.soleil.messages import (
    Endpoint,
    Fault,
    PipeDef,
    PipeDefInfo,
    PipelineState,
    RoutePipeline,
)

DEFAULT_CAPS = "application/x-rtp,media=video,clock-rate=90000,encoding-name=H264"
"""Of a source that names none: the form of the site's pictures."""


class CommandError(UsageError):
    """A command to a pipeline is refused."""

    def __init__(self, fault: Fault, text: str) -> None:
        super().__init__(text)
        self.fault = fault


@dataclass(slots=True)
class Pipeline:
    """One pipeline.

    Attributes:
        description: as it was given, with the ports of all its sources.
        routes: where each outlet sends.
        error: the last trouble since it was started; None: there was none.
        restarts: since it was defined.
    """

    name: str
    description: str
    graph: Graph
    routes: dict[str, tuple[Endpoint, ...]]
    state: PipelineState = PipelineState.DEFINED
    error: str | None = None
    restarts: int = 0

    def info(self) -> PipeDefInfo:
        return PipeDefInfo(
            self.name,
            self.state,
            self.description,
            dict(self.routes),
            self.error,
            self.restarts,
        )

    @property
    def ports(self) -> dict[str, int]:
        """The port of every stream that it receives."""
        return {
            source.properties["stream"]: int(source.properties["port"])
            for source in self.graph.sources
        }


@dataclass(slots=True)
class Definitions:
    """All pipelines of a node; ``most`` at a time."""

    overlay: Overlay
    most: int = 16
    pipelines: dict[str, Pipeline] = field(default_factory=dict)

    def named(self, name: str) -> Pipeline:
        """Return a pipeline. Raises CommandError: there is none of that name."""
        if name not in self.pipelines:
            raise CommandError(Fault.NOT_FOUND, f"there is no pipeline {name}")
        return self.pipelines[name]

    def define(self, command: PipeDef) -> Pipeline:
        """Return what is to take the place of the pipeline of that name; nothing is changed yet.

        Outlets that it had keep their routes, streams their ports.

        Raises:
            CommandError: the description, or one pipeline more, is refused.
        """
        name = command.pipeline
        before = self.pipelines.get(name)
        if before is None and len(self.pipelines) >= self.most:
            raise CommandError(Fault.FAILED, f"there are {self.most} pipelines already")
        ports, routes = (before.ports, before.routes) if before is not None else ({}, {})
        drawn = self._ports(_parsed(command.description), name, ports)
        description = with_ports(command.description, drawn)
        graph = _parsed(description)
        return Pipeline(
            name, description, graph, {outlet: routes.get(outlet, ()) for outlet in graph.outlets}
        )

    def _ports(self, graph: Graph, name: str, kept: Mapping[str, int]) -> dict[str, int]:
        """Return the port of every source by its element; ``kept``: earlier ones by stream."""

        def rank(source: Element) -> int:
            """Sort those that may choose last."""
            given = source.properties
            return 0 if "port" in given else 1 if given["stream"] in kept else 2

        allowed = self.overlay.ports
        taken = {
            port
            for each in self.pipelines.values()
            if each.name != name
            for port in each.ports.values()
        }
        ports: dict[str, int] = {}
        for source in sorted(graph.sources, key=rank):
            earlier = kept.get(source.properties["stream"])
            if "port" in source.properties:
                port = int(source.properties["port"])
                if port not in allowed:
                    span = f"{allowed.start} to {allowed.stop - 1}"
                    raise CommandError(Fault.FORBIDDEN, f"port {port} is not within {span}")
                if port in taken:
                    raise CommandError(Fault.CONFLICT, f"another pipeline receives at port {port}")
            elif earlier is not None and earlier not in taken:
                port = earlier
            else:
                free = next((each for each in allowed if each not in taken), None)
                if free is None:
                    raise CommandError(Fault.FAILED, "all ports for sources are taken")
                port = free
            ports[source.name] = port
            taken.add(port)
        return ports

    def route(self, command: RoutePipeline) -> tuple[Pipeline, tuple[Endpoint, ...]]:
        """Return the pipeline and where its outlet is to send, each address once.

        Raises:
            CommandError: there is no such pipeline or outlet, or a destination is not allowed.
        """
        pipeline = self.named(command.pipeline)
        if command.outlet not in pipeline.routes:
            raise CommandError(
                Fault.NOT_FOUND, f"pipeline {pipeline.name} has no outlet {command.outlet}"
            )
        try:
            to = [self.overlay.check_destination(each) for each in command.to]
        except UsageError as error:
            raise CommandError(Fault.FORBIDDEN, str(error)) from error
        return pipeline, tuple(dict.fromkeys(to))


def _parsed(description: str) -> Graph:
    try:
        return parse(description)
    except DescriptionError as error:
        raise CommandError(error.fault, str(error)) from error


def worker_config(pipeline: Pipeline, overlay: Overlay) -> dict[str, Any]:
    """Return what the worker builds, as plain data."""
    elements = [_worker_element(each, pipeline, overlay) for each in pipeline.graph.elements]
    return {"elements": elements, "links": [list(link) for link in pipeline.graph.links]}


def _worker_element(element: Element, pipeline: Pipeline, overlay: Overlay) -> dict[str, Any]:
    given = element.properties
    if element.factory == SOURCE:
        return {
            "kind": "source",
            "name": element.name,
            "stream": given["stream"],
            "address": overlay.address,
            "port": int(given["port"]),
            "caps": given.get("caps", DEFAULT_CAPS),
        }
    if element.factory == OUTLET:
        return {
            "kind": "outlet",
            "name": element.name,
            "address": overlay.address,
            "interface": overlay.interface,
            "ttl": overlay.ttl,
            "to": endpoints(pipeline.routes[element.name]),
        }
    return {
        "kind": "element",
        "name": element.name,
        "factory": element.factory,
        "properties": {**given, **ELEMENTS[element.factory].fixed},
    }


def endpoints(to: tuple[Endpoint, ...]) -> list[list[Any]]:
    """Return addresses as plain data."""
    return [[each.host, each.port] for each in to]
