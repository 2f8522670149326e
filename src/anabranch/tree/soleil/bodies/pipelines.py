"""Bodies of the messages that manage media pipelines: PIPEDEF to ROUTEPIPELINE."""

from collections.abc import Callable
from typing import Any, TypeVar
from xml.etree.ElementTree import Element

from anabranch.tree.soleil.bodies.format import Format
from anabranch.tree.soleil.errors import CodecError
from anabranch.tree.soleil.fields import (
    MAX_PROSE,
    choice,
    endpoints,
    identifier,
    limited,
    needed,
    text_of,
    whole,
    write_endpoints,
    write_prose,
    write_text,
    write_whole,
)
from anabranch.tree.soleil.messages import (
    Endpoint,
    Fault,
    PipeDef,
    PipeDefInfo,
    PipelineState,
    PlayPipeline,
    RemovePipeline,
    RoutePipeline,
    StopPipeline,
)

MAX_OUTLETS = 64

Named = TypeVar("Named", PlayPipeline, StopPipeline, RemovePipeline)


def pipeline_id(found: dict[str, Element]) -> str:
    return identifier(needed(found, "pipeid").text, "pipeid")


def write_pipeline_id(pipeline: str) -> str:
    return f"<pipeid>{identifier(pipeline, 'pipeid')}</pipeid>"


def _read_named(kind: type[Named]) -> Callable[[dict[str, Element]], Named]:
    return lambda found: kind(pipeline_id(found))


def _write_named(body: PlayPipeline | StopPipeline | RemovePipeline) -> str:
    return write_pipeline_id(body.pipeline)


def _read_pipe_def(found: dict[str, Element]) -> PipeDef:
    return PipeDef(pipeline_id(found), text_of(needed(found, "description")))


def _write_pipe_def(body: PipeDef) -> str:
    return write_pipeline_id(body.pipeline) + write_text("description", body.description)


def _read_pipe_def_info(found: dict[str, Element]) -> PipeDefInfo:
    listed = found.get("outlets")
    outlets = [] if listed is None else limited(listed.findall("outlet"), MAX_OUTLETS)
    named = {identifier(each.get("name"), "outlet"): endpoints(each) for each in outlets}
    if len(named) != len(outlets):
        raise CodecError("an outlet occurs twice")
    error, restarts = found.get("error"), found.get("restarts")
    return PipeDefInfo(
        pipeline_id(found),
        choice(PipelineState, needed(found, "state").text, "state"),
        text_of(found.get("description")),
        named,
        None if error is None else text_of(error, MAX_PROSE),
        0 if restarts is None else whole(restarts.text, "restarts"),
    )


def _write_pipe_def_info(body: PipeDefInfo) -> str:
    if len(body.outlets) > MAX_OUTLETS:
        raise CodecError(f"more than {MAX_OUTLETS} outlets", Fault.TOO_LARGE)
    outlets = "".join(_write_outlet(name, to) for name, to in body.outlets.items())
    error = "" if body.error is None else write_prose("error", body.error) or "<error/>"
    return (
        f"{write_pipeline_id(body.pipeline)}<state>{body.state}</state>"
        f"{write_text('description', body.description or None)}"
        f"{f'<outlets>{outlets}</outlets>' if outlets else ''}{error}"
        f"<restarts>{write_whole(body.restarts, 'restarts')}</restarts>"
    )


def _write_outlet(name: str, to: tuple[Endpoint, ...]) -> str:
    return f'<outlet name="{identifier(name, "outlet")}">{write_endpoints(to)}</outlet>'


def _read_route(found: dict[str, Element]) -> RoutePipeline:
    outlet = needed(found, "outlet")
    named = identifier(outlet.get("name"), "outlet")
    return RoutePipeline(pipeline_id(found), named, endpoints(outlet))


def _write_route(body: RoutePipeline) -> str:
    return write_pipeline_id(body.pipeline) + _write_outlet(body.outlet, body.to)


FORMATS: dict[str, Format[Any]] = {
    "pipedef": Format(PipeDef, _read_pipe_def, _write_pipe_def),
    "pipedefinfo": Format(PipeDefInfo, _read_pipe_def_info, _write_pipe_def_info),
    "playpipeline": Format(PlayPipeline, _read_named(PlayPipeline), _write_named),
    "stoppipeline": Format(StopPipeline, _read_named(StopPipeline), _write_named),
    "removepipeline": Format(RemovePipeline, _read_named(RemovePipeline), _write_named),
    "routepipeline": Format(RoutePipeline, _read_route, _write_route),
}
