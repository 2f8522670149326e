"""Bodies of STATS, REQFULLSTATS and FULLSTATS (seed 000, section 3.1.2).

What we add to the seed's ``statsContainer`` is in attributes, which its readers pass over.
"""

import math
from collections.abc import Iterable
from typing import Any
from xml.etree.ElementTree import Element

from anabranch.tree.soleil.bodies.format import Format
from anabranch.tree.soleil.bodies.pipelines import pipeline_id, write_pipeline_id
from anabranch.tree.soleil.errors import CodecError
from anabranch.tree.soleil.fields import (
    children,
    identifier,
    instant,
    limited,
    needed,
    node_name,
    number,
    whole,
    write_instant,
    write_number,
    write_whole,
)
from anabranch.tree.soleil.messages import Fault, FullStats, ReqFullStats, Stats, StreamStats
from anabranch.tree.soleil.repair import CONTAINERS, STATISTICS

MAX_CONTAINERS = 512
MAX_VALUES = 64


def _read_seconds(element: Element) -> float:
    """Return seconds since the epoch; ``ms`` is more precise than the text, if it is there."""
    return instant(element.get("ms", element.text), element.tag)[0] / 1000


def _write_seconds(tag: str, seconds: float) -> str:
    if not math.isfinite(seconds):
        raise CodecError(f"{tag} is not finite")
    ms = round(seconds * 1000)
    exact = f' ms="{write_instant(ms, tag)}"' if ms % 1000 else ""
    return f"<{tag}{exact}>{write_instant(ms, tag, in_seconds=True)}</{tag}>"


def _read_container(element: Element) -> StreamStats:
    found = children(element)
    listed = limited(needed(found, "statArray").findall("DBValue"), MAX_VALUES)
    values = dict(_read_value(children(each)) for each in listed)
    if len(values) != len(listed):
        raise CodecError("a figure occurs twice")
    weight, node = element.get("weight"), element.get("node")
    return StreamStats(
        identifier(needed(found, "id").text, "id"),
        _read_seconds(needed(found, "startTime")),
        _read_seconds(needed(found, "endTime")),
        whole(needed(found, "numOfChildren").text, "numOfChildren"),
        values,
        None if weight is None else _weight(number(weight, "weight")),
        None if node is None else node_name(node, "node"),
    )


def _weight(weight: float) -> float:
    if weight < 0:
        raise CodecError("a weight is negative")
    return weight


def _read_value(found: dict[str, Element]) -> tuple[str, float]:
    name = identifier(needed(found, "name").text, "name")
    return STATISTICS.get(name, name), number(needed(found, "value").text, "value")


def _write_container(stats: StreamStats) -> str:
    if len(stats.values) > MAX_VALUES:
        raise CodecError(f"more than {MAX_VALUES} figures", Fault.TOO_LARGE)
    weight = ""
    if stats.weight is not None:
        weight = f' weight="{write_number(_weight(stats.weight), "weight")}"'
    node = "" if stats.node is None else f' node="{node_name(stats.node, "node")}"'
    values = "".join(
        f"<DBValue><name>{identifier(name, 'name')}</name>"
        f"<value>{write_number(value, 'value')}</value></DBValue>"
        for name, value in stats.values.items()
    )
    return (
        f"<statsContainer{weight}{node}>"
        f"{_write_seconds('startTime', stats.start)}{_write_seconds('endTime', stats.end)}"
        f"<numOfChildren>{write_whole(stats.children, 'numOfChildren')}</numOfChildren>"
        f"<id>{identifier(stats.stream, 'id')}</id>"
        f"<statArray>{values}</statArray></statsContainer>"
    )


def _list(found: dict[str, Element]) -> Element:
    for tag in CONTAINERS:
        if tag in found:
            return found[tag]
    raise CodecError(f"{CONTAINERS[0]} is missing")


def _read_containers(listed: Element) -> tuple[StreamStats, ...]:
    found = limited(listed.findall("statsContainer"), MAX_CONTAINERS)
    return tuple(_read_container(each) for each in found)


def _write_containers(containers: Iterable[StreamStats]) -> str:
    written = [_write_container(each) for each in containers]
    if len(written) > MAX_CONTAINERS:
        raise CodecError(f"more than {MAX_CONTAINERS} containers", Fault.TOO_LARGE)
    return "".join(written)


def _read_stats(found: dict[str, Element]) -> Stats:
    listed = _list(found)
    drawn = listed.get("round")
    return Stats(_read_containers(listed), None if drawn is None else whole(drawn, "round"))


def _write_stats(stats: Stats) -> str:
    drawn = "" if stats.round is None else f' round="{write_whole(stats.round, "round")}"'
    return f"<statsContainers{drawn}>{_write_containers(stats.containers)}</statsContainers>"


def _read_request(found: dict[str, Element]) -> ReqFullStats:
    return ReqFullStats(pipeline_id(found) if "pipeid" in found else None)


def _write_request(request: ReqFullStats) -> str:
    return "" if request.pipeline is None else write_pipeline_id(request.pipeline)


def _read_full_stats(found: dict[str, Element]) -> FullStats:
    end = found.get("endTime")
    return FullStats(
        _read_containers(_list(found)),
        pipeline_id(found) if "pipeid" in found else None,
        None if end is None else _read_seconds(end),
    )


def _write_full_stats(full: FullStats) -> str:
    end = "" if full.end is None else _write_seconds("endTime", full.end)
    pipeline = "" if full.pipeline is None else write_pipeline_id(full.pipeline)
    return f"<xmlDb>{_write_containers(full.containers)}</xmlDb>{end}{pipeline}"


FORMATS: dict[str, Format[Any]] = {
    "stats": Format(Stats, _read_stats, _write_stats),
    "reqfullstats": Format(ReqFullStats, _read_request, _write_request),
    "fullstats": Format(FullStats, _read_full_stats, _write_full_stats),
}
