"""The ingress gateway: what came to which door, and what became of it."""

from collections.abc import Collection
from typing import Literal

from fastapi import APIRouter, Request
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from pydantic import BaseModel, Field

from anabranch.core.errors import AnabranchError, NotFoundError
from anabranch.site.site import Site


class DoorOut(BaseModel):
    """A port that producers send to; counters are packets since its rules were made."""

    protocol: Literal["tcp", "udp"]
    port: int
    open: bool = Field(description="strangers may knock: somebody is waited for")
    sessions: list[str] = Field(description="addresses of those whose packets pass")
    passed: int = Field(description="of known sessions")
    passed_bytes: int
    strangers: int = Field(description="of others, while the door was open")
    dropped: int = Field(description="of others, while it was not")
    metered: int = Field(description="dropped since strangers, or a session, sent too much")


class ProducerOut(BaseModel):
    """Whoever feeds a channel by the ingress."""

    channel: str
    state: Literal["away", "admitted", "live", "lost"]
    seconds: float | None = Field(description="in this state; null: since the channel is there")
    bytes: int = Field(description="that have come of it")


class IngressOut(BaseModel):
    """The ingress."""

    doors: list[DoorOut]
    producers: list[ProducerOut]
    past: list[str] = Field(
        description="channels whose producers meet a listener directly: the source names an"
        " address, or they publish by WHIP and may come by IPv6"
    )
    no_door: int = Field(description="packets for ports that are none of the doors")
    kept_inside: int = Field(description="packets of listeners that were no answers to a producer")
    newcomers_dropped: int = Field(description="by the kernel: too many unknown senders at once")


def make_router() -> APIRouter:
    """Return the route ``/api/ingress``."""
    router = APIRouter(prefix="/api", tags=["fabric"])

    @router.get("/ingress")
    async def ingress(request: Request) -> IngressOut:
        """Show the doors for producers, who is let in, and what was dropped."""
        site: Site = request.app.state.site
        if site.ingress is None:
            raise NotFoundError("producers meet the listeners directly: there is no ingress here")
        return IngressOut(**await site.ingress.report())

    return router


async def ingress_metrics(site: Site, listed: Collection[str]) -> list[Metric]:
    """Return the ingress' figures, of channels only of those that are ``listed``.

    None if there is no ingress, or its switch is away. Ports are not told: anybody may read this.
    """
    if site.ingress is None:
        return []
    try:
        found = IngressOut(**await site.ingress.report())
    except AnabranchError:
        return []
    packets = CounterMetricFamily(
        "anabranch_ingress_packets",
        "Packets of producers and strangers, by what became of them",
        labels=["what"],
    )
    for what in ("passed", "strangers", "dropped", "metered"):
        packets.add_metric([what], sum(getattr(door, what) for door in found.doors))
    for what in ("no_door", "kept_inside", "newcomers_dropped"):
        packets.add_metric([what], getattr(found, what))
    octets = CounterMetricFamily("anabranch_ingress_bytes", "Bytes that passed")
    octets.add_metric([], sum(door.passed_bytes for door in found.doors))
    live = GaugeMetricFamily(
        "anabranch_producer_live", "1 if the producer sends", labels=["channel"]
    )
    for producer in found.producers:
        if producer.channel in listed:
            live.add_metric([producer.channel], float(producer.state == "live"))
    return [packets, octets, live]
