"""Media pipelines of the nodes: seen and changed by operators."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from anabranch.core.errors import UsageError
from anabranch.site.pipelines import Pipelines
from anabranch.tree.soleil.messages import (
    Endpoint,
    PipeDef,
    PipeDefInfo,
    PipelineState,
    PlayPipeline,
    RemovePipeline,
    RoutePipeline,
    StopPipeline,
)

MAX_DESTINATIONS = 64


class PipelineOut(BaseModel):
    """A pipeline, as its node tells."""

    id: str
    state: PipelineState
    description: str = Field(description="with the ports that its sources have drawn")
    outlets: dict[str, list[str]] = Field(description="where each sends: ADDRESS:PORT")
    error: str | None = Field(description="the last trouble since it was started")
    restarts: int


class DefineIn(BaseModel):
    """A pipeline to be defined."""

    model_config = ConfigDict(extra="forbid")

    description: Annotated[str, Field(max_length=8192)]


class RouteIn(BaseModel):
    """Where an outlet is to send."""

    model_config = ConfigDict(extra="forbid")

    to: Annotated[
        list[Annotated[str, Field(max_length=60)]],
        Field(max_length=MAX_DESTINATIONS, description="all of them: ADDRESS:PORT"),
    ]


Identifier = Annotated[str, Path(pattern=r"^[!-~]{1,128}$")]


def make_router() -> APIRouter:
    """Return the routes under ``/api/nodes/{name}/pipelines``."""
    router = APIRouter(
        prefix="/api/nodes/{name}/pipelines",
        tags=["nodes"],
    )

    @router.get("")
    async def pipelines(name: str, on: ThePipelines) -> list[PipelineOut]:
        """List the pipelines of a node."""
        return [_out(each) for each in on.of(name)]

    @router.put("/{pipeline}")
    async def define(
        name: str, pipeline: Identifier, wanted: DefineIn, on: ThePipelines
    ) -> PipelineOut:
        """Define a pipeline; the same again changes nothing, another one ends the old one."""
        return _out(await on.command(name, PipeDef(pipeline, wanted.description)))

    @router.post("/{pipeline}/play")
    async def play(name: str, pipeline: Identifier, on: ThePipelines) -> PipelineOut:
        """Start a pipeline; returns when it plays or has failed, and is then tried again."""
        return _out(await on.command(name, PlayPipeline(pipeline)))

    @router.post("/{pipeline}/stop")
    async def stop(name: str, pipeline: Identifier, on: ThePipelines) -> PipelineOut:
        """Stop a pipeline; it stays defined."""
        return _out(await on.command(name, StopPipeline(pipeline)))

    @router.put("/{pipeline}/outlets/{outlet}")
    async def route(
        name: str, pipeline: Identifier, outlet: Identifier, wanted: RouteIn, on: ThePipelines
    ) -> PipelineOut:
        """Have an outlet send to exactly these addresses of the overlay."""
        to = tuple(_endpoint(each) for each in wanted.to)
        return _out(await on.command(name, RoutePipeline(pipeline, outlet, to)))

    @router.delete("/{pipeline}", status_code=204)
    async def remove(name: str, pipeline: Identifier, on: ThePipelines) -> None:
        """Stop and forget a pipeline."""
        await on.command(name, RemovePipeline(pipeline))

    return router


def _pipelines(request: Request) -> Pipelines:
    pipelines: Pipelines = request.app.state.site.steward.pipelines
    return pipelines


ThePipelines = Annotated[Pipelines, Depends(_pipelines)]


def _out(info: PipeDefInfo) -> PipelineOut:
    return PipelineOut(
        id=info.pipeline,
        state=info.state,
        description=info.description,
        outlets={
            outlet: [f"{each.host}:{each.port}" for each in to]
            for outlet, to in info.outlets.items()
        },
        error=info.error,
        restarts=info.restarts,
    )


def _endpoint(text: str) -> Endpoint:
    """Read where to send; what address it may be is the node's question.

    Raises:
        UsageError: it is no address with a port.
    """
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise UsageError(f"{text!r} is not ADDRESS:PORT")
    return Endpoint(host, int(port))
